"""Superpose two crystals: pymatgen's StructureMatcher on arrays, many settings at a time.

The decision is that of `StructureMatcher.fit` with its defaults (lengths within 20 %, angles
within 5 degrees, sites within 0.3 (V/n)^(1/3), primitive Niggli cells of one volume); without
pymatgen's objects it takes a fraction of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
PAIRS_AT_ONCE = 50  # pairs of cells
COSINE_ROUNDING = 1e-9
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


def may_superpose(pairs: Sequence[tuple[Cell, Cell]]) -> np.ndarray:
    """(p,) False for pairs that do not superpose; of the others, `rms_displacement` decides.

    For many pairs at once, a fraction of its time: that every site has one of its kind within
    reach in some placement is necessary.
    """
    found = np.zeros(len(pairs), dtype=bool)
    alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for index, (one, two) in enumerate(pairs):
        if comparable(one, two):
            alike.setdefault((one.counts, one.anchor), []).append(index)
    for indices in alike.values():
        for start in range(0, len(indices), PAIRS_AT_ONCE):
            some = np.array(indices[start : start + PAIRS_AT_ONCE])
            found[some] = _within_tolerances([pairs[index] for index in some])
    return found


def _within_tolerances(pairs: Sequence[tuple[Cell, Cell]]) -> np.ndarray:
    """As `may_superpose`, for pairs of equal contents."""
    lattices, frac = (np.array([getattr(a, x) for a, _ in pairs]) for x in ("lattice", "frac"))
    target, lengths, angles = (
        np.array([getattr(b, x) for _, b in pairs]) for x in ("frac", "lengths", "angles")
    )
    two, anchors = pairs[0][1], pairs[0][0].blocks[pairs[0][0].anchor]
    own, bases, _ = similar_bases(lattices, lengths, angles, len(two))
    n_anchors = anchors.stop - anchors.start
    found = np.zeros(len(pairs), dtype=bool)
    size = max(1, CHUNK_PAIRS // (n_anchors * len(two)))  # most fail at the first few sites
    for start in range(0, len(own), size):
        p, basis = own[start : start + size], bases[start : start + size]
        mean = mean_lattices(basis, lengths[p], angles[p])
        heights = np.sqrt((inverses(mean) ** 2).sum(1))
        reach = (
            (2 + LENGTH_SLACK) * SITE_TOLERANCE * unit_lengths(mean, len(two))[:, None] * heights
        )
        turned = frac[p] @ (lattices[p] @ inverses(basis))
        shifts = turned[:, anchors] - target[p, anchors.start, None]  # (m, k, 3)
        found[p[_placed(turned, shifts, target[p], two.by_size, reach)]] = True
    return found


def _placed(
    sites: np.ndarray,
    shifts: np.ndarray,
    target: np.ndarray,
    blocks: Sequence[slice],
    reach: np.ndarray,
) -> np.ndarray:
    """Settings (m, n, 3) that have a site of its kind near every target (m, n, 3) in a placement.

    shifts: (m, k, 3) from the targets, of each placement.
    """
    setting = np.repeat(np.arange(len(sites)), shifts.shape[1])
    flat = shifts.reshape(-1, 3)
    for block in blocks:
        moved = sites[setting, block] - flat[:, None]
        near = near_sites(moved, target[setting, block], reach[setting]).any(-1).all(-1)
        setting, flat = setting[near], flat[near]
        if not len(setting):
            break
    return setting


def inverses(matrices: np.ndarray) -> np.ndarray:
    """(m, 3, 3) inverses of many matrices, without a call for each."""
    a, b, c = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    found = np.empty(matrices.shape)
    for column, (u, v) in enumerate(((b, c), (c, a), (a, b))):
        for row, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            found[:, row, column] = u[:, i] * v[:, j] - u[:, j] * v[:, i]
    found /= (a * found[:, :, 0]).sum(1)[:, None, None]
    return found


def _superpositions(one: Cell, two: Cell) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rms, largest displacement) of ways to lay one over two, in batches, likely ones first."""
    # most duplicates have equal Niggli cells and need no other setting
    if (np.abs(one.lengths - two.lengths) < 0.1 * two.lengths).all() and (
        np.abs(one.angles - two.angles) < ANGLE_TOLERANCE_DEG
    ).all():
        yield from _superposed(one, two, one.lattice[None])
    lattices = _settings(one, two)
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
    mean = mean_lattices(lattices, two.lengths, two.angles)
    unit = unit_lengths(mean, len(two))
    heights = np.sqrt((np.linalg.inv(mean) ** 2).sum(1))  # (m, 3), of the reciprocal cell
    reach = 2 * site_tolerance * unit[:, None] * heights  # fractions
    sure = 0.5 / heights.max(1)  # shorter than half of every lattice vector
    moved = _placements(frac, two.blocks[anchor], two.frac)
    setting = np.repeat(np.arange(len(lattices)), len(moved) // len(lattices))
    size = max(1, CHUNK_PAIRS // len(two) ** 2)
    for start in range(0, len(moved), size):
        now = setting[start : start + size]
        kept = _within_reach(moved[start : start + size], two.frac, two.by_size, reach[now])
        if len(kept):
            now = now[kept]
            displaced = _displacements(moved[start + kept], two, mean[now], reach[now], sure[now])
            squared = (displaced**2).sum(-1) / (unit[now] ** 2)[:, None]
            yield now, np.sqrt(squared.mean(1)), np.sqrt(squared.max(1))


def unit_lengths(lattices: np.ndarray, n: int) -> np.ndarray:
    """(m,) (V/n)^(1/3) of lattices (m, 3, 3) with n sites, nearly 1."""
    unit: np.ndarray = np.abs(np.linalg.det(lattices) / n) ** (1 / 3)
    return unit


def _placements(frac: np.ndarray, anchors: slice, target: np.ndarray) -> np.ndarray:
    """(p, n, 3) sites (m, n, 3), shifted so that one of their anchors is on the target's first.

    target: (n, 3), or (m, n, 3) for targets of their own.
    """
    shifts = frac[:, anchors] - target[..., None, anchors.start, :]  # (m, k, 3)
    moved: np.ndarray = frac[:, None] - shifts[:, :, None]
    return moved.reshape(-1, *frac.shape[1:])


def _within_reach(
    moved: np.ndarray, target: np.ndarray, blocks: Sequence[slice], reach: np.ndarray
) -> np.ndarray:
    """Indices of the placements (k, n, 3) in which every site has one of its kind within reach.

    target: (n, 3), or (k, n, 3) for targets of their own.
    """
    kept = np.arange(len(moved))
    for block in blocks:
        sites = target[block] if target.ndim == 2 else target[kept, block]
        near = near_sites(moved[kept, block], sites, reach[kept])
        kept = kept[near.any(-1).all(-1)]
        if not len(kept):
            break
    return kept


def near_sites(moved: np.ndarray, frac: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(k, j, i) whether sites (k, i, 3) are within reach of (j, 3), axis by axis for speed.

    frac: or (k, j, 3).
    """
    near = np.ones((len(moved), frac.shape[-2], moved.shape[1]), dtype=bool)
    for axis in range(3):
        apart = moved[:, None, :, axis] - frac[..., axis, None]
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


def _settings(one: Cell, two: Cell) -> np.ndarray:
    """(m, 3, 3) bases of one's lattice similar to two's, closest in length and angle first."""
    _, bases, misfit = similar_bases(
        one.lattice[None], two.lengths[None], two.angles[None], len(one)
    )
    found: np.ndarray = bases[np.argsort(misfit, kind="stable")]
    return found


def similar_bases(
    lattices: np.ndarray,
    lengths: np.ndarray,
    angles: np.ndarray,
    n: int,
    times: int = 1,
    length_tolerance: float = LENGTH_TOLERANCE,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index of the lattice, basis (3, 3), misfit) of the bases similar to given ones, in order.

    lattices: (p, 3, 3), with n sites each.  lengths, angles: (p, 3), of the bases wanted.
    times: cells that each basis spans.
    """
    points, sizes, inside = _points(lattices, lengths.max(1) * (1 + length_tolerance))
    ratios = sizes[:, :, None] / lengths[:, None]
    fitting = (ratios < 1 + length_tolerance) & (ratios > 1 / (1 + length_tolerance))
    fitting &= inside[:, :, None]
    chosen, there = zip(*(_padded(fitting[:, :, k]) for k in range(3)), strict=True)
    own = np.arange(len(lattices))[:, None]
    unit = points / np.where(inside, sizes, 1)[:, :, None]
    a, b, c = (unit[own, index] for index in chosen)
    wrong_bc, wrong_ac, wrong_ab = (
        _wrong_angles(u @ v.swapaxes(1, 2), angle)
        for u, v, angle in zip((b, a, a), (c, c, b), angles.T, strict=True)
    )
    fits_bc, fits_ac, fits_ab = (
        (w <= ANGLE_TOLERANCE_DEG) & there[u][:, :, None] & there[v][:, None]
        for w, u, v in zip((wrong_bc, wrong_ac, wrong_ab), (1, 0, 0), (2, 2, 1), strict=True)
    )
    p, i, j = np.nonzero(fits_ab)
    row, k = np.nonzero(fits_ac[p, i] & fits_bc[p, j])
    p, i, j = p[row], i[row], j[row]
    at = [index[p, place] for index, place in zip(chosen, (i, j, k), strict=True)]
    bases: np.ndarray = points[p[:, None], np.stack(at, axis=1)]
    same_volume = np.abs(np.abs(np.linalg.det(bases)) / n - times) < 0.5
    strain = sum(np.abs(np.log(ratios[p, place, axis])) for axis, place in enumerate(at))
    turn = wrong_ab[p, i, j] + wrong_ac[p, i, k] + wrong_bc[p, j, k]
    misfit: np.ndarray = strain + np.radians(turn)
    return p[same_volume], bases[same_volume], misfit[same_volume]


def _wrong_angles(cosines: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(p, u, v) degrees from the angles (p,); infinite beyond the tolerance.

    The cosines show which are beyond it: arcs take longer.
    """
    slack = ANGLE_TOLERANCE_DEG + 1e-3
    least, most = (
        np.cos(np.radians(np.clip(angles + s, 0, 180)))[:, None, None] for s in (slack, -slack)
    )
    near = (cosines >= least - COSINE_ROUNDING) & (cosines <= most + COSINE_ROUNDING)
    wrong = np.full(cosines.shape, np.inf)
    arcs = np.degrees(np.arccos(np.clip(cosines[near], -1, 1)))
    wrong[near] = np.abs(arcs - np.broadcast_to(angles[:, None, None], near.shape)[near])
    return wrong


def _points(lattices: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p, g, 3) lattice points, (p, g) their distances, and whether they are within the radii (p,).

    The origin is not.
    """
    reach = np.floor(radii[:, None] * np.sqrt((inverses(lattices) ** 2).sum(1)))
    most = reach.max(0).astype(int)
    grid = np.indices(tuple(2 * most + 1)).reshape(3, -1).T - most
    points = grid @ lattices
    squared = (points**2).sum(-1)
    return points, np.sqrt(squared), (squared <= radii[:, None] ** 2) & grid.any(1)


def _padded(marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p, c) positions of the marks (p, g) of each row, and which of them are none."""
    row, position = np.nonzero(marks)
    counts = np.bincount(row, minlength=len(marks))
    there = np.arange(counts.max(initial=0)) < counts[:, None]
    padded = np.zeros(there.shape, dtype=int)
    padded[there] = position
    return padded, there


def mean_lattices(lattices: np.ndarray, lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(m, 3, 3) lattices with the mean lengths and angles of each and others, (3,) or (m, 3)."""
    own_lengths, own_angles = parameters(lattices)
    lengths, angles = (own_lengths + lengths) / 2, np.radians((own_angles + angles) / 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    mean: np.ndarray = np.zeros(lattices.shape)
    mean[:, 0, 0] = 1
    mean[:, 1, 0], mean[:, 1, 1] = cosines[:, 2], sines[:, 2]
    mean[:, 2, 0] = cosines[:, 1]
    mean[:, 2, 1] = (cosines[:, 0] - cosines[:, 1] * cosines[:, 2]) / sines[:, 2]
    mean[:, 2, 2] = np.sqrt(np.maximum(1 - (mean[:, 2, :2] ** 2).sum(-1), 0))
    mean *= lengths[:, :, None]
    return mean
