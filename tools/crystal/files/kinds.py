"""What a row of a table may hold, and how tables are written that have no rows."""

from __future__ import annotations

from typing import Literal

from hullward.tools.crystal.files.json_values import TABLE_COLUMNS, Row

Format = Literal[
    "crystal_text", "asymmetric_text", "cif", "crystal_json", "table_row", "extxyz", "poscar"
]
KINDS: tuple[tuple[Format, tuple[str, ...]], ...] = (  # the first whose columns are all present
    ("table_row", TABLE_COLUMNS),
    ("crystal_json", ("structure",)),
    ("crystal_text", ("text",)),
    ("crystal_text", ("raw",)),
    ("cif", ("cif",)),
    ("crystal_json", ("lattice", "sites")),  # the row itself is a pymatgen structure
    ("crystal_json", ("lattice", "species", "frac_coords")),  # or one of our crystals
)


def pandas_form(value: Row) -> str:
    """How pandas or others wrote a table as one JSON object; '' for a single row."""
    if "data" in value and ("columns" in value or "schema" in value):
        return "columns and data (orient='split' or 'table')"
    kinds = [columns for _, columns in KINDS]
    own = [columns for columns in kinds if set(columns) <= set(value)]
    if any(all(_is_column(c, value[c]) for c in columns) for columns in own):
        return "columns (orient='columns' or 'list')"
    if not own and value and all(isinstance(row, dict) for row in value.values()):
        first = next(iter(value.values()))
        if any(set(columns) <= set(first) for columns in kinds):
            return "rows by name (orient='index')"
    return ""


def _is_column(name: str, value: object) -> bool:
    """Whether the value of a key holds many rows: by number or name, or as a list."""
    if name in ("lattice", "sites", "frac_coords"):
        return False
    if isinstance(value, dict):
        return not {"lattice", "sites", "species", "frac_coords"} & set(value)
    if not isinstance(value, list) or not value:
        return False
    return isinstance(value[0], list) if name in TABLE_COLUMNS[:3] else name not in TABLE_COLUMNS
