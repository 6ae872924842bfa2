"""One data block of a CIF: its values by tag, and its cell, sites and statements about itself.

Gemmi reads the syntax. Every value that is used is checked here, because a value that is guessed or
dropped would give another crystal.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hullward.models.crystal import lattice_matrix
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.input_checks import MAX_FRACTION, shorten
from hullward.tools.records import Reason

CELL_KEYS = [f"_cell_length_{x}" for x in ("a", "b", "c")]
CELL_KEYS += [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
MULTIPLICITY_KEYS = (
    "_atom_site_symmetry_multiplicity",
    "_atom_site_site_symmetry_multiplicity",
)
ORDER_KEY = "_atom_site_site_symmetry_order"
FORMULA_KEYS = ("_chemical_formula_sum", "_chemical_formula_structural")
HYDROGENS_KEY = "_atom_site_attached_hydrogens"
NOT_STATED = ("?", ".", "")
SAME_VOLUME = 0.02  # relative
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?(?:\([0-9]+\))?")
TYPE_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:[0-9.]*[+-]?|[+-][0-9.]+)")
LABEL = re.compile(r"([A-Z][a-z]?)(?:[^A-Za-z].*)?")
FORMULA = re.compile(r"(?:[A-Z][a-z]?(?:[0-9]*\.)?[0-9]*[\s,]*)+")
FORMULA_TERM = re.compile(r"([A-Z][a-z]?)((?:[0-9]*\.)?[0-9]*)")
GEMMI_PLACE = re.compile(r"^string:([0-9]+)(?::[0-9]+\([0-9]+\))?")
ISOTOPES = {"D": "H", "T": "H"}
# Some generators write a formula with blanks as the name of a block.
NAME_WITH_BLANKS = re.compile(
    r"^([ \t]*data_[^\s]*)[ \t]+(?!_|loop_|save_|data_)[^\s#'\";][^\r\n]*", re.I | re.M
)
# Loops of names and references, in which quotes are often wrong.
BIBLIOGRAPHY = re.compile(
    r"^[ \t]*loop_\s*\n(?:[ \t]*_(?:publ|journal|citation|audit)_[^\n]*\n)+"
    r"(?:(?![ \t]*(?:_|loop_|data_))[^\n]*\n)*",
    re.I | re.M,
)


class RefusedError(Exception):
    """A CIF is rejected, with its reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def bad(detail: str) -> RefusedError:
    return RefusedError(Reason.BAD_CIF, detail)


