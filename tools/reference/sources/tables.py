"""Phases from tables: formula and energy per atom, one row a phase or a point of the hull."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.models.formulas import composition_amounts, reduced_spelling
from hullward.tools.crystal.files import id_text
from hullward.tools.hull import Phase
from hullward.tools.reference.sources.base import FilePhases, Sidecar
from hullward.tools.reference.sources.columns import (
    column_names,
    finite_number,
    read_columns,
)
from hullward.tools.reference.sources.energies import (
    EnergyColumn,
    check_functional,
    element_zeros,
    energies_statement,
    energy_column,
    total_energies_caution,
)

# The first of these that a table has is read.
FORMULA_COLUMNS = ("formula", "composition", "reduced_formula", "formula_pretty")
ID_COLUMNS = ("phase_id", "material_id", "entry_id", "best_id", "id")
Formula = str | Mapping[str, Any]  # Parquet may hold amounts of elements
TRUE_WORDS, FALSE_WORDS = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}


class TablePhases(FilePhases):
    """Phases from a table of formula and energy, each built when it is needed."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        super().__init__(path.name, sidecar.complete)
        table = _read_table(path, sidecar.energy_property)
        self._formulas, self._energies, self._ids, self._is_phase, column = table
        self.systems, self._system_of_row = _systems(self._formulas, path.name)
        check_functional(self._ids, sidecar.energy_scheme, path.name)
        if column.kind == "formation":
            self.zeros = element_zeros(self.systems, sidecar.energy_scheme, path.name)
        self.caution = total_energies_caution(column, sidecar)
        self.statement = energies_statement(
            len(self._formulas), column, path.name, sidecar.energy_scheme, len(self.zeros)
        )

    @cached_property
    def elements(self) -> frozenset[str]:
        alone = frozenset(next(iter(s)) for s in self.systems if len(s) == 1)
        return frozenset(self.zeros) or alone

    @property
    def n_phases(self) -> int:
        """Rows that are phases, not points of the hull."""
        return int(self._is_phase.sum())

    def rows(self) -> list[Phase]:
        return [self._row(row) for row in range(len(self._formulas))]

    def within(self, elements: frozenset[str]) -> list[Phase]:
        phases = [
            self._phase(f"element-{el}", el, 0.0, f"{self.name}: zero of {el}", True)
            for el in sorted(elements & self.zeros.keys())
        ]
        inside = np.array([s <= elements for s in self.systems])
        phases += [self._row(int(row)) for row in np.flatnonzero(inside[self._system_of_row])]
        return phases

    def _row(self, row: int) -> Phase:
        return self._phase(
            self._ids[row],
            self._formulas[row],
            float(self._energies[row]),
            f"{self.name}#{row}",
            bool(self._is_phase[row]),
        )

    def _phase(
        self, phase_id: str, formula: Formula, energy: float, source: str, real: bool
    ) -> Phase:
        amounts = _amounts(formula, source)
        zero = 0.0
        if self.zeros:
            zero = sum(self.zeros[el] * n for el, n in amounts.items()) / sum(amounts.values())
        return Phase(
            phase_id=phase_id,
            formula=reduced_spelling(amounts),
            composition=amounts,
            energy_ev_per_atom=energy + zero,
            source=source,
            is_phase=real,
        )


def _read_table(
    path: Path, chosen: str | None
) -> tuple[list[Formula], np.ndarray, list[str], np.ndarray, EnergyColumn]:
    """Formulas, energies (eV/atom), ids, is_phase flags, and what the energies are."""
    names = column_names(path)
    if not names:
        raise InputError(f"{path.name} cannot be read as a table: it is empty")

    def first(wanted: Sequence[str]) -> str | None:
        return next((n for n in wanted if n in names), None)

    formula, own = first(FORMULA_COLUMNS), first(ID_COLUMNS)
    if formula is None:
        raise InputError(
            f"{path.name}: needs a column of formulas ({', '.join(FORMULA_COLUMNS)}); has {names}"
        )
    wanted = energy_column(names, path.name, chosen)
    kind = first(("is_phase", "kind"))
    columns = read_columns(path, [n for n in dict.fromkeys((formula, wanted.name, own, kind)) if n])
    energies = [
        finite_number(value, f"{path.name}: {wanted.name} of row {row}")
        for row, value in enumerate(columns[wanted.name])
    ]
    flags = np.array([True] * len(energies), dtype=bool)
    if kind == "is_phase":
        words = [str(value).strip().lower() for value in columns[kind]]
        if odd := sorted(set(words) - TRUE_WORDS - FALSE_WORDS)[:3]:
            raise InputError(f"{path.name}: is_phase must be true or false, found {odd}")
        flags = np.array([word in TRUE_WORDS for word in words], dtype=bool)
    elif kind == "kind":
        flags = np.array([value != "exact_hull_point" for value in columns[kind]], dtype=bool)
    ids = _unique_ids(columns[own] if own else [None] * len(energies), flags)
    return columns[formula], np.array(energies, dtype=float), ids, flags, wanted


def _unique_ids(values: Sequence[object], flags: np.ndarray) -> list[str]:
    """The table's ids; 'row-N' where it gives none, one twice, or the row is no phase."""
    ids = [id_text(value) for value in values]
    times = Counter(ids)
    return [
        found if found is not None and times[found] == 1 and real else f"row-{row}"
        for row, (found, real) in enumerate(zip(ids, flags, strict=True))
    ]


def _amounts(formula: Formula, where: str) -> dict[str, float]:
    try:
        return composition_amounts(formula)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _systems(formulas: Sequence[Formula], name: str) -> tuple[list[frozenset[str]], np.ndarray]:
    """The distinct chemical systems, and the number of each formula's."""
    numbers: dict[frozenset[str], int] = {}
    rows = np.empty(len(formulas), dtype=int)
    for i, formula in enumerate(formulas):
        system = frozenset(_amounts(formula, f"{name}: row {i}"))
        rows[i] = numbers.setdefault(system, len(numbers))
    return list(numbers), rows
