"""Superpose two crystals: pymatgen's StructureMatcher on arrays, many settings at a time.

The decision is that of `StructureMatcher.fit` with its defaults (lengths within 20 %, angles
within 5 degrees, sites within 0.3 (V/n)^(1/3), primitive Niggli cells of one volume); without
pymatgen's objects it takes a fraction of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from hullward.tools.crystal.reduced_cell import Cell, parameters

LENGTH_TOLERANCE = 0.2  # fraction
ANGLE_TOLERANCE_DEG = 5.0
SITE_TOLERANCE = 0.3  # of (V/n)^(1/3)
EXACT = 1e-7  # rms displacement at which the search ends
LENGTH_SLACK = 1e-3  # Niggli cells are the shortest within a numerical tolerance only
CHUNK_PAIRS = 20_000  # pairs of sites compared at once
FAR = 1e10


def rms_displacement(one: Cell, two: Cell, *, first: bool = False) -> float | None:
    """Smallest rms displacement over (V/n)^(1/3); None if the two do not superpose.

    first: return the first superposition found instead.
    """
    if not comparable(one, two):
        return None
    best, fits = math.inf, False
    for rms, largest in _superpositions(one, two):
        fits |= bool((largest < SITE_TOLERANCE).any())
        best = min(best, float(rms.min()))
        if fits and (first or best < EXACT):
            break
    return best if fits else None


def comparable(one: Cell, two: Cell) -> bool:
    """False if no superposition can exist: different contents, or shortest vectors too long.

    A basis of one's lattice within the tolerance of two's Niggli basis bounds the successive
    minima of one, which are the lengths of its own Niggli basis.
    """
    return one.counts == two.counts and bool(
        (one.lengths < (1 + LENGTH_SLACK) * (1 + LENGTH_TOLERANCE) * two.lengths).all()
    )


def _superpositions(one: Cell, two: Cell) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rms, largest displacement) of ways to lay one over two, in batches, likely ones first."""
    # most duplicates have equal Niggli cells and need no other setting
    if (np.abs(one.lengths - two.lengths) < 0.1 * two.lengths).all() and (
        np.abs(one.angles - two.angles) < ANGLE_TOLERANCE_DEG
    ).all():
        yield from _superposed(one, two, one.lattice[None])
    lattices = settings(one, two)
    for part in (lattices[:1], lattices[1:]):
        if len(part):
            yield from _superposed(one, two, part)


