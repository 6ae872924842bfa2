"""Phases from tables: formula and energy per atom, one row a phase or a point of the hull."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.hull import Phase
from hullward.tools.reference.sources.base import FilePhases, Sidecar
from hullward.tools.reference.sources.energies import (
    EnergyColumn,
    check_elements,
    element_zeros,
    energies_statement,
    energy_column,
)

# The first of these that a table has is read.
FORMULA_COLUMNS = ("formula", "composition", "reduced_formula", "formula_pretty")
ID_COLUMNS = ("phase_id", "material_id", "entry_id", "best_id", "id")
_SYMBOL = re.compile(r"[A-Z][a-z]?")
TRUE_WORDS, FALSE_WORDS = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}


class TablePhases(FilePhases):
    """Phases from a table of formula and energy, each built when it is needed."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        super().__init__(path.name, sidecar.complete)
        table = _read_table(path, sidecar.energy_property)
        self._formulas, self._energies, self._ids, self._is_phase, column = table
        self.systems, self._system_of_row = _systems(self._formulas, path.name)
        check_elements({el for s in self.systems for el in s}, path.name)
        self._zero: dict[str, float] = {}
        if column.kind == "formation":
            self._zero = element_zeros(self.systems, sidecar.energy_scheme, path.name)
        self.statement = energies_statement(
            len(self._formulas), column, path.name, sidecar.energy_scheme, len(self._zero)
        )

    @cached_property
    def elements(self) -> frozenset[str]:
        alone = frozenset(next(iter(s)) for s in self.systems if len(s) == 1)
        return frozenset(self._zero) or alone

    @property
    def n_phases(self) -> int:
        """Rows that are phases, not points of the hull."""
        return int(self._is_phase.sum())

    def rows(self) -> list[Phase]:
        return [self._row(row) for row in range(len(self._formulas))]

    def within(self, elements: frozenset[str]) -> list[Phase]:
        phases = [
            self._phase(f"element-{el}", el, 0.0, f"{self.name}: zero of {el}", True)
            for el in sorted(elements & self._zero.keys())
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

    def _phase(self, phase_id: str, formula: str, energy: float, source: str, real: bool) -> Phase:
        from pymatgen.core import Composition

        try:
            with warnings.catch_warnings():
                # noble gases have no electronegativity
                warnings.simplefilter("ignore", UserWarning)
                composition = Composition(formula)
                reduced = composition.reduced_formula
        except ValueError as error:
            raise InputError(f"{source}: {formula!r} is no formula: {error}") from None
        amounts = dict(composition.get_el_amt_dict())
        if not amounts:
            raise InputError(f"{source}: {formula!r} is no formula")
        zero = 0.0
        if self._zero:
            zero = sum(self._zero[el] * n for el, n in amounts.items()) / sum(amounts.values())
        return Phase(
            phase_id=phase_id,
            formula=reduced,
            composition=amounts,
            energy_ev_per_atom=energy + zero,
            source=source,
            is_phase=real,
        )


def _read_table(
    path: Path, chosen: str | None
) -> tuple[list[str], np.ndarray, list[str], np.ndarray, EnergyColumn]:
    """Formulas, energies (eV/atom), ids, is_phase flags, and what the energies are."""
    import pandas as pd

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None

    def column(names: Sequence[str]) -> Any:
        return next((table[n] for n in names if n in table), None)

    formulas, ids = column(FORMULA_COLUMNS), column(ID_COLUMNS)
    if formulas is None:
        raise InputError(
            f"{path.name}: needs a column of formulas ({', '.join(FORMULA_COLUMNS)}); has "
            f"{list(table)}"
        )
    wanted = energy_column([str(name) for name in table], path.name, chosen)
    energies = table[wanted.name]
    try:
        values = energies.to_numpy(dtype=float)
    except ValueError as error:
        raise InputError(f"{path.name}: {energies.name}: {error}") from None
    if bad := np.flatnonzero(~np.isfinite(values)).tolist():
        raise InputError(f"{path.name}: {energies.name} of row {bad[0]} is not a number")
    flags = np.ones(len(table), dtype=bool)
    if "is_phase" in table:
        words = table["is_phase"].astype(str).str.strip().str.lower()
        if odd := sorted(set(words) - TRUE_WORDS - FALSE_WORDS)[:3]:
            raise InputError(f"{path.name}: is_phase must be true or false, found {odd}")
        flags = words.isin(TRUE_WORDS).to_numpy(dtype=bool)
    elif "kind" in table:
        flags = (table["kind"] != "exact_hull_point").to_numpy(dtype=bool)
    return formulas.astype(str).tolist(), values, _unique_ids(ids, flags), flags, wanted


def _unique_ids(ids: Any, flags: np.ndarray) -> list[str]:
    """The table's ids; 'row-N' where it gives none, one twice, or the row is no phase."""
    if ids is None:
        return [f"row-{row}" for row in range(len(flags))]
    own = ids.notna() & ~ids.duplicated(keep=False) & flags
    return [str(i) if o else f"row-{row}" for row, (i, o) in enumerate(zip(ids, own, strict=True))]


def _systems(formulas: Sequence[str], name: str) -> tuple[list[frozenset[str]], np.ndarray]:
    """The distinct chemical systems, and the number of each formula's."""
    numbers: dict[frozenset[str], int] = {}
    rows = np.empty(len(formulas), dtype=int)
    for i, formula in enumerate(formulas):
        system = frozenset(_SYMBOL.findall(formula))
        if not system:
            raise InputError(f"{name}: row {i}: {formula!r} is no formula")
        rows[i] = numbers.setdefault(system, len(numbers))
    return list(numbers), rows
