"""Which atoms of a periodic crystal are near which, within a limit on their number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hullward.models.crystal import Crystal

MOST_PAIRS = 2_000_000  # in both directions; a crystal with more would fill the memory
_MOST_AT_ONCE = 4_000_000  # images of atoms that one search may look at
_SKEW = 8.0  # a search in a cell this much thinner than a cube uses shorter vectors


class TooManyNeighboursError(ValueError):
    """A crystal with more pairs of neighbours, or more angles, than a relaxation may hold."""


def bonds_within(
    cell_a: np.ndarray, positions_a: np.ndarray, cutoff_a: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, vector, length) of every pair of atoms within the cutoff, each pair once.

    cell_a: (3, 3) Å, one lattice vector a row.  positions_a: (n, 3) Å, not necessarily wrapped.
    Images count: an atom may be bonded to its own. `vector` is (u, 3) Å, from first to second.
    Raises TooManyNeighboursError beyond MOST_PAIRS.
    """
    cell, centre, other, image, length = neighbour_pairs(cell_a, positions_a, cutoff_a)
    # of a bond and its reverse: from the lower atom, or towards the upper half of the images
    side = (image[:, 0] * 4096 + image[:, 1]) * 4096 + image[:, 2]
    half = (centre < other) | ((centre == other) & (side > 0))
    centre, other, image = centre[half], other[half], image[half]
    vectors = positions_a[other] - positions_a[centre] + image @ cell
    return centre, other, vectors, length[half]


class NeighbourPairs(NamedTuple):
    """Pairs of atoms from both ends, each atom with itself included."""

    cell_a: np.ndarray  # (3, 3) that the images count: of the lattice given, compact
    centre: np.ndarray  # (u,)
    other: np.ndarray  # (u,)
    image: np.ndarray  # (u, 3) of integers
    length_a: np.ndarray  # (u,)


def neighbour_pairs(cell_a: np.ndarray, positions_a: np.ndarray, cutoff_a: float) -> NeighbourPairs:
    """All pairs of atoms within the cutoff; arguments and errors as of `bonds_within`."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = compact_lattice(cell_a, cutoff_a)
    positions = np.ascontiguousarray(positions_a)
    images = _images(cell, cutoff_a)
    n = len(positions)
    if not n * images <= _MOST_AT_ONCE:  # also where it is nan
        raise TooManyNeighboursError(
            f"the cell is so thin that {images:.3g} of its images lie within {cutoff_a:g} Å"
        )
    parts, pairs = [], 0
    at_once = max(1, int(_MOST_AT_ONCE / (n * images)))
    for start in range(0, n, at_once):
        part = find_points_in_spheres(
            positions,
            positions[start : start + at_once],
            cutoff_a,
            np.ones(3, dtype=np.int64),
            cell,
            1e-8,
        )
        pairs += len(part[0])
        if pairs > MOST_PAIRS:
            raise TooManyNeighboursError(
                f"more than {MOST_PAIRS:,} pairs of atoms within {cutoff_a:g} Å"
            )
        parts.append((part[0] + start, *part[1:]))
    centre, other, image, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    return NeighbourPairs(cell, centre, other, image.astype(np.int64), length)


def in_compact_cell(crystal: Crystal, cutoff_a: float) -> Crystal:
    """The crystal, in a compact cell where its own is skewed: for code that searches without limit.

    Raises TooManyNeighboursError beyond MOST_PAIRS within the cutoff.
    """
    lattice = np.array(crystal.lattice)
    positions = np.array(crystal.frac_coords) @ lattice
    cell = neighbour_pairs(lattice, positions, cutoff_a).cell_a
    if np.array_equal(cell, lattice):
        return crystal
    return Crystal.from_arrays(cell, crystal.species, positions @ np.linalg.inv(cell))


def compact_lattice(cell_a: np.ndarray, cutoff_a: float) -> np.ndarray:
    """The cell, or where it is skewed another one of the same lattice with shorter vectors."""
    cell = np.ascontiguousarray(cell_a, dtype=float)
    volume = abs(float(np.linalg.det(cell)))
    in_cube = (2 * cutoff_a / np.cbrt(volume) + 1) ** 3 if volume > 0 else np.inf
    if not _images(cell, cutoff_a) > _SKEW * in_cube:
        return cell
    from pymatgen.core import Lattice

    return np.ascontiguousarray(Lattice(cell).get_lll_reduced_lattice().matrix)


def _images(cell: np.ndarray, cutoff_a: float) -> float:
    """How many images of one atom a box around the sphere of the cutoff may hold."""
    with np.errstate(all="ignore"):
        try:
            spacings = 1 / np.sqrt((np.linalg.inv(cell) ** 2).sum(axis=0))
        except np.linalg.LinAlgError:  # no volume
            return np.inf
        return float(np.prod(2 * cutoff_a / spacings + 1))
