"""Cells and positions of many crystals as one set of optimisation variables.

Every array has the structures along its first axis and is padded to the largest one. A structure's
variables are 3 + n rows of 3 numbers, as in ASE's FrechetCellFilter: first n·U, where F = exp(U) is
the deformation of the starting cell, then the undeformed positions in Å. Rows of padding stay zero,
so sums over rows need no masks.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

import numpy as np

from hullward.models.potential import CrystalBatch


class BatchRows:
    """Base of classes whose attributes are all arrays with one row per structure."""

    padded: ClassVar[tuple[str, ...]] = ()  # those with 3 + n along the second axis

    def keep(self, mask: np.ndarray) -> None:
        """Drop the structures where `mask`, (b,) of bool, is False."""
        for name, value in vars(self).items():
            setattr(self, name, value[mask])

    def join(self, other: Self) -> None:
        """Append the structures of another set."""
        for name, value in vars(self).items():
            setattr(self, name, stack(value, getattr(other, name)))

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of one structure's row, without the padding."""
        one = object.__new__(type(self))
        for name, value in vars(self).items():
            kept = value[row : row + 1]
            setattr(one, name, (kept[:, : 3 + n_atoms] if name in self.padded else kept).copy())
        return one


class CellVariables(BatchRows):
    """Variables of a set of structures.

    reference_cells: (b, 3, 3) Å.  counts: (b,) atoms.  values: (b, 3 + n, 3).
    """

    padded = ("values",)

    def __init__(self, batch: CrystalBatch) -> None:
        self.reference_cells = batch.cells_a
        self._inverse = np.linalg.inv(batch.cells_a)
        self.counts = batch.counts
        positions = batch.frac_coords @ batch.cells_a
        self.values = np.concatenate([np.zeros_like(batch.cells_a), positions], axis=1)

    def deformations(self) -> np.ndarray:
        """(b, 3, 3) F = exp(U)."""
        return _expm(self._strains())

    def cells(self, deformations: np.ndarray) -> np.ndarray:
        """(b, 3, 3) Å, the deformed lattice vectors."""
        return np.asarray(self.reference_cells @ deformations.swapaxes(1, 2))

    def frac_coords(self) -> np.ndarray:
        """(b, n, 3); a deformation does not change them."""
        return self.values[:, 3:] @ self._inverse

    def forces(
        self, deformations: np.ndarray, atom_forces: np.ndarray, stresses: np.ndarray
    ) -> np.ndarray:
        """(b, 3 + n, 3) eV/Å: minus the gradient of the energy with respect to the variables.

        atom_forces: (b, n, 3) eV/Å.  stresses: (b, 3, 3) eV/Å³. The derivative of the matrix
        exponential is a block of the exponential of a block matrix (DOI 10.1137/080716426).
        """
        volumes = np.abs(np.linalg.det(self.cells(deformations)))
        virials = -volumes[:, None, None] * (stresses + stresses.swapaxes(1, 2)) / 2
        by_deformation = virials @ np.linalg.inv(deformations.swapaxes(1, 2))
        block = np.zeros((len(self.counts), 6, 6))
        block[:, :3, :3] = block[:, 3:, 3:] = self._strains().swapaxes(1, 2)
        block[:, :3, 3:] = by_deformation
        forces = np.empty_like(self.values)
        forces[:, :3] = _expm(block)[:, :3, 3:] / self.counts[:, None, None]
        forces[:, 3:] = atom_forces @ deformations
        return forces

    def _strains(self) -> np.ndarray:
        return np.asarray(self.values[:, :3] / self.counts[:, None, None])


class Optimizer(Protocol):
    """Moves a set of structures downhill, one row per structure as in `BatchRows`."""

    def keep(self, mask: np.ndarray) -> None:
        """Drop the structures where `mask`, (b,) of bool, is False."""

    def join(self, other: Self) -> None:
        """Append the structures of another optimizer with their state."""

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of one structure's state."""

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        """The variables to evaluate next, given (b,) energies in eV and the forces."""


def largest_row(forces: np.ndarray) -> np.ndarray:
    """(b,) the largest row norm, which ASE compares with fmax."""
    norms: np.ndarray = np.sqrt((forces**2).sum(axis=2)).max(axis=1)
    return norms


def stack(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join along the first axis; pad the shorter second axis with zeros."""
    if a.ndim > 1 and a.shape[1] != b.shape[1]:
        size = max(a.shape[1], b.shape[1])
        a, b = (
            np.pad(x, [(0, 0), (0, size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]) for x in (a, b)
        )
    return np.concatenate([a, b])


def _expm(matrices: np.ndarray) -> np.ndarray:
    """Exponentials of (b, k, k) matrices: ten terms of the series at a sixteenth, squared back.

    Exact to rounding for norms up to 2 (a factor of seven in a length); off-diagonal blocks may be
    of any size, since the result is linear in them. The operations do not depend on the numbers, so
    a structure's path never depends on its companions, and odd input cannot cause a long loop.
    """
    small = matrices / 16
    unit = np.eye(matrices.shape[-1])
    result = unit + small / 10
    for term in range(9, 0, -1):
        result = unit + small @ result / term
    for _ in range(4):
        result = result @ result
    return result
