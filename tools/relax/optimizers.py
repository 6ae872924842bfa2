"""Optimizers by name: FIRE, BFGS, or FIRE followed by BFGS."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np

from hullward.tools.relax.fire import Fire
from hullward.tools.relax.trust_region import TrustRegionBfgs
from hullward.tools.relax.variables import CellVariables, Optimizer, largest_row

SMALL_FORCE_EV_PER_A = 0.3  # BFGS takes over once no row of the forces is larger,
FIRE_STEPS = 150  # or after so many steps of FIRE


def make_optimizer(name: Literal["fire", "bfgs", "fire-bfgs"], start: CellVariables) -> Optimizer:
    """The optimizer of that name for structures at these starting points."""
    if name == "fire":
        return Fire(start)
    return TrustRegionBfgs(start) if name == "bfgs" else FireThenBfgs(start)


class FireThenBfgs:
    """FIRE until the forces are small, then BFGS.

    Far from a minimum a quadratic model is wrong, and a step of 0.2 Å along it lands in an
    arbitrary basin. FIRE follows the slope there. Near a minimum FIRE is slow, and if it has not
    reduced the forces in FIRE_STEPS it may never.
    """

    def __init__(self, start: CellVariables) -> None:
        self._fire, self._bfgs = Fire(start), TrustRegionBfgs(start)
        self._fire_steps_left = np.full(len(start.counts), FIRE_STEPS)  # steps FIRE may still take

    def keep(self, mask: np.ndarray) -> None:
        """Drop the structures where `mask`, (b,) of bool, is False."""
        self._fire.keep(mask)
        self._bfgs.keep(mask)
        self._fire_steps_left = self._fire_steps_left[mask]

    def join(self, other: Self) -> None:
        """Append the structures of another optimizer with their state."""
        self._fire.join(other._fire)
        self._bfgs.join(other._bfgs)
        self._fire_steps_left = np.concatenate([self._fire_steps_left, other._fire_steps_left])

    def pick(self, row: int, n_atoms: int) -> Self:
        """A copy of one structure's state."""
        one = object.__new__(type(self))
        one._fire, one._bfgs = self._fire.pick(row, n_atoms), self._bfgs.pick(row, n_atoms)
        one._fire_steps_left = self._fire_steps_left[row : row + 1].copy()
        return one

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        """The variables to evaluate next, given (b,) energies in eV and the forces."""
        self._fire_steps_left = np.where(  # never back to FIRE
            largest_row(forces) > SMALL_FORCE_EV_PER_A, np.maximum(self._fire_steps_left - 1, 0), 0
        )
        by_fire = self._fire_steps_left > 0
        bfgs_step = self._bfgs.step(variables, forces, energies, waiting=by_fire)
        if not by_fire.any():
            return bfgs_step
        fire_step = self._fire.step(variables, forces, energies)
        return np.where(by_fire[:, None, None], fire_step, bfgs_step)
