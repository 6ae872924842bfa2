"""FIRE, the optimizer that follows the slope with momentum, for many structures at once."""

from __future__ import annotations

import numpy as np

from hullward.tools.relax.variables import BatchRows, CellVariables


class Fire(BatchRows):
    """FIRE (DOI 10.1103/PhysRevLett.97.170201) with ASE's parameters and order of operations."""

    padded = ("_velocity",)
    START_STEP, MAX_STEP = 0.1, 1.0  # of the fictitious time
    START_MIXING, MIXING_DECAY = 0.1, 0.99
    PATIENCE, GROWTH, SHRINK = 5, 1.1, 0.5
    MAX_MOVE_A = 0.2  # norm over all rows of one structure

    def __init__(self, start: CellVariables) -> None:
        b = len(start.counts)
        self._velocity = np.zeros_like(start.values)
        self._time_step = np.full(b, self.START_STEP)
        self._mixing = np.full(b, self.START_MIXING)
        # since the last uphill step; -1 before the first step
        self._downhill_steps = np.full(b, -1)

    def step(self, variables: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
        del energies  # forces alone decide
        first = self._downhill_steps < 0
        downhill = (_dot(forces, self._velocity) > 0) & ~first
        uphill = ~downhill & ~first
        pull = np.sqrt(
            _dot(self._velocity, self._velocity) / np.maximum(_dot(forces, forces), 1e-300)
        )
        mixed = _each(1 - self._mixing) * self._velocity + _each(self._mixing * pull) * forces
        self._velocity = np.where(_each(downhill), mixed, 0.0)
        faster = downhill & (self._downhill_steps > self.PATIENCE)
        self._time_step = np.where(
            faster, np.minimum(self._time_step * self.GROWTH, self.MAX_STEP), self._time_step
        )
        self._mixing = np.where(faster, self._mixing * self.MIXING_DECAY, self._mixing)
        self._time_step = np.where(uphill, self._time_step * self.SHRINK, self._time_step)
        self._mixing = np.where(uphill, self.START_MIXING, self._mixing)
        self._downhill_steps = np.where(downhill, self._downhill_steps + 1, 0)
        self._velocity = self._velocity + _each(self._time_step) * forces
        move = _each(self._time_step) * self._velocity
        length = np.sqrt(_dot(move, move))
        shortened = np.minimum(1.0, self.MAX_MOVE_A / np.maximum(length, 1e-300))
        return np.asarray(variables + move * _each(shortened))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("bij,bij->b", a, b))


def _each(values: np.ndarray) -> np.ndarray:
    """One number per structure, shaped to multiply its rows."""
    return values[:, None, None]
