"""Ask whether a structure or a compound is known."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.tools.crystal import StructureLibrary, space_group
from hullward.tools.crystal.identity import unpacked
from hullward.tools.hull import split_chemsys
from hullward.tools.prototypes import textbook_phases_of
from hullward.tools.reference.known.file import read_index
from hullward.tools.reference.known.recognition import RULE, KnownFacts, Sighting

if TYPE_CHECKING:
    import pyarrow as pa


TEXTBOOKS = "textbooks"
TRIED = "embedded reference, tried"


@dataclass(frozen=True)
class IndexedPhase:
    """A structure of the index.

    tried_only: the embedded reference tried this arrangement and found a lower one.
    """

    phase_id: str  # e.g. 'mp-1005'; of an arrangement its structure type
    formula: str
    space_group: int  # international number; 0 where none was found
    source: str
    tried_only: bool = False


@dataclass(frozen=True)
class IndexCounts:
    """How much an index holds."""

    structures: int
    formulas: int
    textbook: int  # phases of which the structure type is known
    arrangements: int  # tried by the embedded reference, formula by formula
    by_source: Mapping[str, int]


class KnownIndex:
    """Known structures and formulas; the file is read when first asked.

    Raises InputError, on first use, for a file that is absent, damaged or of another format.
    """

    def __init__(self, path: Path | None = None) -> None:
        """path: of a file made by the command; None for the one that ships."""
        self._file = _File(path)
        self._hidden: frozenset[str] = frozenset()

    def masked(self, systems: Iterable[str]) -> KnownIndex:
        """The same index without these systems (not their subsystems), as for benchmarks."""
        copy = KnownIndex(self._file.path)
        copy._file = self._file
        copy._hidden = self._hidden | {"-".join(sorted(split_chemsys(s))) for s in systems}
        return copy

    @property
    def version(self) -> str:
        """A hash of the whole file and of the rule by which structures are recognised."""
        return self._file.version

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Name, licence and numbers of rows of each source."""
        found: list[dict[str, Any]] = self._file.manifest["sources"]
        return found

    @cached_property
    def counts(self) -> IndexCounts:
        """How much it holds, without the masked systems."""
        seen = {f for f in self._file.formulas if not self._is_hidden(f)}
        kept = [formula in seen for formula in self._file.formula_of_row]
        sources = Counter(s for s, keep in zip(self._file.sources, kept, strict=True) if keep)
        textbook, tried = (
            sum(len(found) for formula, found in numbers.items() if formula in seen)
            for numbers in (self._file.textbook, self._file.tried)
        )
        return IndexCounts(sum(kept), len(seen), textbook, tried, dict(sorted(sources.items())))

    def knows(self, formula: str) -> bool:
        """Whether any phase of this composition is known.

        Raises InputError for text that is no formula.
        """
        spelling = reduced_spelling(formula_amounts(formula))
        return spelling in self._file.formulas and not self._is_hidden(spelling)

    def holds_structures_of(self, formula: str) -> bool:
        """Whether there is a structure of this reduced formula to compare with."""
        there = bool(self._file.rows_of(formula)) or formula in self._file.textbook
        return there and not self._is_hidden(formula)

    def hides(self, formula: str) -> bool:
        """Whether the system of this formula is masked."""
        return self._is_hidden(formula)

    def structure(self, crystal: Crystal) -> IndexedPhase | None:
        """The known phase with the crystal's structure, of several the nearest; else None.

        Mirror images are one structure, and so are crystals that differ by volume alone. A phase of
        textbooks is also recognised by superposition on its structure type.
        """
        formula = crystal.formula
        if not self.knows(formula):
            return None
        rows = self._file.rows_of(formula)
        textbook = self._file.textbook.get(formula, ())
        tried = self._file.tried.get(formula, ())
        if not rows and not textbook and not tried:
            return None
        try:
            seen = Sighting(crystal)
        except ValueError:
            return None
        near = [(seen.distance(self._file.facts(row)), row) for row in rows]
        found = [(distance, row) for distance, row in near if distance is not None]
        if found:
            return self._file.phase(min(found)[1])
        for numbers, source in ((textbook, TEXTBOOKS), (tried, TRIED)):
            for number in numbers:
                if seen.is_arrangement(self._file.arrangement_facts(number)):
                    return self._file.arrangement(number, formula, source)
        return _as_textbook(crystal) if textbook else None

    def _is_hidden(self, formula: str) -> bool:
        return bool(self._hidden) and "-".join(sorted(formula_amounts(formula))) in self._hidden


