"""Known structures from a file (the setting `known_phases`), which may hold tens of thousands.

Any file that `hullward.tools.crystal.files.inputs` reads will do. A column `material_id` or `id`
names the rows; otherwise file and row do. CIFs without symmetry in the layout of pymatgen's writer
are read here, two hundred times as fast; all others go to the sandboxed reader.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hullward.models.crystal import Crystal, lattice_matrix
from hullward.models.errors import InputError
from hullward.models.formulas import composition_amounts, reduced_spelling
from hullward.tools.crystal.files.cif import CifReader
from hullward.tools.crystal.files.cif_block import Contents, stated_amounts, volume_fault
from hullward.tools.crystal.files.cif_crystal import formula_fault
from hullward.tools.crystal.files.inputs import ID_COLUMNS, RawInput, parse_raw, read_inputs
from hullward.tools.crystal.files.json_values import absent, id_text
from hullward.tools.crystal.files.unpacking import plain_name
from hullward.tools.crystal.input_checks import checked_crystal
from hullward.tools.records import Flaw, Reason

MAX_PLAIN_CHARS = 200_000
# The whole file, item by item; a file with anything else goes to the other reader.
_NUMBER = r"(-?\d+\.?\d*(?:e-?\d+)?)"
_PLAIN = re.compile(
    r"(?:#[^\n]*\n)?data_\S+\n"
    r"_symmetry_space_group_name_H-M\s+'P 1'\n"
    + "".join(rf"_cell_length_{x}\s+{_NUMBER}\n" for x in "abc")
    + "".join(rf"_cell_angle_{x}\s+{_NUMBER}\n" for x in ("alpha", "beta", "gamma"))
    + r"_symmetry_Int_Tables_number\s+1\n"
    r"_chemical_formula_structural[^\n]*\n_chemical_formula_sum\s+'?([A-Za-z0-9. ]+)'?\n"
    rf"_cell_volume\s+{_NUMBER}\n_cell_formula_units_Z\s+(\d+)\n"
    r"loop_\n _symmetry_equiv_pos_site_id\n _symmetry_equiv_pos_as_xyz\n  1  'x, y, z'\n"
    r"loop_\n _atom_site_type_symbol\n _atom_site_label\n _atom_site_symmetry_multiplicity\n"
    r" _atom_site_fract_x\n _atom_site_fract_y\n _atom_site_fract_z\n _atom_site_occupancy\n"
    r"((?:  \S+  \S+  1  \S+  \S+  \S+  1(?:\.0)?\n)+)\s*"
)
_SITE = re.compile(
    rf"([A-Z][a-z]?)(?:\d*[+-])?  \S+  1  {_NUMBER}  {_NUMBER}  {_NUMBER}  1(?:\.0)?"
)


class KnownPhases:
    """The user's own known structures, by name."""

    def __init__(self, entries: Iterable[tuple[str, Crystal]] = ()) -> None:
        self._entries = tuple(entries)
        self._by_system: dict[str, list[tuple[str, Crystal]]] = {}
        for entry in self._entries:
            self._by_system.setdefault(entry[1].chemsys, []).append(entry)

    def __iter__(self) -> Iterator[tuple[str, Crystal]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, chemsys: str) -> Sequence[tuple[str, Crystal]]:
        """The structures of exactly this system."""
        return self._by_system.get(chemsys, ())


def read_known(path: Path) -> KnownPhases:
    """Every row of a file, or every CIF in a folder.

    Raises InputError naming the first row that does not parse.
    """
    tabular = plain_name(path).endswith((".csv", ".parquet"))
    found: dict[str, Crystal] = {}
    with CifReader() as reader:
        for number, item in enumerate(read_inputs(path)):
            crystal = plain_cif(item.raw) if item.format == "cif" else None
            read = crystal or parse_raw(item.raw, item.format, reader)
            if isinstance(read, Flaw):
                raise InputError(f"known phase {item.place}: {read.reason}: {read.detail}")
            if tabular:
                _compare_formula(item, read)
            name = (_own_name(item) if tabular else None) or f"user:{item.place}"
            if found.setdefault(name, read).content_id != read.content_id:
                found[f"{name}#{number}"] = read  # a table may list one id twice
    return KnownPhases(found.items())


def plain_cif(text: str) -> Crystal | None:
    """The crystal of a CIF in pymatgen's own layout without symmetry; None for any other text."""
    if len(text) > MAX_PLAIN_CHARS or not (whole := _PLAIN.fullmatch(text)):
        return None
    *cell, formula, volume, units, block = whole.groups()
    sites = [_SITE.fullmatch(line.strip()) for line in block.splitlines()]
    if not all(sites):
        return None
    rows = [site.groups() for site in sites if site]
    numbers = [float(x) for x in cell]
    try:
        matrix = lattice_matrix(numbers[:3], numbers[3:])
    except ValueError:
        return None  # the other reader finds the flaw
    stated = Contents(formula, stated_amounts(formula), float(units) or None)
    places = {tuple(round(float(x) % 1.0, 4) % 1.0 for x in row[1:]) for row in rows}
    agrees = formula_fault(Counter(row[0] for row in rows), stated) is None
    if not agrees or len(places) < len(rows) or volume_fault(float(volume), matrix):
        return None  # as above
    found = checked_crystal(
        matrix, [r[0] for r in rows], [[float(x) for x in r[1:]] for r in rows], Reason.BAD_CIF
    )
    return None if isinstance(found, Flaw) else found


def _compare_formula(item: RawInput, read: Crystal) -> None:
    """Raise InputError where the formula of a row is not that of its structure."""
    stated = item.row.get("formula")
    if absent(stated) or not str(stated).strip():
        return
    try:
        formula = reduced_spelling(composition_amounts(stated))
    except InputError as error:
        raise InputError(f"known phase {item.place}: {error}") from None
    if formula != reduced_spelling(read.amounts):
        raise InputError(
            f"known phase {item.place}: formula {formula} but its structure holds "
            f"{read.formula}; correct one of the two, or leave the formula out"
        )


def _own_name(item: RawInput) -> str | None:
    """The name of a row of a table; None if the table has no column of names."""
    column = next((name for name in ID_COLUMNS if name in item.row), None)
    if column is None:
        return None
    name = id_text(item.row[column])
    if name is None:
        raise InputError(
            f"known phase {item.place}: no {column} in this row; name every row or none"
        )
    return name
