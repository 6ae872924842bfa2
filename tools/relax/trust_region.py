"""BFGS in a trust region, started from a model of springs, alone or once FIRE has calmed things.

A quasi-Newton method spends its first steps finding out what every chemist knows: short bonds are
stiff, long ones soft, and a strain of the cell stretches the bonds along it. Springs between
neighbours, weaker with distance, say so before the first force is computed (after
DOI 10.1063/1.4947024). The step is the best one within a radius that grows and shrinks with how
well the quadratic model has predicted (DOI 10.1007/978-0-387-40065-5, chapter 4); a step that
goes uphill is taken back, and what it taught is kept.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from hullward.models.potential import bonds_within
from hullward.tools.relax.fire import Fire
from hullward.tools.relax.variables import BatchRows, CellVariables, largest_row

SPRING_EV_PER_A2 = 10.0  # of the shortest bond
SPRING_DECAY = 3.0  # per shortest bond length
FLOOR_EV_PER_A2 = 5.0  # added to every variable, for what springs do not hold
MAX_RADIUS_A, MIN_RADIUS_A = 0.2, 1e-3  # of the largest row of a step
UPHILL_EV_PER_ATOM = 1e-4  # rises below this are forgiven
MOST_RETREATS = 4  # in a row
CALM_EV_PER_A = 0.3  # the largest row of forces at which BFGS takes over
FIRE_STEPS = 150  # or after so many: FIRE is not getting anywhere


class TrustRegionBfgs(BatchRows):
    """Many structures' Hessians, padded and updated together."""

    padded = ("_variables", "_gradient")

    def __init__(self, walk: CellVariables) -> None:
        b = len(walk.counts)
        size = 3 * walk.variables.shape[1]
        self._hessian = np.zeros((b, size, size))  # filled in before its first step
        self._cells, self._counts = walk.reference_cells, walk.counts
        self._variables = walk.variables
        self._gradient = np.zeros_like(walk.variables)
        self._energy, self._length, self._predicted = np.zeros((3, b))
        self._radius = np.full(b, MAX_RADIUS_A)
        self._retreats = np.zeros(b, dtype=int)
        self._fresh = np.ones(b, dtype=bool)

    def join(self, other: Self) -> None:
        """Take more structures in, with all that is known of them."""
        size = max(self._hessian.shape[1], other._hessian.shape[1])
        self._hessian, other._hessian = (_grown(x._hessian, size) for x in (self, other))
        super().join(other)

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of what is known of one structure."""
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

        waiting: (b,) of bool, who has not begun: somebody else moves them.
        """
        waiting = np.zeros(len(energies), dtype=bool) if waiting is None else waiting
        for row in np.flatnonzero(self._fresh & ~waiting):
            n, size = self._counts[row], self._hessian.shape[1]
            springs = spring_hessian(self._cells[row], variables[row, 3 : 3 + n])
            self._hessian[row] = _grown(springs[None], size)[0]
        gradient = -forces
        self._learn(variables - self._variables, gradient - self._gradient)
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

    def _learn(self, moved: np.ndarray, changed: np.ndarray) -> None:
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


class FireThenBfgs:
    """FIRE until the forces are calm, BFGS from there on.

    Far from any minimum a quadratic model means nothing, and a step of 0.2 Å along it lands in
    one basin or another by chance. FIRE follows the slope there; near a minimum it is slow, and
    where it has not calmed the forces in FIRE_STEPS it may never.
    """

    def __init__(self, walk: CellVariables) -> None:
        self._fire, self._bfgs = Fire(walk), TrustRegionBfgs(walk)
        self._left = np.full(len(walk.counts), FIRE_STEPS)  # steps that FIRE may still take

    def keep(self, mask: np.ndarray) -> None:
        """Forget the others; `mask` is (b,) of bool."""
        self._fire.keep(mask)
        self._bfgs.keep(mask)
        self._left = self._left[mask]

    def join(self, other: Self) -> None:
        """Take more structures in, with all that is known of them."""
        self._fire.join(other._fire)
        self._bfgs.join(other._bfgs)
        self._left = np.concatenate([self._left, other._left])

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of what is known of one structure."""
        one = object.__new__(type(self))
        one._fire, one._bfgs = self._fire.pick(row, n_atoms), self._bfgs.pick(row, n_atoms)
        one._left = self._left[row : row + 1].copy()
        return one

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        """The variables to evaluate next, given (b,) energies in eV and the forces."""
        self._left = np.where(  # calm once is calm for good
            largest_row(forces) > CALM_EV_PER_A, np.maximum(self._left - 1, 0), 0
        )
        wild = self._left > 0
        calm = self._bfgs.step(variables, forces, energies, waiting=wild)
        if not wild.any():
            return calm
        led = self._fire.step(variables, forces, energies)
        return np.where(wild[:, None, None], led, calm)


def spring_hessian(cell: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(9 + 3n, 9 + 3n) eV/Å²: springs between the neighbours of one structure, and the floor.

    cell: (3, 3) Å.  positions: (n, 3) Å.
    """
    n = len(positions)
    for cutoff in (4.0, 6.0):  # the longer one only where some atom would be left out
        first, second, vectors, length = bonds_within(cell, positions, cutoff)
        if len(np.union1d(first, second)) == n:
            break
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, first, length)
    np.minimum.at(nearest, second, length)
    rest = np.sqrt(nearest[first] * nearest[second])
    with np.errstate(divide="ignore", invalid="ignore"):
        stiffness = SPRING_EV_PER_A2 * np.exp(-SPRING_DECAY * (length / rest - 1))
        along = np.nan_to_num(vectors / length[:, None])
    stiffness = np.nan_to_num(stiffness)
    # how far each bond is stretched by each variable: n·U first, then the positions
    stretch = np.zeros((len(first), 3 + n, 3))
    stretch[:, :3] = along[:, :, None] * vectors[:, None, :] / n
    bond = np.arange(len(first))
    np.subtract.at(stretch, (bond, 3 + first), along)
    np.add.at(stretch, (bond, 3 + second), along)
    rows: np.ndarray = stretch.reshape(len(first), -1)
    hessian: np.ndarray = (rows * stiffness[:, None]).T @ rows
    hessian[np.diag_indices_from(hessian)] += FLOOR_EV_PER_A2
    return hessian


def _best_step(hessian: np.ndarray, gradient: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(b, d) minimum of the quadratic models among steps whose largest row is the radius.

    The shift that makes a step short enough is bisected.
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
    high = 2 * np.linalg.norm(gradient, axis=1) / radius  # short enough for certain
    for _ in range(25):
        middle = (low + high) / 2
        long = _largest_row(step(middle)) > radius
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    return step(np.where(free, 0.0, high))


def _largest_row(flat: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.sqrt((flat.reshape(len(flat), -1, 3) ** 2).sum(axis=2)).max(axis=1)
    return norms


def _grown(hessians: np.ndarray, size: int) -> np.ndarray:
    """Padded to (b, size, size); variables that are not there get a unit diagonal."""
    extra = size - hessians.shape[1]
    grown = np.pad(hessians, ((0, 0), (0, extra), (0, extra)))
    places = np.arange(size - extra, size)
    grown[:, places, places] = 1.0
    return grown