def _as_textbook(crystal: Crystal) -> IndexedPhase | None:
    """The phase of textbooks that StructureMatcher's tolerances make of a crystal."""
    match = _textbook_library(crystal.chemsys).match(crystal)
    if match is None:
        return None
    return IndexedPhase(match.match_id, crystal.formula, space_group(crystal, 0.1) or 0, TEXTBOOKS)


@lru_cache(maxsize=1000)
def _textbook_library(chemsys: str) -> StructureLibrary:
    """The phases of a system, whose free parameters are those of their types."""
    phases = textbook_phases_of(chemsys)
    return StructureLibrary((f"{phase.type_name} type", phase.crystal) for phase in phases)


class _File:
    """The tables of one file, in memory from the first use on."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @cached_property
    def _content(self) -> tuple[bytes, dict[str, Any], dict[str, pa.Table]]:
        return read_index(self.path)

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(self._content[0] + bytes([RULE])).hexdigest()[:16]

    @property
    def manifest(self) -> dict[str, Any]:
        return self._content[1]

    @cached_property
    def formulas(self) -> frozenset[str]:
        return frozenset(self._content[2]["formulas"]["formula"].to_pylist())

    @cached_property
    def formula_of_row(self) -> list[str]:
        found: list[str] = self._structures["formula"].to_pylist()
        return found

    @cached_property
    def sources(self) -> list[str]:
        found: list[str] = self._structures["source"].to_pylist()
        return found

    @cached_property
    def textbook(self) -> dict[str, list[int]]:
        """The numbers of the arrangements that textbooks name for a formula."""
        return self._numbers("textbook")

    @cached_property
    def tried(self) -> dict[str, list[int]]:
        """The numbers of the arrangements tried for a formula."""
        return self._numbers("tried")

    def _numbers(self, name: str) -> dict[str, list[int]]:
        table = self._content[2][name]
        return dict(zip(table["formula"].to_pylist(), table["numbers"].to_pylist(), strict=True))

    def rows_of(self, formula: str) -> range:
        """The rows of structures of a formula; the table is sorted by it."""
        names = self.formula_of_row
        return range(bisect_left(names, formula), bisect_right(names, formula))

    def facts(self, row: int) -> KnownFacts:
        return _facts(self._structures, self._sketches, row)

    def phase(self, row: int) -> IndexedPhase:
        table = self._structures
        return IndexedPhase(
            phase_id=table["phase_id"][row].as_py(),
            formula=self.formula_of_row[row],
            space_group=table["space_group"][row].as_py(),
            source=self.sources[row],
        )

    def arrangement_facts(self, number: int) -> KnownFacts:
        return _facts(self._arrangements, self._arrangement_sketches, number)

    def arrangement(self, number: int, formula: str, source: str) -> IndexedPhase:
        table = self._arrangements
        return IndexedPhase(
            phase_id=table["structure_type"][number].as_py(),
            formula=formula,
            space_group=table["space_group"][number].as_py(),
            source=source,
            tried_only=source == TRIED,
        )

    @property
    def _structures(self) -> pa.Table:
        return self._content[2]["structures"]

    @property
    def _arrangements(self) -> pa.Table:
        return self._content[2]["arrangements"]

    @cached_property
    def _sketches(self) -> np.ndarray:
        return _sketches_of(self._structures)

    @cached_property
    def _arrangement_sketches(self) -> np.ndarray:
        return _sketches_of(self._arrangements)


def _sketches_of(table: pa.Table) -> np.ndarray:
    raw = b"".join(table["sketch"].to_pylist())
    return np.frombuffer(raw, dtype=np.int8).reshape(table.num_rows, -1)


def _facts(table: pa.Table, sketches: np.ndarray, row: int) -> KnownFacts:
    usual, exact = table["mark"][row].as_py(), table["exact_mark"][row].as_py()
    return KnownFacts(
        space_group=table["space_group"][row].as_py(),
        exact_group=table["exact_group"][row].as_py(),
        marks=(exact, usual),
        sketch=unpacked(sketches[row]),
    )


@cache
def load_known_index(path: Path | None = None) -> KnownIndex:
    """The index that ships, or one made by the command.

    Raises InputError for a file that is absent, damaged or of another format.
    """
    index = KnownIndex(path)
    assert index.version  # reads the file
    return index