class Tags:
    """The values of a block by tag, in lower case and with underscores for the dots of DDLm."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def column(self, key: str) -> list[str]:
        """Every value of a tag, of a loop or alone; empty if the block has none."""
        return self._values.get(key, [])

    def one(self, *keys: str) -> str | None:
        """The first stated value of these tags; None if all are missing, unknown or empty."""
        stated = (v for key in keys for v in self.column(key)[:1] if v.strip() not in NOT_STATED)
        return next(stated, None)


@dataclass(frozen=True)
class CifSite:
    """One listed atom."""

    label: str
    element: str
    frac_coords: tuple[float, float, float]
    # the last digit that is written, of each coordinate; 0 for whole numbers
    precision: tuple[float, float, float]
    multiplicity: float | None  # in the cell, as stated
    order: float | None  # of its site symmetry, as stated

    @property
    def name(self) -> str:
        return f"{shorten(self.label, 20)[1:-1]}"


@dataclass(frozen=True)
class Contents:
    """What a block states about the atoms in its cell."""

    formula: str | None  # as written
    formula_amounts: Mapping[str, float]  # empty if no formula can be read
    units: float | None  # formula units in the cell
    in_cell: Mapping[str, float] = field(default_factory=dict)  # atoms of listed types
    listed_types: frozenset[str] = frozenset()  # their elements


def parse_block(text: str) -> Tags:
    """The tags of a text with one data block. Raises RefusedError."""
    import gemmi

    # names of authors do not matter; any other character beyond ASCII becomes an error below
    plain = NAME_WITH_BLANKS.sub(r"\1", text.encode("ascii", "replace").decode(), count=1)
    try:
        document = gemmi.cif.read_string(plain)
    except (ValueError, RuntimeError) as error:
        without = BIBLIOGRAPHY.sub("", plain)
        try:
            document = gemmi.cif.read_string(without)
        except (ValueError, RuntimeError):
            found = GEMMI_PLACE.sub(r"line \1", str(error))
            raise bad(f"not CIF: {shorten(found, 160)}") from error
    if len(document) != 1:
        raise bad(f"{len(document)} data blocks where one was expected")
    values: dict[str, list[str]] = {}
    block: Any = document[0]  # gemmi's types do not know its items
    for item in block:
        if item.pair is not None:
            _add(values, item.pair[0], [item.pair[1]])
        elif item.loop is not None:
            width = item.loop.width()
            for i, tag in enumerate(item.loop.tags):
                _add(values, tag, item.loop.values[i::width])
    return Tags(values)


def _add(values: dict[str, list[str]], tag: str, raw: list[str]) -> None:
    import gemmi

    key = tag.lower().replace(".", "_")
    found = [value if value in NOT_STATED else gemmi.cif.as_string(value) for value in raw]
    if values.setdefault(key, found) != found:
        raise bad(f"{shorten(key)} is given twice, with different values")


def read_cell(tags: Tags) -> tuple[list[float], np.ndarray]:
    """The six parameters of the cell and its (3, 3) lattice in Å, after a check of its volume."""
    if missing := [key for key in CELL_KEYS if not tags.column(key)]:
        raise bad(f"{', '.join(missing)} not given")
    cell = [number(key, tags.column(key)[0]) for key in CELL_KEYS]
    try:
        lattice = lattice_matrix(cell[:3], cell[3:])
    except ValueError as error:
        raise RefusedError(Reason.IMPOSSIBLE_CELL, str(error)) from error
    stated = tags.one("_cell_volume")
    if stated and (fault := volume_fault(number("_cell_volume", stated), lattice)):
        raise bad(fault)
    return cell, lattice


def volume_fault(stated_a3: float, lattice: np.ndarray) -> str | None:
    """Where a stated volume disagrees with a (3, 3) lattice in Å; None if it agrees."""
    volume = abs(float(np.linalg.det(lattice)))
    if abs(stated_a3 - volume) <= SAME_VOLUME * volume:
        return None
    return f"_cell_volume is {stated_a3:.6g}, lengths and angles give {volume:.6g}"


def read_sites(tags: Tags, max_sites: int) -> list[CifSite]:
    """The listed atoms. Raises RefusedError for an incomplete, partial or alternative one."""
    labels = tags.column("_atom_site_label")
    if not labels:
        raise RefusedError(Reason.NO_SITES, "no loop of atom sites with _atom_site_label")
    if len(labels) > max_sites:
        raise RefusedError(Reason.TOO_LARGE, f"{len(labels)} listed sites, limit {max_sites}")
    _check_occupation(tags)
    axes = [_coordinates(tags, axis, len(labels)) for axis in "xyz"]
    types = tags.column("_atom_site_type_symbol") or ["?"] * len(labels)
    multiplicities = _stated_numbers(tags, MULTIPLICITY_KEYS, len(labels))
    orders = _stated_numbers(tags, (ORDER_KEY,), len(labels))
    sites = []
    for i, label in enumerate(labels):
        x, y, z = (axis[i] for axis in axes)
        element = _element(types[i] if i < len(types) else "?", label)
        sites.append(
            CifSite(
                label,
                element,
                (x[0], y[0], z[0]),
                (x[1], y[1], z[1]),
                multiplicities[i],
                orders[i],
            )
        )
    return sites


def read_contents(tags: Tags) -> Contents:
    """The formula, the number of its units and the atom types that a block states."""
    stated = [(key, tags.one(key)) for key in FORMULA_KEYS]
    readable = [(text, a) for _, text in stated if text and (a := stated_amounts(text))]
    formula, amounts = readable[0] if readable else (None, {})
    units = tags.one("_cell_formula_units_z")
    # pymatgen writes 0 for half a molecule in the cell
    count = number("_cell_formula_units_Z", units) or None if units else None
    if count is not None and count < 0:
        raise bad(f"_cell_formula_units_Z is {units}")
    symbols = [_type_element(symbol) for symbol in tags.column("_atom_type_symbol")]
    numbers = tags.column("_atom_type_number_in_cell")
    in_cell: Counter[str] = Counter()
    for symbol, value in zip(symbols, numbers, strict=False):
        if symbol and value not in NOT_STATED:
            in_cell[symbol] += number("_atom_type_number_in_cell", value)  # type: ignore[assignment]
    return Contents(formula, amounts, count, in_cell, frozenset(s for s in symbols if s))


def stated_amounts(text: str) -> dict[str, float]:
    """Amounts in a formula of symbols and numbers; empty for text that is none.

    More lenient than `hullward.models.formulas`: D is H, and a leading point needs no zero.
    """
    if len(text) > 1000 or not FORMULA.fullmatch(text.strip()):
        return {}
    amounts: dict[str, float] = {}
    for symbol, amount in FORMULA_TERM.findall(text):
        element = ISOTOPES.get(symbol, symbol)
        if element not in ELEMENTS or amount == ".":
            return {}
        amounts[element] = amounts.get(element, 0.0) + (float(amount) if amount else 1.0)
    return {element: amount for element, amount in amounts.items() if amount > 0}


def number(key: str, value: str) -> float:
    """A finite number, without its uncertainty in parentheses."""
    if not NUMBER.fullmatch(value):
        raise bad(f"{key} is {shorten(value)}, not a number")
    found = float(value.partition("(")[0])
    if not math.isfinite(found):
        raise bad(f"{key} is {shorten(value)}, not finite")
    return found


def _coordinates(tags: Tags, axis: str, count: int) -> list[tuple[float, float]]:
    """Each site's coordinate along an axis, with the value of its last digit."""
    key = f"_atom_site_fract_{axis}"
    values = tags.column(key)
    if len(values) != count:
        raise bad(f"{key} is not given for each site")
    found = []
    for value in values:
        x = number(key, value)
        if abs(x) > MAX_FRACTION:
            raise bad(f"{key} is {value}")
        digits, _, exponent = value.partition("(")[0].lower().partition("e")
        decimals = len(digits.partition(".")[2]) - int(exponent or 0)
        found.append((x, 10.0**-decimals if decimals > 0 else 0.0))
    return found


