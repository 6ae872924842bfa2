"""Crystals from JSON values: rows of tables, pymatgen's structures, our own crystals.

The values come from other people's files, so types are checked before numbers.
"""

from __future__ import annotations

import math
from typing import Any

from hullward.models.crystal import Crystal, lattice_matrix
from hullward.tools.crystal.input_checks import MAX_SITES, checked_crystal, shorten
from hullward.tools.records import Flaw, Reason

Row = dict[str, Any]

TABLE_COLUMNS = ("lengths", "angles", "species", "coords")


def parse_table_row(row: Row) -> Crystal | Flaw:
    """The crystal of lengths in Å, angles in degrees, n symbols and (n, 3) fractions."""
    values = [row.get(name) for name in TABLE_COLUMNS]
    if all(absent(value) for value in values):
        return Flaw(reason=Reason.EMPTY, detail="all four columns are empty")
    for name, value in zip(TABLE_COLUMNS, values, strict=True):
        if not isinstance(value, list):
            return malformed(f"{name}: expected a list, found {shorten(str(value))}")
    lengths, angles, species, coords = values
    for name, vector in (("lengths", lengths), ("angles", angles)):
        if not _is_vector(vector):
            return malformed(f"{name}: expected three finite numbers, found {shorten(str(vector))}")
    try:
        lattice = lattice_matrix(lengths, angles)  # type: ignore[arg-type]
    except ValueError as error:
        return Flaw(reason=Reason.IMPOSSIBLE_CELL, detail=str(error))
    return _sites(lattice, species, coords)


def parse_crystal_json(value: Row) -> Crystal | Flaw:
    """The crystal of a pymatgen structure as a dict, or of one of our crystals."""
    cell: Any = value.get("lattice")
    described = cell if isinstance(cell, dict) else {"matrix": cell, "pbc": value.get("pbc")}
    lattice, periodic = described.get("matrix"), described.get("pbc")
    if not (isinstance(lattice, list) and len(lattice) == 3 and all(map(_is_vector, lattice))):
        return malformed(f"lattice: expected three vectors, found {shorten(str(lattice))}")
    if periodic not in (None, [True] * 3):
        return malformed(f"not periodic in three directions: {shorten(str(periodic))}")
    sites = value.get("sites")
    if not isinstance(sites, list):
        return _sites(lattice, value.get("species"), value.get("frac_coords"))
    species, coords = [], []
    for number, site in enumerate(sites, 1):
        try:
            (occupant, *others), xyz = site["species"], site["abc"]
            symbol, share = occupant["element"], occupant["occu"]
        except (KeyError, TypeError, ValueError):
            return malformed(f"site {number}: expected species and abc, found {shorten(str(site))}")
        if others or share != 1:
            return Flaw(reason=Reason.DISORDERED, detail=f"site {number} is partially occupied")
        species.append(symbol)
        coords.append(xyz)
    return _sites(lattice, species, coords)


def _sites(lattice: object, species: object, coords: object) -> Crystal | Flaw:
    """The crystal of JSON values after a check of their types."""
    if not isinstance(species, list) or not isinstance(coords, list):
        return malformed("species and coordinates are not lists")
    if not species and not coords:
        return Flaw(reason=Reason.NO_SITES, detail="no atoms")
    if len(species) != len(coords):
        return malformed(f"{len(species)} species but {len(coords)} coordinates")
    if len(species) > MAX_SITES:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{len(species)} sites, limit {MAX_SITES}")
    for number, (symbol, xyz) in enumerate(zip(species, coords, strict=True), 1):
        if not isinstance(symbol, str):
            return malformed(f"site {number}: expected a symbol, found {shorten(str(symbol))}")
        if not _is_vector(xyz):
            found = shorten(str(xyz))
            return malformed(f"site {number}: expected three finite numbers, found {found}")
    return checked_crystal(lattice, species, coords, Reason.MALFORMED_ROW)


def _is_vector(value: object) -> bool:
    """Whether a value is three finite numbers; not booleans or integers too large for a float."""
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_number(x: object) -> bool:
    return (type(x) is int and abs(x) < 1 << 53) or (type(x) is float and math.isfinite(x))


def malformed(detail: str) -> Flaw:
    return Flaw(reason=Reason.MALFORMED_ROW, detail=detail)


def absent(value: object) -> bool:
    """Whether a table cell has no value: None, an empty string or NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def id_text(value: object) -> str | None:
    """An id as text, of whatever type; None where a row has none.

    Words such as 'NA' and 'null' are ids like others; a whole number stored as a float is shown
    without a point.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
