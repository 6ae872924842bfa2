"""Minimisers of many crystals at once, cell and positions together.

Every array carries the structures along its first axis and is padded to the largest one. A
structure's variables are 3 + n rows of 3 numbers, as in ASE's FrechetCellFilter: first n·U, where
F = exp(U) is the deformation of the starting cell, then the undeformed positions in Å. Rows of
padding stay zero, so sums over rows need no masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hullward.models.crystal import Crystal


class Walk:
    """Where a set of structures stands.

    reference_cells: (b, 3, 3) Å.  counts: (b,) atoms.  variables: (b, 3 + n, 3).
    """

    def __init__(self, crystals: Sequence[Crystal]) -> None:
        self.reference_cells = np.array([c.lattice for c in crystals]).reshape(-1, 3, 3)
        self.counts = np.array([c.n_atoms for c in crystals], dtype=int)
        self.variables = np.zeros((len(crystals), 3 + max(self.counts, default=0), 3))
        for row, crystal in enumerate(crystals):
            positions = np.array(crystal.frac_coords) @ self.reference_cells[row]
            self.variables[row, 3 : 3 + crystal.n_atoms] = positions

    def deformations(self) -> np.ndarray:
        """(b, 3, 3) F = exp(U)."""
        return _expm(self._strains())

    def cells(self, deformations: np.ndarray) -> np.ndarray:
        """(b, 3, 3) Å, the deformed lattice vectors."""
        return self.reference_cells @ deformations.swapaxes(1, 2)

    def frac_coords(self) -> np.ndarray:
        """(b, n, 3); a deformation leaves them as they are."""
        return self.variables[:, 3:] @ np.linalg.inv(self.reference_cells)

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

    def keep(self, mask: np.ndarray) -> None:
        """Let the others go; `mask` is (b,) of bool."""
        self.reference_cells = self.reference_cells[mask]
        self.counts = self.counts[mask]
        self.variables = self.variables[mask]

    def join(self, other: Walk) -> None:
        """Take more structures in, behind those already here."""
        self.reference_cells = np.concatenate([self.reference_cells, other.reference_cells])
        self.counts = np.concatenate([self.counts, other.counts])
        self.variables = _stack(self.variables, other.variables)

    def _strains(self) -> np.ndarray:
        return self.variables[:, :3] / self.counts[:, None, None]


class Fire:
    """FIRE (DOI 10.1103/PhysRevLett.97.170201) with ASE's parameters and order of operations."""

    START_STEP, MAX_STEP = 0.1, 1.0  # of the made-up time
    START_MIXING, MIXING_DECAY = 0.1, 0.99
    PATIENCE, GROWTH, SHRINK = 5, 1.1, 0.5
    MAX_MOVE_A = 0.2  # norm over all rows of one structure

    def __init__(self) -> None:
        self._velocity = np.zeros((0, 3, 3))
        self._time_step = self._mixing = np.zeros(0)
        self._downhill = np.zeros(0, dtype=int)  # steps since the last turn; -1 before the first

    def join(self, variables: np.ndarray) -> None:
        """Prepare for structures with these (b, 3 + n, 3) variables."""
        b = len(variables)
        self._velocity = _stack(self._velocity, np.zeros_like(variables))
        self._time_step = np.concatenate([self._time_step, np.full(b, self.START_STEP)])
        self._mixing = np.concatenate([self._mixing, np.full(b, self.START_MIXING)])
        self._downhill = np.concatenate([self._downhill, np.full(b, -1)])

    def keep(self, mask: np.ndarray) -> None:
        """Forget the others; `mask` is (b,) of bool."""
        self._velocity, self._time_step = self._velocity[mask], self._time_step[mask]
        self._mixing, self._downhill = self._mixing[mask], self._downhill[mask]

    def step(self, forces: np.ndarray) -> np.ndarray:
        """The (b, 3 + n, 3) change of the variables that these forces ask for."""
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
        return move * _each(np.minimum(1.0, self.MAX_MOVE_A / np.maximum(length, 1e-300)))


def largest_row(forces: np.ndarray) -> np.ndarray:
    """(b,) the largest row norm: what ASE compares with fmax."""
    norms: np.ndarray = np.sqrt((forces**2).sum(axis=2)).max(axis=1)
    return norms


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bij,bij->b", a, b)


def _each(values: np.ndarray) -> np.ndarray:
    """One number a structure, ready to multiply its rows."""
    return values[:, None, None]


def _stack(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Concatenate (b, rows, 3) arrays, padding the shorter rows with zeros."""
    rows = max(a.shape[1], b.shape[1])
    padded = [np.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, 0))) for x in (a, b)]
    return np.concatenate(padded)


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
