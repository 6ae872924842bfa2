"""Read known structures and formulas from the tables that the index is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import composition_amounts, formula_amounts, reduced_spelling
from hullward.tools.crystal.files import plain_name, read_known
from hullward.tools.reference.sources import column_names, read_columns, read_rows

STRUCTURE_COLUMNS = ("cif", "structure")
ID_KEYS = ("material_id", "entry_id", "mpid", "task_id", "id")
# Points where a tie line crosses the composition of a phase that another table holds.
TIE_LINE_POINTS = "exact_hull_point"
_RUN = re.compile(r"-(?:GGA|GGA\+U|R2SCAN|r2SCAN|SCAN)$")
_AGAIN = re.compile(r"#\d+$")  # `read_known` adds it to an id of two different structures


@dataclass
class Table:
    """What a table holds.

    structures: (id, crystal) of ordered ones.  formulas: reduced, of every row.
    """

    name: str
    structures: list[tuple[str, Crystal]] = field(default_factory=list)
    formulas: set[str] = field(default_factory=set)


def read_table(path: Path) -> Table:
    """The structures and formulas of a table, or of computed entries.

    Parquet or CSV with a column `cif`, `structure` or `formula`; JSON or JSON Lines, also packed,
    of entries with `composition` or `formula`, and `structure` where there is one. Raises
    InputError for a file with none of these, and for the first row that cannot be read.
    """
    name = path.name
    if plain_name(path).endswith((".parquet", ".csv")):
        columns = column_names(path)
        if any(column in columns for column in STRUCTURE_COLUMNS):
            known = [(_AGAIN.sub("", own), crystal) for own, crystal in read_known(path)]
            return Table(name, known, {crystal.formula for _, crystal in known})
        if "formula" not in columns:
            raise InputError(
                f"{name}: no column {', '.join(STRUCTURE_COLUMNS)} or formula; found: "
                f"{', '.join(columns[:8])}"
            )
        return Table(name, formulas=set(_formulas(path, "kind" in columns)))
    table = Table(name)
    for number, row in enumerate(read_rows(path), start=1):
        inner = row.get("entry")
        _add(table, inner if isinstance(inner, dict) else row, f"{name}#{number}")
    return table


def _formulas(path: Path, has_kind: bool) -> Iterator[str]:
    read = read_columns(path, ["formula", "kind"] if has_kind else ["formula"])
    kinds = read.get("kind", [None] * len(read["formula"]))
    for number, (text, kind) in enumerate(zip(read["formula"], kinds, strict=True)):
        if kind != TIE_LINE_POINTS:
            try:
                yield _reduced(text)
            except InputError as error:
                raise InputError(f"{path.name}#{number}: {error}") from None


@cache
def _reduced(text: str) -> str:
    """Tables of one database repeat their formulas."""
    return reduced_spelling(formula_amounts(text))


def _add(table: Table, row: Mapping[str, Any], where: str) -> None:
    structure = row.get("structure")
    try:
        stated = row.get("composition") or row.get("formula")
        crystal = _ordered(structure) if isinstance(structure, dict) else None
        if stated:
            table.formulas.add(reduced_spelling(composition_amounts(stated)))
        elif crystal is not None:
            table.formulas.add(crystal.formula)
        else:
            raise InputError("it has no structure, composition or formula")
    except (InputError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where}: {error}") from None
    if crystal is not None:
        own = next((str(row[key]) for key in ID_KEYS if row.get(key)), where)
        table.structures.append((_RUN.sub("", own), crystal))


def _ordered(structure: Mapping[str, Any]) -> Crystal | None:
    """The crystal of a pymatgen dictionary; None where sites are shared or partly empty."""
    sites = structure["sites"]
    if any(len(s["species"]) != 1 or s["species"][0]["occu"] != 1 for s in sites):
        return None
    species = [next(iter(composition_amounts({s["species"][0]["element"]: 1}))) for s in sites]
    return Crystal.from_arrays(structure["lattice"]["matrix"], species, [s["abc"] for s in sites])
