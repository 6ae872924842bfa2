"""Minimisers of many crystals at once, cell and positions together.

Every array carries the structures along its first axis and is padded to the largest one. A
structure's variables are 3 + n rows of 3 numbers, as in ASE's FrechetCellFilter: first n·U, where
F = exp(U) is the deformation of the starting cell, then the undeformed positions in Å. Rows of
padding stay zero, so sums over rows need no masks.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, Self

import numpy as np

from hullward.models.batch import CrystalBatch


class Rows:
    """Attributes that all are arrays with one row a structure."""

    padded: ClassVar[tuple[str, ...]] = ()  # those with 3 + n along the second axis

    def keep(self, mask: np.ndarray) -> None:
        """Let the others go; `mask` is (b,) of bool."""
        for name, value in vars(self).items():
            setattr(self, name, value[mask])

    def join(self, other: Self) -> None:
        """Take more structures in, behind those already here."""
        for name, value in vars(self).items():
            setattr(self, name, stack(value, getattr(other, name)))

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of one structure's row, without the padding."""
        one = object.__new__(type(self))
        for name, value in vars(self).items():
            kept = value[row : row + 1]
            setattr(one, name, (kept[:, : 3 + n_atoms] if name in self.padded else kept).copy())
        return one


class Walk(Rows):
    """Where a set of structures stands.

    reference_cells: (b, 3, 3) Å.  counts: (b,) atoms.  variables: (b, 3 + n, 3).
    """

    padded = ("variables",)

    def __init__(self, batch: CrystalBatch) -> None:
        self.reference_cells = batch.cells_a
        self._inverse = np.linalg.inv(batch.cells_a)
        self.counts = batch.counts
        positions = batch.frac_coords @ batch.cells_a
        self.variables = np.concatenate([np.zeros_like(batch.cells_a), positions], axis=1)

    def deformations(self) -> np.ndarray:
        """(b, 3, 3) F = exp(U)."""
        return _expm(self._strains())

    def cells(self, deformations: np.ndarray) -> np.ndarray:
        """(b, 3, 3) Å, the deformed lattice vectors."""
        return np.asarray(self.reference_cells @ deformations.swapaxes(1, 2))

    def frac_coords(self) -> np.ndarray:
        """(b, n, 3); a deformation leaves them as they are."""
        return self.variables[:, 3:] @ self._inverse

    def forces(
        self, deformations: np.ndarray, atom_forces: np.ndarray, stresses: np.ndarray
    ) -> np.ndarray:
        """(b, 3 + n, 3) eV/Å: minus the gradient of the energy by the variables.

        atom_forces: (b, n, 3) eV/Å.  stresses: (b, 3, 3) eV/Å³. The derivative of the matrix
        exponential is read off the exponential of a block matrix (DOI 10.1137/080716426).
        """
        volumes = np.abs(np.linalg.det(self.cells(deformations)))
        virials = -volumes[:, None, None] * (stresses + stresses.swapaxes(1, 2)) / 2
        by_deformation = virials @ np.linalg.inv(deformations.swapaxes(1, 2))
        block = np.zeros((len(self.counts), 6, 6))
        block[:, :3, :3] = block[:, 3:, 3:] = self._strains().swapaxes(1, 2)
        block[:, :3, 3:] = by_deformation
        forces = np.empty_like(self.variables)
        forces[:, :3] = _expm(block)[:, :3, 3:] / self.counts[:, None, None]
        forces[:, 3:] = atom_forces @ deformations
        return forces

    def _strains(self) -> np.ndarray:
        return np.asarray(self.variables[:, :3] / self.counts[:, None, None])


