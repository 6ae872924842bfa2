"""Find the known crystal with the same structure and other elements on its sites.

Two crystals have the same prototype if StructureMatcher matches them after an exchange of elements
(`fit_anonymous`, its defaults). Of all known crystals that qualify, the match is the one with the
fewest elements exchanged, then with the nearest ones on Pettifor's scale
(10.1016/0038-1098(84)90765-8), then the one added first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice, permutations, product

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.equivalence import CELL_ERRORS
from hullward.tools.crystal.formulas import reduced_amounts
from hullward.tools.crystal.matching import LibraryEntry
from hullward.tools.crystal.reduced_cell import Cell
from hullward.tools.crystal.superposition import (
    LENGTH_SLACK,
    LENGTH_TOLERANCE,
    may_superpose,
    rms_displacement,
)

LANTHANIDES = frozenset(
    ["La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu"]
)
MERGED_LANTHANIDE = "La"  # stands for every lanthanide where they are merged
MOST_AT_ONCE = 20  # crystals compared at once
EXCHANGED = 1000.0  # more than any distance on Pettifor's scale: fewest exchanges come first

AnonymousFormula = tuple[int, ...]


@dataclass(frozen=True)
class PrototypeMatch:
    """A known crystal of the same prototype."""

    match_id: str
    formula: str
    exchanged: tuple[tuple[str, str], ...]  # (its element, ours), where they differ
    rms_a: float | None  # rms displacement over (V/n)^(1/3), no unit; None: not superposed


@dataclass
class _Bucket:
    """Known crystals of one anonymous formula; reduced on first use."""

    entries: list[LibraryEntry] = field(default_factory=list)
    _prepared: tuple[_SameCounts, ...] = ()
    _seen: int = 0  # how many of the entries `_prepared` covers

    def prepared(self) -> tuple[_SameCounts, ...]:
        """The crystals grouped by their numbers of sites of each element in the primitive cell."""
        if self._seen < len(self.entries):
            by_counts: dict[tuple[int, ...], list[tuple[LibraryEntry, Cell, tuple[str, ...]]]] = {}
            for entry in self.entries:
                if entry.cell is not None:
                    cell, symbols = _sorted(entry)
                    by_counts.setdefault(cell.counts, []).append((entry, cell, symbols))
            self._prepared = tuple(_SameCounts(c, tuple(rows)) for c, rows in by_counts.items())
            self._seen = len(self.entries)
        return self._prepared


@dataclass(frozen=True)
class _SameCounts:
    """Known crystals with equal numbers of sites, elements ordered by these numbers."""

    counts: tuple[int, ...]
    rows: tuple[tuple[LibraryEntry, Cell, tuple[str, ...]], ...]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(m, 3) of the Niggli cells, no unit."""
        return np.array([cell.lengths for _, cell, _ in self.rows])

    @cached_property
    def pettifor(self) -> np.ndarray:
        """(m, k) positions of the elements on Pettifor's scale."""
        return np.array([[_pettifor(s) for s in symbols] for _, _, symbols in self.rows])

    def nearest_first(self, cell: Cell, symbols: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        """(row, order of its elements) of all that may superpose, nearest elements first."""
        longest = (1 + LENGTH_SLACK) * (1 + LENGTH_TOLERANCE)
        fit = (self.lengths < longest * cell.lengths).all(1)
        fit &= (cell.lengths < longest * self.lengths).all(1)
        rows = np.flatnonzero(fit)
        orders = _orders(self.counts)
        own = np.array([_pettifor(s) for s in symbols])
        apart = np.abs(self.pettifor[rows][:, orders] - own)  # (m, p, k)
        distance = np.where(apart > 0, apart + EXCHANGED, 0.0).sum(-1)
        for at in np.argsort(distance, axis=None, kind="stable"):
            row, order = np.unravel_index(at, distance.shape)
            yield int(rows[row]), orders[order].tolist()


class PrototypeLibrary:
    """Known crystals by id, searched for the same structure whatever the elements."""

    def __init__(self, entries: Iterable[tuple[str, Crystal]] = ()) -> None:
        self._buckets: dict[AnonymousFormula, _Bucket] = {}
        self._size = 0
        for entry_id, crystal in entries:
            self.add(entry_id, crystal)

    def __len__(self) -> int:
        return self._size

    def add(self, entry_id: str, crystal: Crystal) -> None:
        bucket = self._buckets.setdefault(anonymous_amounts(crystal), _Bucket())
        bucket.entries.append(LibraryEntry(entry_id, crystal))
        self._size += 1

    def nearest(self, crystal: Crystal) -> PrototypeMatch | None:
        """The best match of a crystal; None if there is none or the crystal cannot be compared."""
        query = LibraryEntry("", crystal)
        bucket = self._buckets.get(anonymous_amounts(crystal))
        if bucket is None or query.cell is None:
            return None
        cell, symbols = _sorted(query)
        for known in bucket.prepared():
            if known.counts != cell.counts:
                continue
            for row, order, other in _possible(known, cell, symbols):
                entry, _, theirs = known.rows[row]
                try:
                    rms = rms_displacement(other, cell, first=True)
                except CELL_ERRORS:
                    continue
                if rms is not None:
                    pairs = zip((theirs[k] for k in order), symbols, strict=True)
                    exchanged = tuple(sorted((a, b) for a, b in pairs if a != b))
                    return PrototypeMatch(
                        entry.entry_id, entry.crystal.formula, exchanged, round(rms, 6)
                    )
        return None


def _possible(
    known: _SameCounts, cell: Cell, symbols: Sequence[str]
) -> Iterator[tuple[int, list[int], Cell]]:
    """(row, order of its elements, its cell) of what may superpose, nearest elements first."""
    left = known.nearest_first(cell, symbols)
    size = 1  # the first is often the answer
    while some := list(islice(left, size)):
        cells = [_reordered(known.rows[row][1], order) for row, order in some]
        try:
            may = may_superpose([(other, cell) for other in cells]).tolist()
        except CELL_ERRORS:
            may = [True] * len(some)
        yield from ((*at, other) for at, other, one in zip(some, cells, may, strict=True) if one)
        size = MOST_AT_ONCE


def anonymous_amounts(crystal: Crystal) -> AnonymousFormula:
    """Smallest whole amounts without their elements, ascending: (1, 1, 2) of NaFeO2."""
    return tuple(sorted(reduced_amounts(Counter(crystal.species)).values()))


def merge_lanthanides(crystal: Crystal) -> Crystal | None:
    """The crystal with all lanthanides replaced by one; None if it has none."""
    if LANTHANIDES.isdisjoint(crystal.species):
        return None
    names = [MERGED_LANTHANIDE if s in LANTHANIDES else s for s in crystal.species]
    return Crystal.from_arrays(crystal.lattice, names, crystal.frac_coords)


def _sorted(entry: LibraryEntry) -> tuple[Cell, tuple[str, ...]]:
    """The cell with its elements ordered by their number of sites, and these elements."""
    cell = entry.cell
    assert cell is not None
    symbols = sorted(set(entry.crystal.species))
    order = sorted(range(len(symbols)), key=lambda k: (cell.counts[k], symbols[k]))
    return _reordered(cell, order), tuple(symbols[k] for k in order)


def _reordered(cell: Cell, order: Sequence[int]) -> Cell:
    """The same cell with its elements in another order."""
    blocks = cell.blocks
    return Cell(
        cell.lattice,
        np.concatenate([cell.frac[blocks[k]] for k in order]),
        tuple(cell.counts[k] for k in order),
        list(order).index(cell.anchor),
        cell.lengths,
        cell.angles,
    )


@cache
def _orders(counts: tuple[int, ...]) -> np.ndarray:
    """(p, k) every assignment of the elements of one crystal to those of another."""
    groups = [[k for k, n in enumerate(counts) if n == size] for size in sorted(set(counts))]
    choices = product(*(permutations(group) for group in groups))
    return np.array([[k for part in choice for k in part] for choice in choices])


@cache
def _pettifor(symbol: str) -> float:
    from pymatgen.core import Element

    return float(Element(symbol).mendeleev_no)
