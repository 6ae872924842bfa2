"""References in tables: formula and formation energy per atom, one row a phase or a hull point."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.hull import Phase
from hullward.tools.reference import MP2020, Coverage
from hullward.tools.reference_files import Sidecar, file_coverage

# The first of these that a table has is read.
FORMULA_COLUMNS = ("formula", "composition", "reduced_formula")
ENERGY_COLUMNS = ("hull_entry_energy_per_atom", "formation_energy_per_atom", "e_form_ev_per_atom")
ID_COLUMNS = ("phase_id", "material_id", "best_id", "id")
_SYMBOL = re.compile(r"[A-Z][a-z]?")


def mp2020_elements() -> dict[str, float]:
    """Energy per atom, eV, of 89 elements on the MP2020 scale: the zero of formation energy."""
    text = (files("hullward.data") / "mp2020_elements.json").read_text(encoding="utf-8")
    energies: dict[str, float] = json.loads(text)["energies"]
    return energies


TRUE_WORDS, FALSE_WORDS = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}


class TablePhases:
    """Phases from a table of formula and formation energy; rows become phases when asked for."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        if sidecar.energy_scheme != MP2020:
            raise InputError(
                f"{path.name}: formation energies on {sidecar.energy_scheme!r} need that scheme's "
                f"element energies, and only {MP2020!r} has them here; give ComputedEntry JSON"
            )
        self.name, self._stated = path.name, sidecar.complete
        self._formulas, self._energies, self._ids, self._is_phase = _read_table(path)
        self._zero = mp2020_elements()
        self._systems, self._system_of_row = _systems(self._formulas, path.name)
        unknown = sorted({el for s in self._systems for el in s} - set(self._zero))
        if unknown:
            raise InputError(f"{path.name}: unknown elements {', '.join(unknown)}")
        self.elements = frozenset(self._zero)
        self.statement = (
            f"{len(self._formulas)} formation energies from {path.name}, turned into energies with "
            f"the MP2020 energies of {len(self._zero)} elements (added at zero); scheme {MP2020!r} "
            "is assumed for tables. Rows that are no phases support the hull only."
        )

    @property
    def systems(self) -> list[frozenset[str]]:
        """The distinct chemical systems of the rows."""
        return self._systems

    @property
    def n_phases(self) -> int:
        """Rows that are phases, not points of the hull."""
        return int(self._is_phase.sum())

    def within(self, elements: frozenset[str]) -> list[Phase]:
        phases = [
            self._phase(f"element-{el}", el, 0.0, f"{self.name}: zero of {el}", True)
            for el in sorted(elements & self.elements)
        ]
        inside = np.array([s <= elements for s in self._systems])
        phases += [
            self._phase(
                self._ids[row],
                self._formulas[row],
                float(self._energies[row]),
                f"{self.name}#{row}",
                bool(self._is_phase[row]),
            )
            for row in np.flatnonzero(inside[self._system_of_row])
        ]
        return phases

    def _phase(self, phase_id: str, formula: str, energy: float, source: str, real: bool) -> Phase:
        from pymatgen.core import Composition

        try:
            composition = Composition(formula)
        except ValueError as error:
            raise InputError(f"{source}: {formula!r} is no formula: {error}") from None
        amounts = {str(el): float(n) for el, n in composition.get_el_amt_dict().items()}
        zero = sum(self._zero[el] * n for el, n in amounts.items()) / sum(amounts.values())
        return Phase(
            phase_id=phase_id,
            formula=composition.reduced_formula,
            composition=amounts,
            energy_ev_per_atom=energy + zero,
            source=source,
            is_phase=real,
        )

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        return file_coverage(composition, phases, self._stated, self.name)


def _read_table(path: Path) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Formulas, formation energies (eV/atom), ids ('' where none) and is_phase flags."""
    import pandas as pd

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None

    def column(names: Sequence[str]) -> Any:
        return next((table[n] for n in names if n in table), None)

    formulas, energies, ids = column(FORMULA_COLUMNS), column(ENERGY_COLUMNS), column(ID_COLUMNS)
    if formulas is None or energies is None:
        raise InputError(
            f"{path.name}: needs a column of formulas ({', '.join(FORMULA_COLUMNS)}) and one of "
            f"formation energies in eV/atom ({', '.join(ENERGY_COLUMNS)}); has {list(table)}"
        )
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
    return formulas.astype(str).tolist(), values, _unique_ids(ids, flags), flags


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
