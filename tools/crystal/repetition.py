"""Superpose a crystal on a supercell of another: cells of different size.

Many phases are distorted superstructures of another phase, so only what may be noise of a
relaxation is not a difference, or what leaves no symmetry at all (tests/benchmarks/RESULTS.md).
Most settings of the smaller cell are excluded before its supercell is laid over the larger one:
the sites of the larger one, folded into the smaller cell, must lie near its sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from hullward.tools.crystal.reduced_cell import Cell
from hullward.tools.crystal.superposition import (
    LENGTH_SLACK,
    PAIRS_AT_ONCE,
    inverses,
    laid_over,
    mean_lattices,
    near_sites,
    similar_bases,
    unit_lengths,
)

REPEATED_RMS = 0.02  # of (V/n)^(1/3)
SYMMETRY_TOLERANCE = 0.01
MAX_REPEATED = 16  # cells
MAX_REPEATED_SITES = 100  # of the larger cell
CHUNK_PAIRS = 50_000  # pairs of sites compared at once
CHUNK_SITES = 20_000  # of all placements held at once
ROUNDING = 1e-6  # by which bounds are wider, so that rounding excludes nothing
_PARAMETERS = ("lengths", "angles")


@dataclass(frozen=True, kw_only=True)
class SupercellLimits:
    """How far a crystal may be from a supercell of another.

    lengths: a fraction.  sites, rms: the largest and the rms displacement over (V/n)^(1/3).
    """

    lengths: float
    sites: float
    rms: float = math.inf


# Of a relaxation that leaves no symmetry.
NOISE = SupercellLimits(lengths=0.1, sites=0.25, rms=0.08)


def repeated_rms_displacement(small: Cell, large: Cell) -> float | None:
    """Smallest rms displacement over (V/n)^(1/3) of a supercell of one crystal from another.

    None unless `large` is a whole number of `small` cells (at most MAX_REPEATED and
    MAX_REPEATED_SITES) within the tolerances above.
    """
    limits = NOISE
    if not _may_be_multiple(small, large, limits):
        return None
    bases = _repetitions(small, large, limits)
    if len(bases) and _has_symmetry(large):
        limits = replace(limits, rms=REPEATED_RMS)
        bases = bases[_fold([(small, large)], np.zeros(len(bases), int), bases, limits)]
    best = _smallest_rms(small, large, bases, limits.sites, REPEATED_RMS)
    return best if best < limits.rms else None


def repeats(small: Cell, large: Cell, limits: SupercellLimits) -> bool:
    """Whether `large` is a supercell of `small` of at most MAX_REPEATED cells."""
    if not _may_be_multiple(small, large, limits):
        return False
    bases = _repetitions(small, large, limits)
    return any(
        _smallest_rms(small, large, b, limits.sites) < math.inf for b in (bases[:2], bases[2:])
    )


def may_repeat(pairs: Sequence[tuple[Cell, Cell]], limits: SupercellLimits) -> np.ndarray:
    """(p,) False for pairs (small, large) of which the second is no supercell of the first.

    For many pairs at once, a fraction of the time; of the others the functions above decide.
    """
    found = np.zeros(len(pairs), dtype=bool)
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, (small, large) in enumerate(pairs):
        if _may_be_multiple(small, large, limits):
            alike.setdefault((small.counts, len(large), small.anchor), []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), PAIRS_AT_ONCE):
            some = indices[start : start + PAIRS_AT_ONCE]
            chosen = [pairs[index] for index in some]
            own, bases = _similar(chosen, limits)
            found[np.array(some)[own[_fold(chosen, own, bases, limits)]]] = True
    return found


def _may_be_multiple(small: Cell, large: Cell, limits: SupercellLimits) -> bool:
    """False where the contents are no multiple, or the shortest vectors of `small` are too long.

    A basis of a supercell bounds the successive minima of the lattice, the lengths of its Niggli
    basis.
    """
    times = len(large) // len(small)
    if not 1 < times <= MAX_REPEATED or len(large) > MAX_REPEATED_SITES:
        return False
    if large.counts != tuple(n * times for n in small.counts):
        return False
    longest = (1 + LENGTH_SLACK) * (1 + limits.lengths) * large.lengths
    return bool((small.lengths < longest).all())


def _similar(
    pairs: Sequence[tuple[Cell, Cell]], limits: SupercellLimits
) -> tuple[np.ndarray, np.ndarray]:
    """(index of the pair, basis (3, 3)) of supercells similar to the larger cells, by pair."""
    small, large = pairs[0]
    lattices = np.array([one.lattice for one, _ in pairs])
    lengths, angles = (np.array([getattr(two, x) for _, two in pairs]) for x in _PARAMETERS)
    times = len(large) // len(small)
    own, bases, misfit = similar_bases(lattices, lengths, angles, len(small), times, limits.lengths)
    order = np.lexsort((misfit, own))
    return own[order], bases[order]


def _repetitions(small: Cell, large: Cell, limits: SupercellLimits) -> np.ndarray:
    """(m, 3, 3) bases in which the larger cell may be a supercell, most similar first."""
    own, bases = _similar([(small, large)], limits)
    found: np.ndarray = bases[_fold([(small, large)], own, bases, limits)]
    return found


def _fold(
    pairs: Sequence[tuple[Cell, Cell]], own: np.ndarray, bases: np.ndarray, limits: SupercellLimits
) -> np.ndarray:
    """(m,) False for bases (m, 3, 3) in which no superposition can be within the limits.

    own: (m,) the pair of each. All pairs have cells of equal contents.

    Let u be the displacements from their mean, within the limits. Shifted so that the first
    anchor of `large` lies on its partner, every site is displaced by u - u[anchor]: at most by
    twice the largest, and by √(2n) of the rms. So every site of `large`, folded into the small
    cell, has a site of its kind within reach, and every site of `small` as many as it is repeated.
    """
    small, large = pairs[0]
    inverse = inverses(np.array([one.lattice for one, _ in pairs]))
    heights = np.sqrt((inverse**2).sum(1))
    targets = np.array([one.frac for one, _ in pairs])
    frac, lengths, angles = (
        np.array([getattr(two, x) for _, two in pairs]) for x in ("frac", *_PARAMETERS)
    )
    furthest = min(2 * limits.sites, math.sqrt(2 * len(large)) * limits.rms)
    found = np.zeros(len(bases), dtype=bool)
    size = max(1, CHUNK_PAIRS // (len(large) * len(small)))
    for start in range(0, len(bases), size):
        p, some = own[start : start + size], bases[start : start + size]
        mean = mean_lattices(some, lengths[p], angles[p])
        stretch = np.linalg.norm(inverses(mean) @ some, ord=2, axis=(1, 2))
        reach = (furthest * unit_lengths(mean, len(large)) * stretch)[:, None] * heights[p]
        sites = frac[p] @ (some @ inverse[p])  # (k, N, 3), in the small cell
        sites -= sites[:, [large.blocks[small.anchor].start]]
        found[start : start + size] = _near_all(
            sites, targets[p], (1 + ROUNDING) * reach, (small, large)
        )
    return found


def _near_all(
    sites: np.ndarray, targets: np.ndarray, reach: np.ndarray, contents: tuple[Cell, Cell]
) -> np.ndarray:
    """(k,) whether sites (k, N, 3) are near targets (k, n, 3), each target near enough of them.

    The origin of the sites is moved onto one anchor of the targets after the other.
    """
    small, large = contents
    times = len(large) // len(small)
    blocks = sorted(
        zip(small.blocks, large.blocks, strict=True), key=lambda pair: pair[0].stop - pair[0].start
    )
    found = np.zeros(len(sites), dtype=bool)
    for anchor in range(small.blocks[small.anchor].start, small.blocks[small.anchor].stop):
        kept = np.flatnonzero(~found)
        for one, two in blocks:
            moved = sites[kept, two] + targets[kept, anchor, None]
            near = near_sites(moved, targets[kept, one], reach[kept])  # (k, j, i)
            kept = kept[near.any(1).all(-1) & (near.sum(-1) >= times).all(-1)]
            if not len(kept):
                break
        found[kept] = True
    return found


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