def _superposed(
    one: Cell, two: Cell, lattices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    frac = one.frac @ (one.lattice @ np.linalg.inv(lattices))
    for _, rms, largest in laid_over(frac, one.anchor, two, lattices, SITE_TOLERANCE):
        yield rms, largest


def laid_over(
    frac: np.ndarray, anchor: int, two: Cell, lattices: np.ndarray, site_tolerance: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(setting, rms, largest displacement) of placements on two's sites, in batches.

    frac: (m, n, 3) the other crystal's sites in the settings (m, 3, 3).  anchor: the element one
    of whose sites comes to lie on the first of two's.
    """
    mean = mean_lattices(lattices, two)
    unit = unit_lengths(mean, two)
    heights = np.sqrt((np.linalg.inv(mean) ** 2).sum(1))  # (m, 3), of the reciprocal cell
    reach = 2 * site_tolerance * unit[:, None] * heights  # fractions
    sure = 0.5 / heights.max(1)  # shorter than half of every lattice vector
    moved = _placements(frac, anchor, two)
    setting = np.repeat(np.arange(len(lattices)), len(moved) // len(lattices))
    size = max(1, CHUNK_PAIRS // len(two) ** 2)
    for start in range(0, len(moved), size):
        now = setting[start : start + size]
        kept = _within_reach(moved[start : start + size], two, reach[now])
        if len(kept):
            now = now[kept]
            displaced = _displacements(moved[start + kept], two, mean[now], reach[now], sure[now])
            squared = (displaced**2).sum(-1) / (unit[now] ** 2)[:, None]
            yield now, np.sqrt(squared.mean(1)), np.sqrt(squared.max(1))


def unit_lengths(mean: np.ndarray, two: Cell) -> np.ndarray:
    """(m,) (V/n)^(1/3) of mean lattices (m, 3, 3), nearly 1."""
    unit: np.ndarray = np.abs(np.linalg.det(mean) / len(two)) ** (1 / 3)
    return unit


def _placements(frac: np.ndarray, anchor: int, two: Cell) -> np.ndarray:
    """(p, n, 3) sites (m, n, 3), shifted so that one of their anchors is on one of two's."""
    anchors = two.blocks[anchor]
    shifts = frac[:, anchors] - two.frac[anchors.start]  # (m, k, 3)
    moved: np.ndarray = frac[:, None] - shifts[:, :, None]
    return moved.reshape(-1, len(two), 3)


def _within_reach(moved: np.ndarray, two: Cell, reach: np.ndarray) -> np.ndarray:
    """Indices of the placements (k, n, 3) in which every site has one of its kind within reach."""
    kept = np.arange(len(moved))
    for block in two.by_size:
        near = near_sites(moved[kept, block], two.frac[block], reach[kept])
        kept = kept[near.any(-1).all(-1)]
        if not len(kept):
            break
    return kept


def near_sites(moved: np.ndarray, frac: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(k, j, i) whether sites (k, i, 3) are within reach of (j, 3), axis by axis for speed."""
    near = np.ones((len(moved), len(frac), moved.shape[1]), dtype=bool)
    for axis in range(3):
        apart = moved[:, None, :, axis] - frac[:, axis, None]
        apart -= np.rint(apart)
        near &= np.abs(apart) <= reach[:, axis, None, None]
    return near


def _displacements(
    moved: np.ndarray, two: Cell, mean: np.ndarray, reach: np.ndarray, sure: np.ndarray
) -> np.ndarray:
    """(k, n, 3) vectors from sites of two to their least-squares partners, mean subtracted."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    near = near_sites(moved, two.frac, reach) & two.same_element
    k, i, j = np.nonzero(near)
    apart = moved[k, j] - two.frac[i]
    vectors = ((apart - np.rint(apart))[:, None] @ mean[k])[:, 0]
    # beyond this, rounding may have missed the shortest of the images
    long = (vectors**2).sum(1) >= sure[k] ** 2
    if long.any():
        images = vectors[long, None] + _images() @ mean[k[long]]
        shortest = (images**2).sum(-1).argmin(1)
        vectors[long] = images[np.arange(len(images)), shortest]
    squared = np.full(near.shape, FAR)
    squared[k, i, j] = (vectors**2).sum(-1)
    chosen = squared.argmin(-1)
    for n in np.flatnonzero((np.sort(chosen, axis=1) != np.arange(len(two))).any(1)):
        chosen[n] = linear_sum_assignment(squared[n])[1]
    number = np.full(near.shape, len(vectors))  # the last means no partner
    number[k, i, j] = np.arange(len(vectors))
    rows = np.take_along_axis(number, chosen[:, :, None], axis=2)[:, :, 0]
    displaced: np.ndarray = np.concatenate([vectors, np.full((1, 3), FAR)])[rows]
    displaced -= displaced.mean(1, keepdims=True)
    return displaced


@cache
def _images() -> np.ndarray:
    """(27, 3) the cell itself and its neighbours."""
    return np.array(sorted(product((-1.0, 0.0, 1.0), repeat=3), key=np.linalg.norm))


def settings(
    one: Cell, two: Cell, times: int = 1, length_tolerance: float = LENGTH_TOLERANCE
) -> np.ndarray:
    """(m, 3, 3) bases of one's lattice similar to two's, closest in length and angle first.

    times: cells of one that each basis spans.
    """
    longest = two.lengths.max() * (1 + length_tolerance)
    points = _points(one.lattice, longest)
    sizes = np.linalg.norm(points, axis=1)
    ratios = sizes[:, None] / two.lengths
    fitting = (ratios < 1 + length_tolerance) & (ratios > 1 / (1 + length_tolerance))
    chosen = [np.flatnonzero(fitting[:, k]) for k in range(3)]
    if min(map(len, chosen)) == 0:
        return np.empty((0, 3, 3))
    unit = points / sizes[:, None]
    a, b, c = (unit[index] for index in chosen)
    wrong_bc, wrong_ac, wrong_ab = (
        np.abs(np.degrees(np.arccos(np.clip(u @ v.T, -1, 1))) - angle)
        for u, v, angle in zip((b, a, a), (c, c, b), two.angles, strict=True)
    )
    fits_bc, fits_ac, fits_ab = (w <= ANGLE_TOLERANCE_DEG for w in (wrong_bc, wrong_ac, wrong_ab))
    i, j = np.nonzero(fits_ab)
    row, k = np.nonzero(fits_ac[i] & fits_bc[j])
    i, j = i[row], j[row]
    bases: np.ndarray = points[np.stack([chosen[0][i], chosen[1][j], chosen[2][k]], axis=1)]
    same_volume = np.abs(np.abs(np.linalg.det(bases)) / len(one) - times) < 0.5
    strain = sum(
        np.abs(np.log(ratios[index[at], axis]))
        for axis, (index, at) in enumerate(zip(chosen, (i, j, k), strict=True))
    )
    turn = wrong_ab[i, j] + wrong_ac[i, k] + wrong_bc[j, k]
    order = np.argsort((strain + np.radians(turn))[same_volume], kind="stable")
    found: np.ndarray = bases[same_volume][order]
    return found


def _points(lattice: np.ndarray, radius: float) -> np.ndarray:
    """(p, 3) lattice points within a radius, the origin left out."""
    reach = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int)
    grid = np.indices(tuple(2 * reach + 1)).reshape(3, -1).T - reach
    points: np.ndarray = grid @ lattice
    squared = (points**2).sum(1)
    found: np.ndarray = points[(squared <= radius**2) & grid.any(1)]
    return found


def mean_lattices(lattices: np.ndarray, two: Cell) -> np.ndarray:
    """(m, 3, 3) lattices with the mean lengths and angles of each and two."""
    lengths, angles = parameters(lattices)
    lengths, angles = (lengths + two.lengths) / 2, np.radians((angles + two.angles) / 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    mean: np.ndarray = np.zeros(lattices.shape)
    mean[:, 0, 0] = 1
    mean[:, 1, 0], mean[:, 1, 1] = cosines[:, 2], sines[:, 2]
    mean[:, 2, 0] = cosines[:, 1]
    mean[:, 2, 1] = (cosines[:, 0] - cosines[:, 1] * cosines[:, 2]) / sines[:, 2]
    mean[:, 2, 2] = np.sqrt(np.maximum(1 - (mean[:, 2, :2] ** 2).sum(-1), 0))
    mean *= lengths[:, :, None]
    return mean
