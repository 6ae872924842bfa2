"""CHGNet checkpoints run by the package's own network: slow, for few structures.

`hullward.models.potential.chgnet` computes the same faster, for the layout of 0.3.0 only.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential.batch import CrystalBatch
from hullward.models.potential.chgnet_graph import ATOM_CUTOFF_A, crystal_bonds
from hullward.models.potential.neighbours import TooManyNeighboursError, in_compact_cell
from hullward.models.potential.protocol import (
    Evaluation,
    IsolatedAtomError,
    PotentialCard,
    SequentialPotential,
)

GPA_PER_EV_PER_A3 = 160.21766208


class PlainChgnet(SequentialPotential):
    """A published checkpoint, run by the chgnet package."""

    def __init__(self, card: PotentialCard, weights: Path, device: str, *, mlp_out_bias: bool):
        """Load weights whose hash the registry has checked."""
        from chgnet.model import CHGNet

        super().__init__(card)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its version
            model = CHGNet.from_file(str(weights), mlp_out_bias=mlp_out_bias, version=card.name)
        self._model = model.to(device).eval()

    def _evaluate_one(self, crystal: Crystal) -> Evaluation | Exception:
        try:
            crystal = in_compact_cell(crystal, ATOM_CUTOFF_A)
            crystal_bonds(CrystalBatch.of([crystal]), 0)  # the size of its graph
        except TooManyNeighboursError as error:
            return error
        try:
            graph = self._model.graph_converter(crystal.to_structure())
        except ValueError as error:  # raised for atoms without neighbours
            return IsolatedAtomError(str(error))
        if graph is None:
            return IsolatedAtomError("an atom has no neighbour within the cut-off")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # from torch, about the package's code
            found = self._model.predict_graph(graph, task="efsm")
        return Evaluation(
            energy_ev_per_atom=float(found["e"]),
            forces_ev_per_a=np.asarray(found["f"], dtype=float),
            stress_ev_per_a3=np.asarray(found["s"], dtype=float) / GPA_PER_EV_PER_A3,
            magmoms_mu_b=np.abs(np.asarray(found["m"], dtype=float)).reshape(-1),
        )
