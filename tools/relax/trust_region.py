"""BFGS in a trust region, started from a Hessian of springs.

A quasi-Newton method spends its first steps on what every chemist knows: short bonds are stiff,
long ones soft, and a strain of the cell stretches the bonds along it. A Hessian of springs between
neighbours, weaker with distance, holds this before the first force is computed (after
DOI 10.1063/1.4947024). The step is the best one within a radius that grows and shrinks with how
well the quadratic model has predicted (DOI 10.1007/978-0-387-40065-5, chapter 4). A step that goes
uphill is taken back, but the Hessian keeps what it showed.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from hullward.models.potential import TooManyNeighboursError, bonds_within
from hullward.tools.relax.variables import BatchRows, CellVariables, largest_row

SPRING_EV_PER_A2 = 10.0  # of the shortest bond
SPRING_DECAY = 3.0  # per shortest bond length
FLOOR_EV_PER_A2 = 5.0  # added to every variable: motions that stretch no spring
MAX_RADIUS_A, MIN_RADIUS_A = 0.2, 1e-3  # of the largest row of a step
UPHILL_EV_PER_ATOM = 1e-4  # smaller rises are accepted
MOST_RETREATS = 4  # in a row
MOST_ATOMS = 1000  # of a structure: its Hessian and the update take half a GB
_STRETCHES_AT_ONCE = 4_000_000


class TrustRegionBfgs(BatchRows):
    """BFGS for many structures: their Hessians are padded and updated together."""

    padded = ("_variables", "_gradient")

    def __init__(self, start: CellVariables) -> None:
        b = len(start.counts)
        size = 3 * start.values.shape[1]
        self._hessian = np.zeros((b, size, size))  # of springs from the first step on
        self._cells, self._counts = start.reference_cells, start.counts
        self._variables = start.values
        self._gradient = np.zeros_like(start.values)
        self._energy, self._length, self._predicted = np.zeros((3, b))
        self._radius = np.full(b, MAX_RADIUS_A)
        self._retreats = np.zeros(b, dtype=int)
        self._fresh = np.ones(b, dtype=bool)

    def join(self, other: Self) -> None:
        """Append the structures of another optimizer with their state."""
        size = max(self._hessian.shape[1], other._hessian.shape[1])
        self._hessian, other._hessian = (_padded(x._hessian, size) for x in (self, other))
        super().join(other)

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of one structure's state."""
        one = super().pick(row, n_atoms)
        size = 9 + 3 * n_atoms
        one._hessian = self._hessian[row : row + 1, :size, :size].copy()
        return one

    def step(
        self,
        variables: np.ndarray,
        forces: np.ndarray,
        energies: np.ndarray,
        waiting: np.ndarray | None = None,
    ) -> np.ndarray:
        """The variables to evaluate next, given (b,) energies in eV and the forces.

        waiting: (b,) of bool, structures that another optimizer still moves.
        """
        waiting = np.zeros(len(energies), dtype=bool) if waiting is None else waiting
        for row in np.flatnonzero(self._fresh & ~waiting):
            n, size = self._counts[row], self._hessian.shape[1]
            springs = spring_hessian(self._cells[row], variables[row, 3 : 3 + n])
            self._hessian[row] = _padded(springs[None], size)[0]
        gradient = -forces
        self._update_hessian(variables - self._variables, gradient - self._gradient)
        rise = energies - self._energy
        uphill = ~self._fresh & (rise > UPHILL_EV_PER_ATOM * self._counts)
        back = uphill & (self._retreats < MOST_RETREATS)
        self._adapt_radius(rise, back)
        self._retreats = np.where(back, self._retreats + 1, 0)
        self._variables = np.where(back[:, None, None], self._variables, variables)
        self._gradient = np.where(back[:, None, None], self._gradient, gradient)
        self._energy = np.where(back, self._energy, energies)
        self._fresh = waiting.copy()
        flat = self._gradient.reshape(len(energies), -1)
        move = _best_step(self._hessian, flat, self._radius)
        curved = np.einsum("bi,bij,bj->b", move, self._hessian, move)
        self._predicted = np.einsum("bi,bi->b", flat, move) + curved / 2
        self._length = _largest_row(move)
        target: np.ndarray = self._variables + move.reshape(variables.shape)
        return target

    def _update_hessian(self, moved: np.ndarray, changed: np.ndarray) -> None:
        """The damped BFGS update: the Hessians stay positive (Nocedal, procedure 18.2)."""
        b = len(moved)
        s, y = moved.reshape(b, -1), changed.reshape(b, -1)
        hs = np.einsum("bij,bj->bi", self._hessian, s)
        sy, shs = np.einsum("bi,bi->b", s, y), np.einsum("bi,bi->b", s, hs)
        sure = ~self._fresh & (np.abs(s).max(axis=1) > 1e-7)
        sy, shs = np.where(sure, sy, 1.0), np.where(sure, shs, 1.0)
        weak = sy < 0.2 * shs
        share = np.where(weak, 0.8 * shs / np.where(weak, shs - sy, 1.0), 1.0)[:, None]
        y = share * y + (1 - share) * hs
        sy = np.where(sure, np.einsum("bi,bi->b", s, y), np.inf)
        shs = np.where(sure, shs, np.inf)
        gained = y[:, :, None] * y[:, None, :] / sy[:, None, None]
        lost = hs[:, :, None] * hs[:, None, :] / shs[:, None, None]
        self._hessian = self._hessian + gained - lost

    def _adapt_radius(self, rise: np.ndarray, back: np.ndarray) -> None:
        falling = self._predicted < 0
        kept = np.where(falling, rise / np.where(falling, self._predicted, -1.0), 0.0)
        good, poor = kept > 0.5, kept < 0.1
        radius = np.where(good, np.minimum(self._radius * 1.5, MAX_RADIUS_A), self._radius)
        radius = np.where(poor, np.maximum(self._radius * 0.5, MAX_RADIUS_A / 10), radius)
        shrunk = np.maximum(np.minimum(self._radius, self._length) / 4, MIN_RADIUS_A)
        radius = np.where(back, shrunk, radius)
        self._radius = np.where(self._fresh, self._radius, radius)


