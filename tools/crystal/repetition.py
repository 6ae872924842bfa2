"""Superpose a crystal on a supercell of another: cells of different size.

Many phases are distorted superstructures of another phase, so only what may be noise of a
relaxation is not a difference, or what leaves no symmetry at all (tests/benchmarks/RESULTS.md).
Most settings of the smaller cell are excluded before its supercell is laid over the larger one:
the sites of the larger one, folded into the smaller cell, must lie near its sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from hullward.tools.crystal.reduced_cell import Cell
from hullward.tools.crystal.superposition import (
    laid_over,
    mean_lattices,
    near_sites,
    settings,
    unit_lengths,
)

# Tolerances of lengths, sites and rms.
REPEATED_LENGTHS = 0.1  # fraction
REPEATED_SITES = 0.25  # of (V/n)^(1/3), as the next three
REPEATED_RMS = 0.02
REPEATED_RMS_WITHOUT_SYMMETRY = 0.08
SYMMETRY_TOLERANCE = 0.01
MAX_REPEATED = 16  # cells
MAX_REPEATED_SITES = 100  # of the larger cell
CHUNK_PAIRS = 50_000  # pairs of sites compared at once
CHUNK_SITES = 20_000  # of all placements held at once
ROUNDING = 1e-6  # by which bounds are wider, so that rounding excludes nothing


def repeated_rms_displacement(small: Cell, large: Cell) -> float | None:
    """Smallest rms displacement over (V/n)^(1/3) of a supercell of one crystal from another.

    None unless `large` is a whole number of `small` cells (at most MAX_REPEATED and
    MAX_REPEATED_SITES) within the tolerances above.
    """
    bases = _repetitions(small, large, REPEATED_LENGTHS)
    most = REPEATED_RMS_WITHOUT_SYMMETRY
    bases = bases[_may_fold(small, large, bases, REPEATED_SITES, most)]
    if len(bases) and _has_symmetry(large):
        most = REPEATED_RMS
        bases = bases[_may_fold(small, large, bases, REPEATED_SITES, most)]
    best = _smallest_rms(small, large, bases, REPEATED_SITES, REPEATED_RMS)
    return best if best < most else None


def repeats(small: Cell, large: Cell, length_tolerance: float, site_tolerance: float) -> bool:
    """Whether `large` is a supercell of `small` of at most MAX_REPEATED cells.

    length_tolerance: a fraction.  site_tolerance: of the largest displacement, over (V/n)^(1/3).
    """
    bases = _repetitions(small, large, length_tolerance)
    bases = bases[_may_fold(small, large, bases, site_tolerance)]
    return _smallest_rms(small, large, bases, site_tolerance) < math.inf


def _repetitions(small: Cell, large: Cell, length_tolerance: float) -> np.ndarray:
    """(m, 3, 3) bases of supercells of `small` similar to `large`, most similar first."""
    times = len(large) // len(small)
    counts = tuple(n * times for n in small.counts)
    if not 1 < times <= MAX_REPEATED or large.counts != counts or len(large) > MAX_REPEATED_SITES:
        return np.empty((0, 3, 3))
    return settings(small, large, times, length_tolerance)


def _may_fold(
    small: Cell, large: Cell, bases: np.ndarray, site_tolerance: float, most_rms: float = math.inf
) -> np.ndarray:
    """(m,) False for bases (m, 3, 3) in which no superposition can be within the tolerances.

    Let u be the displacements from their mean, within the tolerance. Shifted so that the first
    anchor of `large` lies on its partner, every site is displaced by u - u[anchor]: at most by
    twice the tolerance, and by √(2n) of the rms. So every site of `large`, folded into the small
    cell, has a site of its kind within reach, and every site of `small` as many as it is repeated.
    """
    if not len(bases):
        return np.zeros(0, dtype=bool)
    times = len(large) // len(small)
    mean = mean_lattices(bases, large.lengths, large.angles)
    furthest = min(2 * site_tolerance, math.sqrt(2 * len(large)) * most_rms)
    stretch = np.linalg.norm(np.linalg.inv(mean) @ bases, ord=2, axis=(1, 2))  # to the small cell
    inverse = np.linalg.inv(small.lattice)
    heights = np.sqrt((inverse**2).sum(0))
    reach = (
        (1 + ROUNDING) * (furthest * unit_lengths(mean, len(large)) * stretch)[:, None] * heights
    )
    sites = large.frac @ (bases @ inverse)  # (m, N, 3), in the small cell
    anchor = sites[:, large.blocks[small.anchor].start]
    found = np.zeros(len(bases), dtype=bool)
    for target in small.frac[small.blocks[small.anchor]]:
        left = np.flatnonzero(~found)
        size = max(1, CHUNK_PAIRS // (len(large) * len(small)))
        for start in range(0, len(left), size):
            kept = left[start : start + size]
            for one, two in sorted(zip(small.blocks, large.blocks, strict=True), key=_length):
                moved = sites[kept, two] - (anchor[kept] - target)[:, None]
                near = near_sites(moved, small.frac[one], reach[kept])  # (k, j, i)
                fits = near.any(1).all(-1) & (near.sum(-1) >= times).all(-1)
                kept = kept[fits]
                if not len(kept):
                    break
            found[kept] = True
    return found


def _length(blocks: tuple[slice, slice]) -> int:
    length: int = blocks[0].stop - blocks[0].start
    return length


def _smallest_rms(
    small: Cell,
    large: Cell,
    bases: np.ndarray,
    site_tolerance: float,
    enough: float = math.inf,
) -> float:
    """Smallest rms in bases (m, 3, 3), or that of the first basis with one below `enough`."""

    def ways(some: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        frac = _repeated(small, some, len(large) // len(small))
        for setting, rms, largest in laid_over(frac, small.anchor, large, some, site_tolerance):
            yield setting, np.where(largest < site_tolerance, rms, math.inf)

    best = math.inf
    size = max(1, CHUNK_SITES // (len(large) * large.counts[small.anchor]))
    for start in range(0, len(bases), size):
        part = bases[start : start + size]
        for setting, rms in ways(part):
            if (rms < enough).any():
                first = int(setting[rms < enough].min())
                return min(float(own.min()) for _, own in ways(part[[first]]))
            best = min(best, float(rms.min()))
    return best


def _repeated(cell: Cell, bases: np.ndarray, times: int) -> np.ndarray:
    """(m, n, 3) sites of the same crystal in cells (m, 3, 3) that hold `times` primitive ones."""
    matrices = np.rint(bases @ np.linalg.inv(cell.lattice))
    inverses = np.linalg.inv(matrices)
    adjugates = np.rint(inverses * np.linalg.det(matrices)[:, None, None]).astype(int) % times
    shifts = np.array([_shifts(times, tuple(rows.ravel().tolist())) for rows in adjugates])
    parts = []
    for block in cell.blocks:
        sites = (cell.frac[block] @ inverses)[:, :, None] + shifts[:, None]  # (m, k, times, 3)
        parts.append(sites.reshape(len(bases), -1, 3))
    return np.concatenate(parts, axis=1)


@lru_cache(maxsize=2000)
def _shifts(times: int, adjugate: tuple[int, ...]) -> np.ndarray:
    """(times, 3) translations of a supercell, fractions of its basis."""
    found = np.zeros((1, 3), dtype=int)
    for row in np.array(adjugate).reshape(3, 3):
        sums = found + np.arange(times)[:, None, None] * row
        found = np.unique(sums.reshape(-1, 3) % times, axis=0)
    return found / times


def _has_symmetry(cell: Cell) -> bool:
    import spglib

    kinds = np.repeat(np.arange(len(cell.counts)), cell.counts)
    found = spglib.get_symmetry((cell.lattice, cell.frac, kinds), symprec=SYMMETRY_TOLERANCE)
    return found is not None and len(found["rotations"]) > 1
