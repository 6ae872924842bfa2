"""Many crystals as padded arrays, and potentials that evaluate them all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential.neighbours import bonds_within
from hullward.models.potential.protocol import ClashError, Evaluation, Potential, PotentialCard


@dataclass(frozen=True, kw_only=True)
class CrystalBatch:
    """Many crystals as arrays padded to the largest: the input of a fast potential."""

    cells_a: np.ndarray  # (b, 3, 3) Å, one lattice vector a row
    frac_coords: np.ndarray  # (b, n, 3)
    numbers: np.ndarray  # (b, n) atomic numbers, 0 where there is no atom
    counts: np.ndarray  # (b,)

    def pick(self, rows: np.ndarray) -> CrystalBatch:
        """A batch of these rows."""
        return CrystalBatch(
            cells_a=self.cells_a[rows],
            frac_coords=self.frac_coords[rows],
            numbers=self.numbers[rows],
            counts=self.counts[rows],
        )

    @classmethod
    def of(cls, crystals: Sequence[Crystal]) -> CrystalBatch:
        from ase.data import atomic_numbers

        counts = np.array([c.n_atoms for c in crystals], dtype=np.int64)
        coords = np.zeros((len(crystals), max(counts, default=0), 3))
        numbers = np.zeros(coords.shape[:2], dtype=np.int64)
        for row, crystal in enumerate(crystals):
            coords[row, : counts[row]] = crystal.frac_coords
            numbers[row, : counts[row]] = [atomic_numbers[s] for s in crystal.species]
        cells = np.array([c.lattice for c in crystals]).reshape(-1, 3, 3)
        return cls(cells_a=cells, frac_coords=coords, numbers=numbers, counts=counts)


@dataclass(frozen=True, kw_only=True)
class BatchEvaluation:
    """Results for a batch, padded likewise. Rows named in `failures` hold no meaningful numbers."""

    energies_ev_per_atom: np.ndarray  # (b,)
    forces_ev_per_a: np.ndarray  # (b, n, 3), zero in the padding
    stresses_ev_per_a3: np.ndarray  # (b, 3, 3)
    magmoms_mu_b: np.ndarray  # (b, n), nan where the potential gives none
    failures: dict[int, Exception]

    @classmethod
    def empty(cls, b: int, n: int) -> BatchEvaluation:
        """Arrays of zeros for b crystals of up to n atoms."""
        return cls(
            energies_ev_per_atom=np.zeros(b),
            forces_ev_per_a=np.zeros((b, n, 3)),
            stresses_ev_per_a3=np.zeros((b, 3, 3)),
            magmoms_mu_b=np.full((b, n), np.nan),
            failures={},
        )

    def fill(self, rows: np.ndarray, part: BatchEvaluation) -> None:
        """Copy the results of some of the crystals into their rows."""
        self.energies_ev_per_atom[rows] = part.energies_ev_per_atom
        self.forces_ev_per_a[rows] = part.forces_ev_per_a
        self.stresses_ev_per_a3[rows] = part.stresses_ev_per_a3
        self.magmoms_mu_b[rows] = part.magmoms_mu_b
        self.failures.update({int(rows[k]): error for k, error in part.failures.items()})


@runtime_checkable
class BatchPotential(Potential, Protocol):
    """A potential that evaluates many crystals at once."""

    def evaluate_batch(self, batch: CrystalBatch, min_distance_a: float = 0.0) -> BatchEvaluation:
        """As `evaluate`; crystals with atoms closer than the minimum fail with ClashError.

        Raises MemoryError when the batch as a whole is too large, DeviceLostError when the
        process cannot go on.
        """

    def work(self, batch: CrystalBatch) -> np.ndarray:
        """(b,) cost of each crystal in time and memory, in the unit of `work_at_once`."""

    @property
    def work_at_once(self) -> float:
        """The work that one batch should hold."""


class OneByOne:
    """Makes any potential evaluate a batch, one crystal object after the other."""

    work_at_once = 1.0

    def __init__(self, potential: Potential) -> None:
        self._potential = potential

    @property
    def card(self) -> PotentialCard:
        return self._potential.card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        return self._potential.evaluate(crystals)

    def work(self, batch: CrystalBatch) -> np.ndarray:
        return np.ones(len(batch.counts))

    def evaluate_batch(self, batch: CrystalBatch, min_distance_a: float = 0.0) -> BatchEvaluation:
        """As `BatchPotential.evaluate_batch`."""
        from ase.data import chemical_symbols

        answers = BatchEvaluation.empty(*batch.numbers.shape)
        crystals: dict[int, Crystal] = {}
        for row, count in enumerate(batch.counts):
            cell, coords = batch.cells_a[row], batch.frac_coords[row, :count]
            close = _closest_pair(cell, coords, min_distance_a)
            if close < min_distance_a:
                answers.failures[row] = ClashError(f"two atoms {close:.2f} Å apart")
                continue
            species = [chemical_symbols[z] for z in batch.numbers[row, :count]]
            crystals[row] = Crystal.from_arrays(cell, species, coords)
        found = self._potential.evaluate(list(crystals.values()))
        for row, answer in zip(crystals, found, strict=True):
            n = batch.counts[row]
            if isinstance(answer, Exception):
                answers.failures[row] = answer
                continue
            answers.energies_ev_per_atom[row] = answer.energy_ev_per_atom
            answers.forces_ev_per_a[row, :n] = answer.forces_ev_per_a
            answers.stresses_ev_per_a3[row] = answer.stress_ev_per_a3
            if answer.magmoms_mu_b is not None:
                answers.magmoms_mu_b[row, :n] = answer.magmoms_mu_b
        return answers


def in_batches(potential: Potential) -> BatchPotential:
    """The potential itself if it works in batches, or an adapter that calls it one by one."""
    return potential if isinstance(potential, BatchPotential) else OneByOne(potential)


def _closest_pair(cell: np.ndarray, coords: np.ndarray, limit_a: float) -> float:
    """The shortest distance between atoms, images included; inf if none is below the limit."""
    if limit_a == 0:
        return np.inf
    lengths = bonds_within(cell, coords @ cell, limit_a)[3]
    return float(lengths.min(initial=np.inf))
