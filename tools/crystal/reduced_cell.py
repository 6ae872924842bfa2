"""The cell in which crystals are compared: primitive, Niggli-reduced, of volume 1 per atom.

It is primitive in the sense of pymatgen's `get_primitive_structure`: sites of one element that a
lattice translation brings within 0.25 Å of each other are one site, at their mean.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, product

import numpy as np

from hullward.models.crystal import Crystal

PRIMITIVE_TOLERANCE_A = 0.25  # along each lattice vector


@dataclass(frozen=True, eq=False)
class Cell:
    """A primitive Niggli cell without units.

    lattice: (3, 3), volume n.  frac: (n, 3), elements in alphabetical order.  counts: sites of
    each element.  anchor: the element with the fewest sites.  lengths, angles: (3,), degrees.
    """

    lattice: np.ndarray
    frac: np.ndarray
    counts: tuple[int, ...]
    anchor: int
    lengths: np.ndarray
    angles: np.ndarray

    def __len__(self) -> int:
        return len(self.frac)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """Slices of the sites of each element."""
        ends = tuple(accumulate(self.counts))
        return tuple(slice(e - n, e) for e, n in zip(ends, self.counts, strict=True))

    @property
    def by_size(self) -> list[slice]:
        return sorted(self.blocks, key=lambda b: b.stop - b.start)

    @property
    def same_element(self) -> np.ndarray:
        """(n, n) whether two sites hold the same element."""
        kinds = np.repeat(np.arange(len(self.counts)), self.counts)
        same: np.ndarray = kinds[:, None] == kinds
        return same

    def to_bytes(self) -> bytes:
        """Everything of it, exactly."""
        numbers = (self.lattice, self.lengths, self.angles, self.frac)
        head = struct.pack(f"<{len(self.counts) + 2}i", len(self.counts), self.anchor, *self.counts)
        return head + b"".join(np.ascontiguousarray(part, float).tobytes() for part in numbers)

    @classmethod
    def from_bytes(cls, data: bytes) -> Cell:
        """The cell that `to_bytes` was called on."""
        kinds, anchor = struct.unpack_from("<2i", data)
        counts = struct.unpack_from(f"<{kinds}i", data, 8)
        numbers = np.frombuffer(data, offset=8 + 4 * kinds)
        sites = numbers[15:].reshape(-1, 3)
        return cls(numbers[:9].reshape(3, 3), sites, counts, anchor, numbers[9:12], numbers[12:15])


def reduced_cell(crystal: Crystal, tolerance_a: float = PRIMITIVE_TOLERANCE_A) -> Cell:
    """The reduced cell of a crystal; raises ValueError if the lattice has no Niggli cell.

    tolerance_a: within which sites that a translation brings together are one, along each vector.
    """
    species, frac = list(crystal.species), np.array(crystal.frac_coords)
    lattice, frac = niggli(np.array(crystal.lattice), frac)
    folded = False
    while (smaller := _smaller(lattice, species, frac, tolerance_a)) is not None:
        lattice, species, frac = smaller
        folded = True
    if folded:
        lattice, frac = niggli(lattice, frac)
    return _cell(lattice, species, frac)


def parameters(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and angles (degrees), (..., 3) each, of lattices (..., 3, 3)."""
    lengths = np.sqrt((matrix**2).sum(-1))
    unit = matrix / lengths[..., None]
    cosines = (unit[..., [1, 0, 0], :] * unit[..., [2, 2, 1], :]).sum(-1)
    return lengths, np.degrees(np.arccos(cosines.clip(-1, 1)))


def _cell(matrix: np.ndarray, species: list[str], frac: np.ndarray) -> Cell:
    order = sorted(range(len(species)), key=species.__getitem__)
    counts = dict(sorted(Counter(species).items()))
    # of equally rare ones the first, as StructureMatcher chooses
    rarest = min(counts, key=lambda s: (counts[s], species.index(s)))
    matrix = matrix * (len(species) / abs(float(np.linalg.det(matrix)))) ** (1 / 3)
    anchor = list(counts).index(rarest)
    return Cell(matrix, frac[order], tuple(counts.values()), anchor, *parameters(matrix))


