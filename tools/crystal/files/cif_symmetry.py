"""The symmetry of a CIF block: its operators, or the settings of a group that it names.

A name does not always fix the operators: some groups have two choices of the origin, rhombohedral
ones two choices of axes. Then all of them are returned, and what the block states about its atoms
decides (`hullward.tools.crystal.files.cif_crystal`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from hullward.tools.crystal.files.cif_block import RefusedError, Tags, bad
from hullward.tools.crystal.input_checks import shorten
from hullward.tools.records import Reason

if TYPE_CHECKING:
    import gemmi

OPERATOR_KEYS = [
    f"{key}{end}"
    for key in ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
    for end in ("", "_")
]
NAME_KEYS = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
    "_space_group_name_h-m",
    "_symmetry_space_group_name_h-m_full",
)
HALL_KEYS = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
NUMBER_KEYS = ("_space_group_it_number", "_symmetry_int_tables_number")
CODE_KEY = "_space_group_it_coordinate_system_code"
STATES_SYMMETRY = re.compile("_(space_group|symmetry)_.*(name|number|symop|equiv|operation)")
MAGNETIC = re.compile("magn|_ssg_|_cell_modulation_|_cell_wave_vector")
_TERM = r"(?:[0-9]+/[0-9]+|[0-9]*\.?[0-9]+|[xyz])"
OPERATOR = re.compile(rf"[+-]?{_TERM}(?:[+-]{_TERM})*")
SIGNED_TERM = re.compile(rf"([+-]?)({_TERM})")
# Marks behind a name: origin choices as :1 or S or O1, axes as :H or H or HS.
MARK = re.compile(r"^(.*?[^\s:]) *(?::| )? *(1|2|S|Z|O1|O2|H|R|HS|RS|HR)$")
MARKS = {"1": "1", "S": "1", "O1": "1", "2": "2", "Z": "2", "O2": "2",
         "H": "H", "HS": "H", "HR": "H", "R": "R", "RS": "R"}  # fmt: skip
MARKS_IN_WORDS = {
    "origin choice 1": ":1", "origin choice 2": ":2",
    "hexagonal axes": ":H", "rhombohedral axes": ":R",
}  # fmt: skip
TWENTY_FOURTHS = 24
STEPS = 1000
HALL_SYMBOLS = 530
DIGITS_LOST = 2e-3  # of a translation written as 0.333
CELL_TOLERANCE = 0.02  # of a length squared


@dataclass(frozen=True)
class Setting:
    """The operators of a group in one setting: images of x are rotations @ x + translations."""

    name: str
    rotations: np.ndarray  # (n, 3, 3)
    translations: np.ndarray  # (n, 3), in [0, 1)

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def is_identity(self) -> bool:
        return len(self) == 1

    def keys(self) -> np.ndarray:
        """(n, 12) whole numbers, equal for operators that are equal up to a lattice."""
        return np.hstack([self.rotations.reshape(-1, 9).astype(int), _places(self.translations)])

    def fits(self, lattice: np.ndarray) -> bool:
        """Whether every rotation keeps the lengths and angles of a (3, 3) lattice in Å."""
        metric = lattice @ lattice.T
        turned = np.einsum("nji,jk,nkl->nil", self.rotations, metric, self.rotations)
        sizes = np.sqrt(np.outer(metric.diagonal(), metric.diagonal()))
        return bool((np.abs(turned - metric) <= CELL_TOLERANCE * sizes).all())


@dataclass(frozen=True)
class Symmetry:
    """The settings that a block leaves possible, and why they are in doubt, if they are."""

    settings: tuple[Setting, ...]
    doubt: str | None = None
    named: tuple[Setting, ...] = ()  # other settings of the listed group, by the stated name


P1 = Setting("P 1", np.eye(3)[None], np.zeros((1, 3)))


def read_symmetry(tags: Tags, cell: Sequence[float], max_operators: int) -> Symmetry:
    """The settings that fit the operators, names and number of a block.

    Raises RefusedError for operators that form no group, and for a group that is not known or is
    named in contradiction.
    """
    if any(MAGNETIC.search(key) for key in tags):
        raise bad("magnetic or modulated CIF: give the nuclear, unmodulated structure")
    listed = _listed(tags, max_operators)
    named = _named(tags, cell)
    if listed is None or not named:
        named = _by_hall(tags.one(*HALL_KEYS), named)
    stated = tags.one(*NAME_KEYS, *HALL_KEYS, *NUMBER_KEYS)
    if listed is None:
        if named:
            return Symmetry(tuple(named))
        if stated is not None:
            raise bad(f"unknown space group {shorten(stated)}")
        if other := [key for key in tags if STATES_SYMMETRY.match(key) and tags.one(key)]:
            raise bad(
                f"the symmetry is stated only as {shorten(other[0])}; give a name or operators"
            )
        return Symmetry((P1,))
    if not named:
        unnamed = stated is not None and listed.is_identity
        doubt = f"the only operator is the identity, the space group is {shorten(str(stated))}"
        return Symmetry((listed,), doubt if unnamed else None)
    group, expected = _number(listed), _number(named[0])
    if group == expected:
        return Symmetry((listed,), named=tuple(named))
    doubt = f"{len(listed)} operators of group {group}, but {named[0].name} is group {expected}"
    orders = sorted({len(setting) for setting in named})
    if len(listed) not in orders:
        needed = " or ".join(map(str, orders))
        doubt = f"operators listed: {len(listed)}, of {named[0].name}: {needed}"
    return Symmetry((listed, *named) if listed.is_identity else (listed,), doubt)


def _listed(tags: Tags, max_operators: int) -> Setting | None:
    """The operators of the list, which must form a group; None if there is no list."""
    found = []
    for key in OPERATOR_KEYS:
        texts = [text for text in tags.column(key) if text not in ("?", ".")]
        if len(texts) > max_operators:
            detail = f"{len(texts)} symmetry operators, limit {max_operators}"
            raise RefusedError(Reason.TOO_LARGE, detail)
        if texts:
            found.append(_group(texts))
    if len(found) > 1 and {*map(tuple, found[0].keys())} != {*map(tuple, found[1].keys())}:
        raise bad(f"two lists of operators disagree, of {len(found[0])} and {len(found[1])}")
    return found[0] if found else None


def _group(texts: Sequence[str]) -> Setting:
    """The group of listed operators. Raises RefusedError if they are none."""
    parsed = [_operator(text) for text in texts]
    rotations, translations = (np.array(parts) for parts in zip(*parsed, strict=True))
    setting = Setting("the listed operators", rotations, translations)
    first = np.sort(np.unique(setting.keys(), axis=0, return_index=True)[1])
    setting = Setting(setting.name, rotations[first], translations[first])
    if not (setting.keys() == P1.keys()).all(axis=1).any():
        raise bad(f"the identity is missing from the list of operators, {len(texts)} long")
    if not _closed(setting):
        raise bad(
            f"{len(setting)} operators form no group: the product of two of them is not listed"
        )
    return setting


def _operator(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The (3, 3) rotation and (3,) translation of 'x, -y, z+1/2'."""
    parts = "".join(text.lower().split()).split(",")
    if len(text) > 100 or len(parts) != 3 or not all(map(OPERATOR.fullmatch, parts)):
        raise bad(f"{shorten(text)} is not a symmetry operator")
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    for row, part in enumerate(parts):
        for sign, term in SIGNED_TERM.findall(part):
            factor = -1 if sign == "-" else 1
            if term in "xyz":
                rotation[row, "xyz".index(term)] += factor
            else:
                try:
                    translation[row] += factor * float(Fraction(term))
                except ZeroDivisionError:
                    raise bad(f"{shorten(text)} is not a symmetry operator") from None
    if abs(abs(np.linalg.det(rotation)) - 1) > 1e-6:
        raise bad(f"{shorten(text)} does not preserve volume")
    parts_of_24 = np.round(translation * TWENTY_FOURTHS) / TWENTY_FOURTHS
    near = np.abs(parts_of_24 - translation) < DIGITS_LOST
    return rotation, np.where(near, parts_of_24, translation) % 1.0


