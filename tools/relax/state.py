"""Structures being relaxed: guards, jobs, batch arrays, and what leaves a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from pydantic import Field

from hullward.models.crystal import Crystal
from hullward.models.potential import CrystalBatch
from hullward.tools.records import Reason, Record
from hullward.tools.relax.variables import CellVariables, Optimizer, stack

EARLY_STEPS = 15  # then the order of the rest is decided; rank correlation about 0.95


class Guards(Record):
    """Limits beyond which a relaxation is stopped because its numbers are meaningless."""

    min_volume_ratio: float = Field(default=0.5, gt=0)  # relative to the start; below: collapsed
    max_volume_ratio: float = Field(default=2.0, gt=1)  # above: exploded
    min_distance_a: float = Field(default=0.5, ge=0)  # atoms closer than this clash
    # a larger drop shows a hole in the potential, not a minimum
    max_energy_drop_ev_per_atom: float = Field(default=20.0, gt=0)


@dataclass
class RelaxationJob:
    """One structure to relax: its start and, once it has ended, why it failed."""

    candidate_id: str
    start: Crystal
    work: float
    failure: Reason | None = None
    detail: str = ""
    pause: bool = False  # after EARLY_STEPS

    def fail(self, reason: Reason, detail: str) -> None:
        self.failure, self.detail = reason, detail


@dataclass
class BatchState:
    """Arrays of b structures; energies are nan until the first valid evaluation."""

    numbers: np.ndarray  # (b, n) atomic numbers
    start_volume: np.ndarray  # (b,) Å³
    converged: np.ndarray  # (b,)
    steps: np.ndarray  # (b,)
    force_calls: np.ndarray  # (b,)
    cpu_s: np.ndarray  # (b,)
    best_energy: np.ndarray  # (b,) eV/atom, lowest so far
    best_residual: np.ndarray  # (b,) eV/Å, smallest largest row so far
    progress: np.ndarray  # (b,) the step at which either last improved
    first_energy: np.ndarray  # (b,) eV/atom
    early_energy: np.ndarray  # (b,) eV/atom, the last valid one within EARLY_STEPS evaluations
    energy: np.ndarray  # (b,) eV/atom; from here on, the last valid values
    cell: np.ndarray  # (b, 3, 3) Å
    coords: np.ndarray  # (b, n, 3) fractions
    forces: np.ndarray  # (b, n, 3) eV/Å
    stress: np.ndarray  # (b, 3, 3) eV/Å³
    magmoms: np.ndarray  # (b, n) μB, nan where the potential gives none

    @classmethod
    def at_start(cls, batch: CrystalBatch) -> BatchState:
        """The state of structures before their first step."""
        b, n = batch.numbers.shape
        with np.errstate(all="ignore"):  # a cell that is refused may overflow
            volume = np.abs(np.linalg.det(batch.cells_a))
        return cls(
            numbers=batch.numbers,
            start_volume=volume,
            converged=np.zeros(b, dtype=bool),
            steps=np.zeros(b, dtype=int),
            force_calls=np.zeros(b, dtype=int),
            cpu_s=np.zeros(b),
            best_energy=np.full(b, np.inf),
            best_residual=np.full(b, np.inf),
            progress=np.zeros(b, dtype=int),
            first_energy=np.full(b, np.nan),
            early_energy=np.full(b, np.nan),
            energy=np.full(b, np.nan),
            cell=batch.cells_a,
            coords=batch.frac_coords,
            forces=np.zeros((b, n, 3)),
            stress=np.zeros((b, 3, 3)),
            magmoms=np.full((b, n), np.nan),
        )

    def keep(self, mask: np.ndarray) -> BatchState:
        return BatchState(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def pick(self, row: int, n_atoms: int) -> BatchState:
        """A copy of one structure's row, without the padding."""
        kept = {f.name: getattr(self, f.name)[row : row + 1].copy() for f in fields(self)}
        padded = ("numbers", "coords", "forces", "magmoms")
        return BatchState(**kept | {name: kept[name][:, :n_atoms] for name in padded})

    def join(self, other: BatchState) -> BatchState:
        names = [f.name for f in fields(self)]
        return BatchState(**{k: stack(getattr(self, k), getattr(other, k)) for k in names})


@dataclass
class Finished:
    """One structure that has ended, with its row of the state."""

    job: RelaxationJob
    n_atoms: int
    row: BatchState  # of one


@dataclass
class PausedRelaxation:
    """One structure with all that its next step needs, new or paused.

    Any `BatchRelaxer`, in any process, continues it as if it had never paused.
    """

    job: RelaxationJob
    state: BatchState  # of one, like the others
    variables: CellVariables
    optimizer: Optimizer

    @property
    def candidate_id(self) -> str:
        return self.job.candidate_id

    @property
    def early_energy_ev_per_atom(self) -> float:
        return float(self.state.early_energy[0])
