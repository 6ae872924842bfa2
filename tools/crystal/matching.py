"""Find a crystal in a library of structures.

Identical content is found by its id. Otherwise the crystal is superposed on entries of the same
reduced formula whose primitive cells have as many sites and compatible lengths; no pair that
StructureMatcher matches is excluded. Its tolerances are wider than most differences between
polymorphs, so no fingerprint of distances could be both safe and useful (the figures are in
tests/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.formulas import reduced_amounts
from hullward.tools.crystal.geometry import compact_cell, plane_spacings_a
from hullward.tools.crystal.reduced_cell import Cell, reduced_cell
from hullward.tools.crystal.superposition import rms_displacement

# Compared by content only, because reduction and superposition would take minutes and gigabytes:
# primitive cells with more sites than this (time grows with the cube of the sites and more),
MAX_MATCHED_SITES = 200
# needles and sheets with more lattice points than this within 1.2 of the longest edge,
MAX_LATTICE_POINTS = 20_000
# and cells thinner than any crystal's.
THINNEST_A = 0.5
# rms values closer than this tie, and the entry added first wins.
RMS_DIGITS = 6
# What reduction and superposition raise on degenerate cells (LinAlgError is a ValueError).
CELL_ERRORS = (ValueError, ArithmeticError, IndexError)

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
    def cell(self) -> Cell | None:
        """The reduced cell (about 3 kB); None if the crystal cannot be superposed."""
        matrix = compact_cell(np.array(self.crystal.lattice))
        volume = abs(float(np.linalg.det(matrix)))
        sphere = 4 / 3 * math.pi * (1.2 * float(np.linalg.norm(matrix, axis=1).max())) ** 3
        if plane_spacings_a(matrix).min() < THINNEST_A or sphere > MAX_LATTICE_POINTS * volume:
            return None
        try:
            cell = reduced_cell(self.crystal)
        except CELL_ERRORS:
            return None
        return cell if len(cell) <= MAX_MATCHED_SITES else None


class StructureLibrary:
    """Crystals by name, searched by structure.

    Matches are those of `StructureMatcher.fit` with pymatgen's defaults: lengths within 20 %,
    sites within 0.3 (V/n)^(1/3), angles within 5 degrees, primitive cells scaled to one volume
    (hullward.tools.crystal.superposition). Mirror images match. Cells beyond MAX_MATCHED_SITES,
    MAX_LATTICE_POINTS or THINNEST_A, or that cannot be reduced, match identical content only.
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

    __slots__ = ("_anchor", "_content_id", "_counts", "_crystal", "_numbers", "n_atoms", "name")

    def __init__(self, name: str, crystal: Crystal, content_id: str | None = None) -> None:
        """content_id: that of the crystal, where it is known already."""
        self.name, self.n_atoms = name, crystal.n_atoms
        self._content_id = content_id
        self._crystal: Crystal | None = crystal
        self._counts: tuple[int, ...] = ()  # of a crystal that cannot be superposed
        self._anchor, self._numbers = 0, _NOTHING

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
        other._reduce()
        # a primitive cell has as many sites as the cell given, or a whole fraction of them
        if not other._counts or self.n_atoms % sum(other._counts):
            return None
        self._reduce()
        if self._counts != other._counts:
            return None
        try:
            rms = rms_displacement(self._cell(), other._cell())
        except CELL_ERRORS:
            return None
        return None if rms is None else round(rms, RMS_DIGITS)

    def _reduce(self) -> None:
        """Replace the crystal by its reduced cell."""
        if self._crystal is None:
            return
        cell, self._content_id = LibraryEntry(self.name, self._crystal).cell, self.content_id
        self._crystal = None
        if cell is not None:
            self._counts, self._anchor = cell.counts, cell.anchor
            parts = (cell.lattice, cell.lengths, cell.angles, cell.frac)
            self._numbers = np.concatenate([part.ravel() for part in parts])

    def _cell(self) -> Cell:
        numbers = self._numbers
        return Cell(
            numbers[:9].reshape(3, 3),
            numbers[15:].reshape(-1, 3),
            self._counts,
            self._anchor,
            numbers[9:12],
            numbers[12:15],
        )


_NOTHING = np.empty(0)


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
    if entry.cell is None or query.cell is None:
        return entry.crystal.content_id == query.crystal.content_id
    return _rms(entry, query, first=True) is not None


def _formula(crystal: Crystal) -> Formula:
    """The reduced amounts as a key; cheaper than `Crystal.formula`."""
    return tuple(sorted(reduced_amounts(Counter(crystal.species)).items()))


def _rms(entry: LibraryEntry, query: LibraryEntry, *, first: bool = False) -> float | None:
    """Normalised rms displacement, rounded; None if the two do not superpose."""
    one, two = entry.cell, query.cell
    if one is None or two is None:
        return None
    try:
        rms = rms_displacement(one, two, first=first)
    except CELL_ERRORS:
        return None
    return None if rms is None else round(rms, RMS_DIGITS)