def _places(translations: np.ndarray) -> np.ndarray:
    """(..., 3) translations as whole numbers of STEPS, equal if they are equal up to a lattice."""
    # the offset keeps every multiple of 1/24 away from the edges between numbers
    return np.floor(translations * STEPS + 0.37).astype(int) % STEPS


def _closed(setting: Setting) -> bool:
    """Whether every product of two operators is one of them."""
    kinds, kind = np.unique(setting.rotations.reshape(-1, 9), axis=0, return_inverse=True)
    kind = kind.ravel()
    index = {tuple(row): i for i, row in enumerate(kinds.astype(int).tolist())}
    turned = np.einsum("aij,bjk->abik", *[kinds.reshape(-1, 3, 3)] * 2).reshape(-1, 9)
    table = [index.get(tuple(row), -1) for row in turned.astype(int).tolist()]
    if -1 in table:
        return False
    product = np.array(table).reshape(len(kinds), -1)[kind[:, None], kind]
    shifts = np.einsum("aij,bj->abi", setting.rotations, setting.translations)
    shifts += setting.translations[:, None]
    weights = np.array([STEPS**2, STEPS, 1])
    known = kind * STEPS**3 + _places(setting.translations) @ weights
    return bool(np.isin(product * STEPS**3 + _places(shifts) @ weights, known).all())


