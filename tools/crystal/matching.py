"""Find a crystal in a library of structures.

Identical content is found by its id. Otherwise the crystal is superposed on entries of the same
reduced formula (`equivalence`); no pair that StructureMatcher matches is excluded. Its tolerances
are wider than most differences between polymorphs, so no fingerprint of distances could be both
safe and useful (the figures are in tests/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from hullward.models.crystal import Crystal
from hullward.tools.crystal.equivalence import (
    ComparedCells,
    compared_cells,
    may_superpose_any,
    superposed_rms,
)
from hullward.tools.crystal.formulas import reduced_amounts
from hullward.tools.crystal.reduced_cell import Cell

Formula = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Match:
    """An entry that is the same crystal as the query."""

    match_id: str
    rms_a: float | None  # rms displacement over (V/n)^(1/3), no unit; None for identical content


@dataclass(frozen=True)
class LibraryEntry:
    """A crystal by name; its cell is reduced once, on first use."""

    entry_id: str
    crystal: Crystal

    @cached_property
    def cells(self) -> ComparedCells | None:
        """The reduced cells; None if the crystal cannot be superposed."""
        return compared_cells(self.crystal)

    @property
    def cell(self) -> Cell | None:
        """The primitive one of the reduced cells."""
        return None if self.cells is None else self.cells.primitive


class StructureLibrary:
    """Crystals by name, searched by structure.

    Matches are those of `StructureMatcher.fit` with pymatgen's defaults: lengths within 20 %,
    sites within 0.3 (V/n)^(1/3), angles within 5 degrees, primitive cells scaled to one volume
    (hullward.tools.crystal.superposition); or those without reduction, or of a cell with a noisy
    supercell of it (hullward.tools.crystal.equivalence). Mirror images match. Cells beyond
    MAX_MATCHED_SITES, MAX_LATTICE_POINTS or THINNEST_A, or that cannot be reduced, match identical
    content only.
    """

    def __init__(self, entries: Iterable[tuple[str, Crystal]] = ()) -> None:
        self._by_content: dict[str, str] = {}
        self._by_formula: dict[Formula, list[LibraryEntry]] = {}
        for entry_id, crystal in entries:
            self.add(entry_id, crystal)

    def __len__(self) -> int:
        return len(self._by_content)

    def add(self, entry_id: str, crystal: Crystal) -> None:
        """Add a crystal; content that is already here keeps its first name."""
        if crystal.content_id in self._by_content:
            return
        self._by_content[crystal.content_id] = entry_id
        self._by_formula.setdefault(_formula(crystal), []).append(LibraryEntry(entry_id, crystal))

    def match(self, crystal: Crystal) -> Match | None:
        """The entry with identical content, else the one with the smallest rms, else None."""
        if found := self._by_content.get(crystal.content_id):
            return Match(found, None)
        query = LibraryEntry("", crystal)
        best: Match | None = None
        for entry in self._by_formula.get(_formula(crystal), ()):
            rms = _rms(entry, query)
            if rms is not None and (best is None or best.rms_a is None or rms < best.rms_a):
                best = Match(entry.entry_id, rms)
        return best


class ComparedCrystal:
    """A crystal to compare with many; what is kept of it once it was reduced takes about 1 kB."""

    __slots__ = ("_content_id", "_crystal", "_primitive", "_whole", "n_atoms", "name")

    def __init__(self, name: str, crystal: Crystal, content_id: str | None = None) -> None:
        """content_id: that of the crystal, where it is known already."""
        self.name, self.n_atoms = name, crystal.n_atoms
        self._content_id = content_id
        self._crystal: Crystal | None = crystal  # until it is reduced
        self._primitive, self._whole = b"", b""  # reduced cells, empty for none

    @property
    def content_id(self) -> str:
        if self._content_id is None:
            assert self._crystal is not None  # kept until its content id is known
            self._content_id = self._crystal.content_id
        return self._content_id

    def is_identical(self, other: ComparedCrystal) -> bool:
        """Whether both have identical content."""
        return self.n_atoms == other.n_atoms and self.content_id == other.content_id

    def rms_to(self, other: ComparedCrystal) -> float | None:
        """Normalised rms displacement, rounded; None if the two do not superpose."""
        one, two = self._cells(), other._cells()
        return None if one is None or two is None else superposed_rms(one, two)

    def may_match(self, others: Sequence[ComparedCrystal]) -> list[bool]:
        """False for others whose `rms_to` this one is None; many take a fraction of its time."""
        two = self._cells()
        cells = [None if two is None else other._cells() for other in others]
        pairs = [(one, two) for one in cells if one is not None and two is not None]
        may = iter(may_superpose_any(pairs).tolist())
        return [one is not None and next(may) for one in cells]

    def to_bytes(self) -> bytes:
        """Everything of it but its name."""
        self._reduce()
        parts = (self.content_id.encode(), self._primitive, self._whole)
        return struct.pack("<4i", self.n_atoms, *map(len, parts)) + b"".join(parts)

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> ComparedCrystal:
        """The crystal that `to_bytes` was called on."""
        found = cls.__new__(cls)
        found.name, found._crystal = name, None
        found.n_atoms, first, second, third = struct.unpack_from("<4i", data)
        ends = list(accumulate((16, first, second, third)))
        content, found._primitive, found._whole = (data[a:b] for a, b in pairwise(ends))
        found._content_id = content.decode()
        return found

    def _reduce(self) -> None:
        if self._crystal is not None:
            cells, self._content_id = compared_cells(self._crystal), self.content_id
            self._crystal = None
            if cells is not None:
                self._primitive = cells.primitive.to_bytes()
                self._whole = b"" if cells.whole is None else cells.whole.to_bytes()

    def _cells(self) -> ComparedCells | None:
        self._reduce()
        if not self._primitive:
            return None
        whole = Cell.from_bytes(self._whole) if self._whole else None
        return ComparedCells(Cell.from_bytes(self._primitive), whole)


def group_equal(crystals: Sequence[Crystal]) -> list[list[int]]:
    """Groups of indices of equal crystals, the same in whatever order they come.

    Matching is not transitive: A may match B and C though these do not match. A group holds
    everything that a chain of matches connects.
    """
    buckets: dict[Formula, list[int]] = {}
    for index, crystal in enumerate(crystals):
        buckets.setdefault(_formula(crystal), []).append(index)
    return sorted(g for bucket in buckets.values() for g in _groups(crystals, bucket))


def _groups(crystals: Sequence[Crystal], bucket: list[int]) -> list[list[int]]:
    if len(bucket) == 1:
        return [bucket]
    entries = {index: LibraryEntry(str(index), crystals[index]) for index in bucket}
    groups: list[list[int]] = []
    for index in bucket:
        apart, joined = [], [index]
        for group in groups:
            if any(_same(entries[other], entries[index]) for other in group):
                joined += group
            else:
                apart.append(group)
        groups = [*apart, joined]
    return [sorted(group) for group in groups]


def _same(entry: LibraryEntry, query: LibraryEntry) -> bool:
    if entry.cells is None or query.cells is None:
        return entry.crystal.content_id == query.crystal.content_id
    return _rms(entry, query, first=True) is not None


def _formula(crystal: Crystal) -> Formula:
    """The reduced amounts as a key; cheaper than `Crystal.formula`."""
    return tuple(sorted(reduced_amounts(Counter(crystal.species)).items()))


def _rms(entry: LibraryEntry, query: LibraryEntry, *, first: bool = False) -> float | None:
    one, two = entry.cells, query.cells
    return None if one is None or two is None else superposed_rms(one, two, first=first)