def _check_occupation(tags: Tags) -> None:
    """Require that each site is one atom. '.' and '?' mean 1, the dictionary's default."""
    for value in tags.column("_atom_site_occupancy"):
        if value not in NOT_STATED and number("_atom_site_occupancy", value) != 1:
            raise RefusedError(Reason.DISORDERED, f"occupancy {shorten(value)}")
    groups = tags.column("_atom_site_disorder_group")
    assemblies = tags.column("_atom_site_disorder_assembly") or ["."] * len(groups)
    found: dict[str, set[str]] = {}
    for assembly, group in zip(assemblies, groups, strict=False):
        if group not in (*NOT_STATED, "0"):
            found.setdefault(assembly, set()).add(group)
    for alternatives in found.values():
        if len(alternatives) > 1 or any(group.startswith("-") for group in alternatives):
            names = ", ".join(sorted(alternatives)[:6])
            raise RefusedError(Reason.DISORDERED, f"alternative sites: disorder groups {names}")
    if "dum" in (flag.lower() for flag in tags.column("_atom_site_calc_flag")):
        raise bad("a site is marked as dummy (_atom_site_calc_flag dum)")
    for value in tags.column(HYDROGENS_KEY):
        if value not in NOT_STATED and number(HYDROGENS_KEY, value) != 0:
            raise bad("hydrogen atoms without positions")


def _element(type_symbol: str, label: str) -> str:
    form, name = (LABEL, label) if type_symbol in NOT_STATED else (TYPE_SYMBOL, type_symbol)
    match = form.fullmatch(name)
    if match is None or match[1] not in ELEMENTS:
        raise RefusedError(Reason.UNKNOWN_ELEMENT, f"{shorten(name)} is no element")
    return match[1]


def _type_element(symbol: str) -> str | None:
    """The element of an atom type; None for scattering factors of anything else."""
    match = TYPE_SYMBOL.fullmatch(symbol)
    element = ISOTOPES.get(match[1], match[1]) if match else None
    return element if element in ELEMENTS else None


def _stated_numbers(tags: Tags, keys: tuple[str, ...], count: int) -> list[float | None]:
    """One number a site of the first of these tags; None where none is stated."""
    for key in keys:
        if len(values := tags.column(key)) == count:
            return [None if v in NOT_STATED else number(key, v) for v in values]
    return [None] * count
