"""CHGNet (DOI 10.1038/s42256-023-00716-3) as a potential that works in batches."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential.batch import BatchEvaluation, CrystalBatch
from hullward.models.potential.chgnet_graph import (
    ATOM_CUTOFF_A,
    BatchGraph,
    Bonds,
    crystal_bonds,
    crystal_graph,
)
from hullward.models.potential.neighbours import TooManyNeighboursError
from hullward.models.potential.protocol import (
    ClashError,
    DeviceLostError,
    Evaluation,
    IsolatedAtomError,
    PotentialCard,
    UnsupportedElementError,
    out_of_memory,
)

if TYPE_CHECKING:
    from hullward.models.potential.chgnet_network import NetworkOutput


_BYTES_A_ROW = 16_000  # of memory for a bond or an angle, measured on a CPU
_FREE_SHARE = 0.6  # of the free memory of a device that a batch may take


class ChgnetPotential:
    """The published network, rewritten for speed, with the weights of the chgnet wheel."""

    def __init__(self, card: PotentialCard, weights: Path, device: str = "cpu") -> None:
        """Load weights whose hash the registry has checked."""
        from ase.data import chemical_symbols
        from chgnet.model import CHGNet

        from hullward.models.potential.chgnet_network import InferenceNetwork

        self._card = card
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its version
            # as CHGNet.load would: the bias existed only in version 0.2.0
            model = CHGNet.from_file(str(weights), mlp_out_bias=False, version=card.name)
        self._net = InferenceNetwork(model, device)
        self._known = np.array([symbol in card.elements for symbol in chemical_symbols])
        self._on_cpu = device == "cpu"

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `hullward.models.potential.protocol.Potential.evaluate`."""
        answers: list[Evaluation | Exception] = []
        for crystal in crystals:
            batch = CrystalBatch.of([crystal])
            try:
                answers.append(_only(self.evaluate_batch(batch)))
            except MemoryError as error:
                answers.append(error)
        return answers

    def evaluate_batch(self, batch: CrystalBatch, min_distance_a: float = 0.0) -> BatchEvaluation:
        """As `hullward.models.potential.batch.BatchPotential.evaluate_batch`."""
        failures = self._unsupported(batch)
        bonds: dict[int, Bonds] = {}
        for row in set(range(len(batch.counts))) - failures.keys():
            try:
                bonds[row] = crystal_bonds(batch, row)
            except TooManyNeighboursError as error:
                failures[row] = error
        rows = np.array(sorted(bonds), dtype=int)
        graph = _graph(batch, rows, bonds)
        if graph is not None:
            unfit = graph.isolated | (graph.closest_a < min_distance_a)
            for place in np.flatnonzero(unfit):
                failures[int(rows[place])] = (
                    IsolatedAtomError(f"an atom has no neighbour within {ATOM_CUTOFF_A:g} Å")
                    if graph.isolated[place]
                    else ClashError(f"two atoms {graph.closest_a[place]:.2f} Å apart")
                )
            if unfit.any():
                rows = rows[~unfit]
                graph = _graph(batch, rows, bonds)
        answers = BatchEvaluation.empty(*batch.numbers.shape)
        answers.failures.update(failures)
        if graph is not None:
            output = self._run(graph)
            answers.energies_ev_per_atom[rows] = output.energies / batch.counts[rows]
            volumes = np.abs(np.linalg.det(batch.cells_a[rows]))
            answers.stresses_ev_per_a3[rows] = output.virials / volumes[:, None, None]
            at = rows[graph.owner], np.concatenate([np.arange(c) for c in batch.counts[rows]])
            answers.forces_ev_per_a[at] = output.forces
            answers.magmoms_mu_b[at] = output.magmoms
        return answers

    def work(self, batch: CrystalBatch) -> np.ndarray:
        """(b,) directed bonds plus ordered angles; 0 where there are too many to evaluate."""
        return np.array([_rows(batch, row) for row in range(len(batch.counts))], dtype=float)

    @property
    def work_at_once(self) -> float:
        """Bonds and angles a batch: what fits a core's cache, or fills a GPU and its memory."""
        if self._on_cpu:
            return 8_000
        return min(400_000.0, _FREE_SHARE * self._free_bytes() / _BYTES_A_ROW)

    def _free_bytes(self) -> float:
        import torch

        if self._net.device.type != "cuda":
            return float("inf")  # not stated; a batch too large is halved
        return float(torch.cuda.mem_get_info(self._net.device)[0])

    def _unsupported(self, batch: CrystalBatch) -> dict[int, Exception]:
        """The crystals with elements the network was not trained on."""
        unknown = ~self._known[batch.numbers] & (batch.numbers > 0)
        return {
            int(row): UnsupportedElementError(
                f"{self._card.name} was not trained on Z = "
                + ", ".join(map(str, np.unique(batch.numbers[row][unknown[row]])))
            )
            for row in np.flatnonzero(unknown.any(axis=1))
        }

    def _run(self, graph: BatchGraph) -> NetworkOutput:
        import torch

        try:
            return self._net(graph)
        except RuntimeError as error:
            if (full := out_of_memory(error)) is not None:
                if self._net.device.type == "cuda":
                    torch.cuda.empty_cache()  # for the smaller batch that follows
                raise full from error
            if isinstance(error, torch.AcceleratorError):
                raise DeviceLostError(str(error)) from error
            raise


def _graph(batch: CrystalBatch, rows: np.ndarray, bonds: dict[int, Bonds]) -> BatchGraph | None:
    return crystal_graph(batch.pick(rows), [bonds[r] for r in rows.tolist()]) if len(rows) else None


def _rows(batch: CrystalBatch, row: int) -> int:
    try:
        return crystal_graph(batch.pick(np.array([row])), [crystal_bonds(batch, row)]).rows
    except TooManyNeighboursError:
        return 0


def _only(answers: BatchEvaluation) -> Evaluation | Exception:
    """The answer of a batch of one."""
    if answers.failures:
        return answers.failures[0]
    return Evaluation(
        energy_ev_per_atom=float(answers.energies_ev_per_atom[0]),
        forces_ev_per_a=answers.forces_ev_per_a[0],
        stress_ev_per_a3=answers.stresses_ev_per_a3[0],
        magmoms_mu_b=answers.magmoms_mu_b[0],
    )