def _number(setting: Setting) -> int | None:
    """The number of the group in the International Tables."""
    import spglib

    rotations = setting.rotations.astype("intc")
    found = spglib.get_spacegroup_type_from_symmetry(rotations, setting.translations % 1.0)
    return None if found is None else int(found.number)


def _named(tags: Tags, cell: Sequence[float]) -> list[Setting]:
    """The settings that name and number leave; empty if none is stated or known."""
    name, number = tags.one(*NAME_KEYS), tags.one(*NUMBER_KEYS)
    by_number = _by_number(number)
    for other in filter(None, (tags.one(key) for key in NAME_KEYS)):
        for group in _by_name(other, cell)[:1]:
            if by_number and group.number != by_number[0].number:
                raise bad(f"{shorten(other)} is group {group.number}, stated is {number}")
            by_number = by_number or [group]
    groups = _by_number(number) if name is None else _by_name(name, cell)
    code = (tags.one(CODE_KEY) or "").upper()
    groups = [g for g in groups if _extension(g) == code] or groups
    return [_setting(group.xhm(), group.operations()) for group in groups]


def _by_hall(hall: str | None, named: list[Setting]) -> list[Setting]:
    """The setting of a Hall name, which must be of the named group; as named if there is none."""
    import gemmi

    if hall is None:
        return named
    try:
        setting = _setting(f"Hall {hall}", gemmi.symops_from_hall(hall.replace("_", " ")))
    except (RuntimeError, ValueError):
        return named
    if named and _number(setting) != _number(named[0]):
        raise bad(
            f"Hall name {shorten(hall)} is of group {_number(setting)}, {named[0].name} is group "
            f"{_number(named[0])}"
        )
    return [setting]


def _by_name(name: str | None, cell: Sequence[float]) -> list[gemmi.SpaceGroup]:
    """The settings of a Hermann-Mauguin name: one, or one for each origin or choice of axes."""
    if name is None:
        return []
    for words, mark in MARKS_IN_WORDS.items():
        name = re.sub(rf"[\[(]?\b{words}\b[\])]?", mark, name, flags=re.I)
    plain = re.sub(r"[~_(){}$]|<su[bp]>|</su[bp]>", "", re.sub(r"_(?=-|[a-zA-Z])", " ", name))
    plain = " ".join(plain.strip("'\" ").split())
    found = _find(plain, cell)
    mark = ""
    if match := MARK.match(plain):
        marked = _find(match[1], cell)
        choices = {_extension(g) for g in _same_name(marked)} if marked else set()
        if MARKS[match[2]] in choices - {""}:
            found, mark = marked, MARKS[match[2]]
    if found is None:
        return []
    return [g for g in _same_name(found) if mark in ("", _extension(g))]


def _find(name: str, cell: Sequence[float]) -> gemmi.SpaceGroup | None:
    """The group of a short or full name; the angles of the cell choose a unique axis."""
    import gemmi

    alpha, gamma = cell[3], cell[5]
    found = gemmi.find_spacegroup_by_name(name, alpha, gamma)
    if found is None and (short := _short_names().get(name.replace(" ", ""))):
        found = gemmi.find_spacegroup_by_name(short, alpha, gamma)
    return found


@cache
def _short_names() -> dict[str, str]:
    """Short names by full ones without blanks: 'P21/n21/m21/a' is 'P n m a'."""
    import moyopy

    entries = [moyopy.HallSymbolEntry(number) for number in range(1, HALL_SYMBOLS + 1)]
    plain = [(e.hm_full.replace("_", ""), e.hm_short.replace("_", "")) for e in entries]
    return {full.replace(" ", ""): short for full, short in plain}


def _same_name(group: gemmi.SpaceGroup) -> list[gemmi.SpaceGroup]:
    """The group's settings that differ only in origin or in rhombohedral and hexagonal axes."""
    import gemmi

    return [g for g in gemmi.spacegroup_table() if g.hm == group.hm]


def _by_number(number: str | None) -> list[gemmi.SpaceGroup]:
    """The standard settings of a number in the International Tables."""
    import gemmi

    if number is None or not re.fullmatch(r"[0-9]{1,3}", number.strip()):
        return []
    found = gemmi.find_spacegroup_by_number(int(number))
    return [] if found is None else _same_name(found)


def _extension(group: gemmi.SpaceGroup) -> str:
    return str(group.ext).strip("\0 ")


def _setting(name: str, operations: gemmi.GroupOps) -> Setting:
    import gemmi

    pairs = [(np.array(op.rot), np.array(op.tran)) for op in operations]
    rotations = np.array([r for r, _ in pairs]) / gemmi.Op.DEN
    return Setting(name, rotations, np.array([t for _, t in pairs]) / gemmi.Op.DEN % 1.0)