class Optimiser(Protocol):
    """Moves a set of structures downhill; knows them by their rows only, as `Rows` does."""

    def keep(self, mask: np.ndarray) -> None:
        """Forget the others; `mask` is (b,) of bool."""

    def join(self, other: Self) -> None:
        """Take more structures in, with all that is known of them."""

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of what is known of one structure."""

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        """The variables to evaluate next, given (b,) energies in eV and the forces."""


def make_optimiser(name: Literal["fire", "bfgs", "fire-bfgs"], walk: Walk) -> Optimiser:
    """An optimiser of that name for structures standing where this walk begins."""
    if name == "fire":
        return Fire(walk)
    from hullward.tools.quasi_newton import FireThenBfgs, TrustedBfgs

    return TrustedBfgs(walk) if name == "bfgs" else FireThenBfgs(walk)


class Fire(Rows):
    """FIRE (DOI 10.1103/PhysRevLett.97.170201) with ASE's parameters and order of operations."""

    padded = ("_velocity",)
    START_STEP, MAX_STEP = 0.1, 1.0  # of the made-up time
    START_MIXING, MIXING_DECAY = 0.1, 0.99
    PATIENCE, GROWTH, SHRINK = 5, 1.1, 0.5
    MAX_MOVE_A = 0.2  # norm over all rows of one structure

    def __init__(self, walk: Walk) -> None:
        b = len(walk.counts)
        self._velocity = np.zeros_like(walk.variables)
        self._time_step = np.full(b, self.START_STEP)
        self._mixing = np.full(b, self.START_MIXING)
        self._downhill = np.full(b, -1)  # steps since the last turn; -1 before the first

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        del energies  # forces alone decide
        first = self._downhill < 0
        onwards = (_dot(forces, self._velocity) > 0) & ~first
        turned = ~onwards & ~first
        pull = np.sqrt(
            _dot(self._velocity, self._velocity) / np.maximum(_dot(forces, forces), 1e-300)
        )
        mixed = _each(1 - self._mixing) * self._velocity + _each(self._mixing * pull) * forces
        self._velocity = np.where(_each(onwards), mixed, 0.0)
        faster = onwards & (self._downhill > self.PATIENCE)
        self._time_step = np.where(
            faster, np.minimum(self._time_step * self.GROWTH, self.MAX_STEP), self._time_step
        )
        self._mixing = np.where(faster, self._mixing * self.MIXING_DECAY, self._mixing)
        self._time_step = np.where(turned, self._time_step * self.SHRINK, self._time_step)
        self._mixing = np.where(turned, self.START_MIXING, self._mixing)
        self._downhill = np.where(onwards, self._downhill + 1, 0)
        self._velocity = self._velocity + _each(self._time_step) * forces
        move = _each(self._time_step) * self._velocity
        length = np.sqrt(_dot(move, move))
        shortened = np.minimum(1.0, self.MAX_MOVE_A / np.maximum(length, 1e-300))
        return np.asarray(variables + move * _each(shortened))


def largest_row(forces: np.ndarray) -> np.ndarray:
    """(b,) the largest row norm: what ASE compares with fmax."""
    norms: np.ndarray = np.sqrt((forces**2).sum(axis=2)).max(axis=1)
    return norms


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("bij,bij->b", a, b))


def _each(values: np.ndarray) -> np.ndarray:
    """One number a structure, ready to multiply its rows."""
    return values[:, None, None]


def stack(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join along the first axis; where there is a second, pad the shorter with zeros."""
    if a.ndim > 1 and a.shape[1] != b.shape[1]:
        size = max(a.shape[1], b.shape[1])
        a, b = (
            np.pad(x, [(0, 0), (0, size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]) for x in (a, b)
        )
    return np.concatenate([a, b])


def _expm(matrices: np.ndarray) -> np.ndarray:
    """Exponentials of (b, k, k) matrices by ten terms of the series of a sixteenth, squared back.

    Exact to rounding for norms up to 2 (a factor of seven in a length); off-diagonal blocks may be
    of any size, since the result is linear in them. The same operations whatever the numbers: a
    structure's path never depends on its companions, and nothing can loop on odd input.
    """
    small = matrices / 16
    unit = np.eye(matrices.shape[-1])
    result = unit + small / 10
    for term in range(9, 0, -1):
        result = unit + small @ result / term
    for _ in range(4):
        result = result @ result
    return result
