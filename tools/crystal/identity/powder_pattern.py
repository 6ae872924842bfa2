"""A powder diffraction pattern for each pair of elements: a fingerprint that needs no symmetry.

The pattern does not depend on cell, setting, origin or hand. Displaced atoms only weaken it a
little, since it stops at small angles; a strain moves its lines, and a small one can be fitted. It
tells orderings and stackings apart that neighbours alone do not. A hash of it, the sketch, is a
row of 48 small numbers from which no structure can be made again.
"""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from itertools import combinations_with_replacement
from math import log

import numpy as np

from hullward.models.crystal import Crystal

# Wave numbers without unit: times (V/n)^(1/3), about 2.5 Å, so that volume does not count.
SMALLEST_Q, LARGEST_Q = 0.8, 9.0
WIDTH = 0.05  # of a line in ln q, and the distance of the points of the pattern
FAINTEST = 1e-4  # lines weaker than this, of at most 1, are left out
MAX_SITES = 500
MAX_EXCHANGED = 120  # sites
SKETCH_SIZE = 48
SKETCH_STEP = 0.004  # of the whole numbers of a sketch
LARGEST_NUMBER = 127 * SKETCH_STEP  # one in 1,750 numbers is larger, and cut
LARGEST_STRAIN = 0.025  # of a fit
_PROBE = 1e-3  # strain for derivatives
_DAMPING = 0.01


class PowderPattern:
    """Lines of a crystal, from which its pattern is made at any small strain.

    Raises ValueError for a cell without volume, or of more than MAX_SITES sites.
    """

    def __init__(self, crystal: Crystal) -> None:
        self._crystal = crystal
        self._matrix, indices, waves = _waves(crystal)
        kinds, share = _kinds_and_shares(crystal)
        lines = _lines(np.stack([waves[:, kinds == k].sum(1) for k in range(len(share))]), share)
        lines /= crystal.n_atoms**2
        bright = np.abs(lines).max(axis=0) > FAINTEST
        self._lines, self._indices = lines[:, bright], indices[bright]
        self._projection = _projection(len(lines))

    def sketch(self, strain: np.ndarray | None = None) -> np.ndarray:
        """(SKETCH_SIZE,) the hash of the pattern; strain: (3, 3), the volume is kept anyway."""
        matrix = self._matrix
        if strain is not None:
            matrix = matrix @ (np.eye(3) + strain)
            matrix = matrix * (_volume(self._matrix) / _volume(matrix)) ** (1 / 3)
        found = (self._lines @ _spread(self._indices, matrix)).ravel() @ self._projection
        limited: np.ndarray = np.clip(found, -LARGEST_NUMBER, LARGEST_NUMBER)
        return limited

    @cached_property
    def plain(self) -> np.ndarray:
        """The sketch without strain."""
        return self.sketch()

    @cached_property
    def nearest_exchange(self) -> float:
        """Distance to the nearest crystal with two atoms of different elements exchanged.

        0 for one element, and for more than MAX_EXCHANGED sites: it takes n² sketches.
        """
        n = self._crystal.n_atoms
        kinds, share = _kinds_and_shares(self._crystal)
        if len(share) == 1 or n > MAX_EXCHANGED:
            return 0.0
        matrix, indices, waves = _waves(self._crystal)
        spread = _spread(indices, matrix)
        own = np.stack([waves[:, kinds == k].sum(1) for k in range(len(share))])
        plain = _lines(own, share) @ spread
        smallest = np.inf
        for i in range(n):
            others = np.flatnonzero(kinds > kinds[i])
            if not len(others):
                continue
            change = waves[:, others].T - waves[:, i]
            amplitudes = np.repeat(own[None], len(others), axis=0)
            amplitudes[:, kinds[i]] += change
            amplitudes[np.arange(len(others)), kinds[others]] -= change
            moved = (_lines(amplitudes, share) @ spread - plain) / n**2
            sketches = moved.reshape(len(others), -1) @ self._projection
            smallest = min(smallest, float(np.linalg.norm(sketches, axis=1).min()))
        return smallest

    def fit(self, other: np.ndarray) -> tuple[float, np.ndarray]:
        """(distance, strain) where this crystal, strained by up to LARGEST_STRAIN, comes nearest.

        other: the sketch of another crystal of the same elements.
        """
        best, at = np.zeros(5), self.plain
        distance = float(np.linalg.norm(at - other))
        for _ in range(4):
            slopes = np.stack(
                [(self.sketch(_strain(best + probe)) - at) / _PROBE for probe in _PROBE * np.eye(5)]
            )
            normal = slopes @ slopes.T
            normal += _DAMPING * np.trace(normal) / 5 * np.eye(5)
            step = np.linalg.solve(normal, slopes @ (other - at)) if normal.any() else np.zeros(5)
            for share in (1.0, 0.4, 0.15):
                trial = np.clip(best + share * step, -LARGEST_STRAIN, LARGEST_STRAIN)
                sketch = self.sketch(_strain(trial))
                if (found := float(np.linalg.norm(sketch - other))) < distance - 1e-5:
                    best, at, distance = trial, sketch, found
                    break
            else:
                break
        return distance, _strain(best)