def spring_hessian(cell: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(9 + 3n, 9 + 3n) eV/Å²: springs between neighbours, and the floor.

    cell: (3, 3) Å.  positions: (n, 3) Å.
    """
    n = len(positions)
    first, second, vectors, length = _springs(cell, positions)
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, first, length)
    np.minimum.at(nearest, second, length)
    rest = np.sqrt(nearest[first] * nearest[second])
    with np.errstate(divide="ignore", invalid="ignore"):
        stiffness = SPRING_EV_PER_A2 * np.exp(-SPRING_DECAY * (length / rest - 1))
        along = np.nan_to_num(vectors / length[:, None])
    stiffness = np.nan_to_num(stiffness)
    hessian = np.zeros((9 + 3 * n, 9 + 3 * n))
    at_once = max(1, _STRETCHES_AT_ONCE // len(hessian))
    for start in range(0, len(first), at_once):
        some = slice(start, start + at_once)
        ends = first[some], second[some]
        rows = _stretches(n, *ends, along[some], vectors[some])
        hessian += (rows * stiffness[some, None]).T @ rows
    hessian[np.diag_indices_from(hessian)] += FLOOR_EV_PER_A2
    return hessian


def _springs(
    cell: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bonds as of `bonds_within`, the longer ones if the shorter miss an atom; none if too many."""
    none = np.zeros(0, dtype=int)
    found = none, none, np.zeros((0, 3)), np.zeros(0)
    for cutoff in (4.0, 6.0):
        try:
            found = bonds_within(cell, positions, cutoff)
        except TooManyNeighboursError:
            break
        if len(np.union1d(found[0], found[1])) == len(positions):
            break
    return found


def _stretches(
    n: int, first: np.ndarray, second: np.ndarray, along: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """(u, 9 + 3n) how far each variable stretches each bond: n·U first, then the positions."""
    stretch = np.zeros((len(first), 3 + n, 3))
    stretch[:, :3] = along[:, :, None] * vectors[:, None, :] / n
    bond = np.arange(len(first))
    np.subtract.at(stretch, (bond, 3 + first), along)
    np.add.at(stretch, (bond, 3 + second), along)
    rows: np.ndarray = stretch.reshape(len(first), -1)
    return rows


def _best_step(hessian: np.ndarray, gradient: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(b, d) steps to the minima of the quadratic models, no row longer than the radius.

    The shift of the eigenvalues that makes a step short enough is found by bisection.
    """
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(values, 1e-2)
    along = np.einsum("bji,bj->bi", vectors, gradient)

    def step(shift: np.ndarray) -> np.ndarray:
        move: np.ndarray = -np.einsum("bij,bj->bi", vectors, along / (values + shift[:, None]))
        return move

    low = np.zeros(len(radius))
    move = step(low)
    if (_largest_row(move) <= radius).all():
        return move
    free = _largest_row(move) <= radius
    high = 2 * np.linalg.norm(gradient, axis=1) / radius  # certainly short enough
    for _ in range(25):
        middle = (low + high) / 2
        long = _largest_row(step(middle)) > radius
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    return step(np.where(free, 0.0, high))


def _largest_row(flat: np.ndarray) -> np.ndarray:
    return largest_row(flat.reshape(len(flat), -1, 3))


def _padded(hessians: np.ndarray, size: int) -> np.ndarray:
    """Padded to (b, size, size); the added variables get a unit diagonal."""
    extra = size - hessians.shape[1]
    padded = np.pad(hessians, ((0, 0), (0, extra), (0, extra)))
    added = np.arange(size - extra, size)
    padded[:, added, added] = 1.0
    return padded