def niggli(matrix: np.ndarray, frac: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Niggli basis (3, 3) of a lattice and the sites (n, 3) in it; raises ValueError."""
    import spglib

    reduced = spglib.niggli_reduce(matrix)
    if reduced is None:
        raise ValueError("the lattice has no Niggli cell")
    return reduced, np.mod(frac @ matrix @ np.linalg.inv(reduced), 1.0)


def _smaller(
    lattice: np.ndarray, species: list[str], frac: np.ndarray, tolerance_a: float
) -> tuple[np.ndarray, list[str], np.ndarray] | None:
    """The same crystal in a smaller cell; None if there is none."""
    names = np.array(species)
    symbols = sorted(set(species))
    groups = [frac[names == s] for s in symbols]
    units = math.gcd(*map(len, groups))
    if units == 1:
        return None
    tolerance = tolerance_a / np.linalg.norm(lattice, axis=1)
    shifts = _translations(groups, tolerance)
    if len(shifts) == 1:  # only the identity
        return None
    for size, matrices, inverses in _sublattices(units):
        apart = inverses[:, :, None] - shifts
        present = (np.abs(apart - np.round(apart)) < tolerance).all(-1).any(-1).all(-1)
        for matrix, inverse in zip(matrices[present], inverses[present], strict=True):
            small = inverse @ lattice
            folded = [_folded(g, matrix, size, small, tolerance, tolerance_a) for g in groups]
            if all(f is not None for f in folded):
                sites = [f for f in folded if f is not None]
                kinds = [s for s, f in zip(symbols, sites, strict=True) for _ in f]
                return small, kinds, np.concatenate(sites)
    return None


def _translations(groups: list[np.ndarray], tolerance: np.ndarray) -> np.ndarray:
    """(t, 3) translations, zero first, that bring every site within two tolerances of its kind."""
    groups = sorted(groups, key=len)
    shifts: np.ndarray = groups[0] - groups[0][0]
    for group in groups:  # one site of each kind first: most shifts fail already
        shifts = shifts[_within_reach(group, group[:1], shifts, 2 * tolerance)]
        if len(shifts) == 1:
            return shifts
    for group in groups:
        kept = [_within_reach(group, group, shift[None], 2 * tolerance)[0] for shift in shifts]
        shifts = shifts[kept]
    return shifts


def _within_reach(
    group: np.ndarray, sites: np.ndarray, shifts: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """(t,) whether a shift (t, 3) brings all given sites within reach of the group."""
    apart = group - (sites + shifts[:, None])[:, :, None]
    near: np.ndarray = (np.abs(apart - np.rint(apart)) <= reach).all(-1).any(-1).all(-1)
    return near


@cache
def _sublattices(units: int) -> tuple[tuple[int, np.ndarray, np.ndarray], ...]:
    """(size, matrices, inverses) of the supercells up to `units` cells, smallest first.

    Hermite normal forms: one matrix (k, 3, 3) for each lattice.
    """
    return tuple(
        (size, matrices, np.linalg.inv(matrices))
        for size in range(2, units + 1)
        if units % size == 0
        for matrices in _hermite_forms(size)
    )


def _hermite_forms(size: int) -> Iterator[np.ndarray]:
    for a in (k for k in range(1, size + 1) if size % k == 0):
        for e in (k for k in range(1, size // a + 1) if size // a % k == 0):
            yield np.array(
                [
                    [[a, b, c], [0, e, f], [0, 0, size // a // e]]
                    for b, c, f in product(range(a), range(a), range(e))
                ]
            )


def _folded(
    group: np.ndarray,
    matrix: np.ndarray,
    size: int,
    small: np.ndarray,
    tolerance: np.ndarray,
    tolerance_a: float,
) -> np.ndarray | None:
    """(n / size, 3) mean sites in the small cell; None unless sites coincide in sets of `size`."""
    apart = group - group[:, None]
    separate = (np.abs(apart - np.round(apart)) > 2 * tolerance).any(-1)
    np.fill_diagonal(separate, True)
    sites = group @ matrix
    offset = sites - sites[:, None]  # [i, j]: from i to j
    offset -= np.round(offset)
    coincident = (np.abs(offset) < tolerance_a / np.linalg.norm(small, axis=1)).all(-1)
    coincident &= separate
    first = coincident.argmax(1)
    if (coincident.sum(0) != size).any() or (coincident[first] != coincident).any():
        return None
    firsts = np.unique(first)
    mean = (offset[firsts] * coincident[firsts][:, :, None]).sum(1) / size
    folded: np.ndarray = np.mod(sites[firsts] + mean, 1.0)
    return folded