def packed(sketch: np.ndarray) -> np.ndarray:
    """(SKETCH_SIZE,) whole numbers of one byte, int8."""
    return np.rint(sketch / SKETCH_STEP).astype(np.int8)


def unpacked(numbers: np.ndarray) -> np.ndarray:
    """The sketch of whole numbers, within half a step."""
    return numbers.astype(float) * SKETCH_STEP


def _volume(matrix: np.ndarray) -> float:
    return abs(float(np.linalg.det(matrix)))


def _strain(five: np.ndarray) -> np.ndarray:
    """A symmetric strain without trace from its five free components."""
    xx, yy, xy, xz, yz = five
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, -xx - yy]])


def _kinds_and_shares(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the element of each site, by number, and (k,) the share of each element."""
    symbols = sorted(set(crystal.species))
    kinds = np.array([symbols.index(s) for s in crystal.species])
    return kinds, np.bincount(kinds) / len(kinds)


def _waves(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell (3, 3), the indices (m, 3) of its planes, and the wave of each site, (m, n)."""
    matrix, frac = _unit_density(crystal)
    indices = _within(matrix, LARGEST_Q * 1.15)
    return matrix, indices, np.exp(2j * np.pi * (indices @ frac.T))


def _lines(amplitudes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(..., pairs, m) lines of each pair of elements, from amplitudes (..., k, m), times n²."""
    lines: np.ndarray = np.stack(
        [
            (1 if a == b else 2)
            * np.real(amplitudes[..., a, :] * amplitudes[..., b, :].conj())
            / (share[a] * share[b]) ** 0.25
            for a, b in combinations_with_replacement(range(len(share)), 2)
        ],
        axis=-2,
    )
    return lines


def _spread(indices: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(m, points) how much of each line falls on each point of the pattern."""
    q = np.linalg.norm(indices @ (2 * np.pi * np.linalg.inv(matrix).T), axis=1)
    near = np.exp(-((np.log(q)[:, None] - _points()) ** 2) / (2 * WIDTH**2))
    spread: np.ndarray = near / q[:, None]
    return spread


def _unit_density(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """A reduced cell of one atom per unit of volume, and the coordinates in it."""
    from pymatgen.core import Lattice

    original = np.array(crystal.lattice)
    volume = _volume(original)
    if crystal.n_atoms > MAX_SITES or volume < 1e-3 * crystal.n_atoms:
        raise ValueError(f"{crystal.n_atoms} atoms in {volume:.3g} Å³: no pattern is computed")
    matrix = np.array(Lattice(original).get_lll_reduced_lattice().matrix)
    frac = np.mod(np.array(crystal.frac_coords) @ original @ np.linalg.inv(matrix), 1.0)
    return matrix * (crystal.n_atoms / volume) ** (1 / 3), frac


def _within(matrix: np.ndarray, largest_q: float) -> np.ndarray:
    """(n, 3) indices of the lattice planes up to a wave number, of two opposite ones the first."""
    most = np.floor(largest_q * np.linalg.norm(matrix, axis=1) / (2 * np.pi)).astype(int)
    indices = np.indices(tuple(2 * most + 1)).reshape(3, -1).T - most
    indices = indices[len(indices) // 2 + 1 :]  # the rest are their opposites, and zero
    q = np.linalg.norm(indices @ (2 * np.pi * np.linalg.inv(matrix).T), axis=1)
    found: np.ndarray = indices[q <= largest_q]
    return found


@cache
def _points() -> np.ndarray:
    return np.arange(log(SMALLEST_Q), log(LARGEST_Q), WIDTH)


@cache
def _projection(n_pairs: int) -> np.ndarray:
    """(n_pairs · points, SKETCH_SIZE) of ±1 / √SKETCH_SIZE, from a hash: it keeps distances."""
    rows = []
    for pair in range(n_pairs):
        n_bits = len(_points()) * SKETCH_SIZE
        raw = hashlib.shake_256(f"powder pattern {pair}".encode()).digest((n_bits + 7) // 8)
        rows.append(np.unpackbits(np.frombuffer(raw, dtype=np.uint8))[:n_bits])
    bits = np.concatenate(rows).reshape(-1, SKETCH_SIZE)
    signs: np.ndarray = (bits * 2.0 - 1.0) / np.sqrt(SKETCH_SIZE)
    return signs
