"""Words of form A: the lengths, angles, elements and coordinates that may come next.

Lengths and angles give a possible cell. With a distance mask they also leave room for the atoms,
and coordinates keep the atoms apart on a grid of hundredths of the cell.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np

from hullward.models.crystal import lattice_matrix
from hullward.tools.crystal.text.word_grammar import Words, numbered, suffixed

LONGEST_TENTHS = 999  # 99.9 Å
STEPS = 100  # coordinates have two decimals
# the least that `lattice_matrix` accepts of 1 - cos²α - cos²β - cos²γ + 2 cosα cosβ cosγ
CLOSED = 1e-10
SAFE_A = 1e-6  # the mask is wider than the check by this much, for rounding


@cache
def lengths(suffix: str, shortest_tenths: int) -> Words:
    return numbered(shortest_tenths, LONGEST_TENTHS, suffix, decimals=1)


@lru_cache(maxsize=8192)
def angles(slot: str, cell: tuple[str, ...], limit_a: float | None, volume_a3: float) -> Words:
    """Angles with which the cell is still possible.

    With a mask, opposite faces can also be the limit apart, so that every lattice vector is that
    long, and the volume can hold the atoms. cell: lengths (with a mask only) and angles so far.
    """
    every = np.arange(1, 180)
    known = [np.array([int(x)]) for x in cell[3 if limit_a is not None else 0 :]]
    # for the first angle 90° stands for the others: if any values work, right angles do
    alpha, beta, gamma = np.meshgrid(*(known + [every] * 3)[:3], indexing="ij", sparse=True)
    if not known:
        beta = gamma = np.array([[[90]]])
    cosines = [np.cos(np.radians(x)) for x in (alpha, beta, gamma)]
    squared = 1 - sum(c * c for c in cosines) + 2 * cosines[0] * cosines[1] * cosines[2]
    fits = squared > CLOSED
    if limit_a is not None:
        lengths = [float(x) for x in cell[:3]]
        flatness = np.sqrt(np.maximum(squared, 0))  # volume over a b c
        for length, angle in zip(lengths, (alpha, beta, gamma), strict=True):
            fits = fits & (length * flatness >= limit_a * np.sin(np.radians(angle)) - SAFE_A)
        fits = fits & (math.prod(lengths) * flatness >= volume_a3)
    axis = len(known)
    possible = fits.any(axis=tuple(i for i in range(3) if i != axis))
    return suffixed(map(str, every[possible]), suffix="\n" if slot == "gamma" else " ")


@cache
def fractions(suffix: str) -> Words:
    return numbered(0, STEPS, suffix, decimals=2)  # 1.00, which other writers use, is read as 0.00


@cache
def element_words(symbols: tuple[str, ...], first: bool) -> Words:
    return suffixed(symbols, prefix="" if first else "\n", suffix="\n")


@lru_cache(maxsize=128)  # a megabyte each: enough for the rows of a batch
def room(cell: tuple[str, ...], points: tuple[tuple[int, ...], ...], limit_a: float) -> np.ndarray:
    """(100, 100, 100) of bool by hundredths of the cell: where another atom fits."""
    if not points:
        return np.ones((STEPS,) * 3, dtype=bool)
    free = room(cell, points[:-1], limit_a).copy()
    taken = (_near(cell, limit_a) + np.array(points[-1])) % STEPS
    free[tuple(taken.T)] = False
    return free


@lru_cache(maxsize=128)
def _near(cell: tuple[str, ...], limit_a: float) -> np.ndarray:
    """(n, 3) offsets in hundredths of the cell that are shorter than the limit."""
    matrix = lattice_matrix([float(x) for x in cell[:3]], [float(x) for x in cell[3:]])
    spacings = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)  # between opposite faces, Å
    reach = np.ceil((limit_a + SAFE_A) / spacings * STEPS).astype(int)
    found = []
    plane = np.indices(tuple(2 * reach[1:] + 1)).reshape(2, -1).T - reach[1:]
    for i in range(-reach[0], reach[0] + 1):  # plane by plane, as the block can be large
        steps = np.column_stack([np.full(len(plane), i), plane])
        found.append(steps[np.linalg.norm(steps / STEPS @ matrix, axis=1) < limit_a + SAFE_A])
    return np.concatenate(found)
