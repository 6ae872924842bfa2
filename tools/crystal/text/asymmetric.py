"""Form B of crystal text: the asymmetric unit, shorter than a cell and symmetric by construction.

    62                                      space group number
    Li 4 4a                                 element, its number in the conventional cell, then its
    Fe 4 4c 0.28 0.97                       Wyckoff positions, each followed by its free coordinates
    P 4 4c 0.09 0.42
    O 16 4c 0.10 0.74 4c 0.46 0.21 8d 0.17 0.05 0.28
    10.4 6.0 4.7                            the free lengths in Å and angles in degrees

The text holds only what symmetry leaves free: `hullward.models.wyckoff` defines the settings,
positions and free coordinates; the last line has those of a b c α β γ that do not follow from the
crystal system. Number formats are those of form A (`hullward.tools.crystal.text.cell`), read as
strictly.

Reading accepts or rejects; it never repairs. It rejects a number of atoms that is not the sum of
its positions, an element named twice, a position without free coordinates that is taken twice, and
coordinates that fall on a point of higher symmetry. It returns the primitive cell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hullward.models import wyckoff
from hullward.models.crystal import Crystal, lattice_matrix
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.input_checks import MAX_SITES, shorten
from hullward.tools.crystal.text.cell import lines_of, wrong
from hullward.tools.records import Flaw, Reason

# Hundredths in the text, twenty-fourths in the tables: all coordinates are multiples of 1/PARTS.
PARTS = 2400

_NUMBER = re.compile(r"[1-9][0-9]{0,2}")
_FRACTION = re.compile(r"0\.[0-9]{2}")
_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,2})\.[0-9]")
_POSITION = re.compile(r"[1-9][0-9]{0,2}[a-zA]")
_SITES_LINE = re.compile(r"[A-Z][a-z]? ")


@dataclass(frozen=True)
class Orbit:
    """One Wyckoff position that one element occupies; free coordinates in hundredths."""

    element: str
    position: str  # e.g. '4c'
    free_hundredths: tuple[int, ...]


@dataclass(frozen=True)
class AsymmetricUnit:
    """A crystal as in its text. parameters: the free lengths (Å) and angles (degrees)."""

    space_group: int
    orbits: tuple[Orbit, ...]
    parameters: tuple[float, ...]

    def to_crystal(self) -> Crystal:
        """The primitive cell.

        Raises ValueError for an impossible cell or sites on a position of higher symmetry.
        """
        matrix = full_cell(self.space_group, self.parameters)
        species: list[str] = []
        points: list[np.ndarray] = []
        for orbit in self.orbits:
            found = orbit_points(self.space_group, orbit)
            points.append(found / PARTS)
            species += [orbit.element] * len(found)
        return _primitive(self.space_group, matrix, species, np.concatenate(points))


def parse_asymmetric_text(text: str) -> Crystal | Flaw:
    """The primitive cell that a text describes, or its first flaw."""
    unit = parse_unit(text)
    if isinstance(unit, Flaw):
        return unit
    try:
        return unit.to_crystal()
    except ValueError as error:
        return Flaw(reason=Reason.IMPOSSIBLE_CELL, detail=str(error))


def parse_unit(text: str) -> AsymmetricUnit | Flaw:
    """The asymmetric unit in a text, unchanged, or the first flaw."""
    lines = lines_of(text)
    if isinstance(lines, Flaw):
        return lines
    if not _NUMBER.fullmatch(lines[0]) or int(lines[0]) > 230:
        return wrong(Reason.BAD_SPACE_GROUP, lines, 0, "a space group number, 1 to 230")
    space_group = int(lines[0])
    sites = 1
    while sites < len(lines) and _SITES_LINE.match(lines[sites]):
        sites += 1
    orbits: list[Orbit] = []
    for at in range(1, sites):
        found = _site_line(space_group, lines, at)
        if isinstance(found, Flaw):
            return found
        if found[0].element in {orbit.element for orbit in orbits}:
            return wrong(Reason.BAD_ELEMENT_LINE, lines, at, "an element not named before")
        orbits += found
    if flaw := _orbits_flaw(space_group, orbits):
        return flaw
    if sites == len(lines):
        return Flaw(reason=Reason.TRUNCATED, detail="the text ends before the cell's parameters")
    parameters = _parameters(space_group, lines[sites])
    if parameters is None:
        names = wyckoff.CELL_PARAMETERS[wyckoff.cell_system(space_group)]
        wanted = f"{' '.join(names)} of the cell"
        cut_short = orbits and sites == len(lines) - 1
        return wrong(Reason.TRUNCATED if cut_short else Reason.BAD_LENGTHS, lines, sites, wanted)
    if len(lines) > sites + 1:
        return wrong(Reason.TRAILING_TEXT, lines, sites + 1, "nothing after the cell's parameters")
    return AsymmetricUnit(space_group, tuple(orbits), parameters)


def write_asymmetric_text(unit: AsymmetricUnit) -> str:
    """The text of a unit, without a final newline; `parse_unit` reads it back.

    Raises ValueError for crystals that the form cannot represent.
    """
    lines = [str(unit.space_group)]
    table = wyckoff.positions(unit.space_group)
    for element in dict.fromkeys(orbit.element for orbit in unit.orbits):
        own = [orbit for orbit in unit.orbits if orbit.element == element]
        words = [element, str(sum(table[orbit.position].multiplicity for orbit in own))]
        for orbit in own:
            words += [orbit.position, *(f"{n / 100:.2f}" for n in orbit.free_hundredths)]
        lines.append(" ".join(words))
    names = wyckoff.CELL_PARAMETERS[wyckoff.cell_system(unit.space_group)]
    lines.append(
        " ".join(
            f"{x:.1f}" if len(name) == 1 else str(round(x))
            for name, x in zip(names, unit.parameters, strict=True)
        )
    )
    text = "\n".join(lines)
    found = parse_asymmetric_text(text)
    if isinstance(found, Flaw):
        raise ValueError(f"form B cannot represent this crystal: {found.detail}")
    return text


def full_cell(space_group: int, parameters: Sequence[float]) -> np.ndarray:
    """(3, 3) Å from the free parameters. Raises ValueError for an impossible cell."""
    system = wyckoff.cell_system(space_group)
    cell = dict(zip(wyckoff.CELL_PARAMETERS[system], parameters, strict=True))
    lengths = [cell["a"], cell.get("b", cell["a"]), cell.get("c", cell["a"])]
    gamma = cell.get("gamma", 120.0 if system == "hexagonal" else 90.0)
    return lattice_matrix(lengths, [cell.get("alpha", 90.0), cell.get("beta", 90.0), gamma])


def orbit_points(space_group: int, orbit: Orbit) -> np.ndarray:
    """(multiplicity, 3) whole numbers of 1/PARTS: the points of an orbit in the conventional cell.

    Raises ValueError if they are fewer, because the coordinates have a higher symmetry.
    """
    position = wyckoff.positions(space_group)[orbit.position]
    values = np.zeros(3, dtype=int)
    values[list(position.free)] = orbit.free_hundredths
    first = position.linear @ values * (PARTS // 100) + np.rint(position.shift * PARTS).astype(int)
    rotations, translations = wyckoff.operations(space_group)
    images = rotations @ first + np.rint(translations * PARTS).astype(int)
    points = np.unique(images % PARTS, axis=0)
    if len(points) != position.multiplicity:
        raise ValueError(
            f"{orbit.element} at {orbit.position} gives {len(points)} sites: "
            "its coordinates have a higher symmetry"
        )
    return points


def _site_line(space_group: int, lines: list[str], at: int) -> list[Orbit] | Flaw:
    words = lines[at].split(" ")
    if words[0] not in ELEMENTS:
        return wrong(Reason.UNKNOWN_ELEMENT, lines, at, "an element")
    if len(words) < 3 or not _NUMBER.fullmatch(words[1]):
        return wrong(Reason.BAD_ELEMENT_LINE, lines, at, "element, number and positions")
    table = wyckoff.positions(space_group)
    orbits: list[Orbit] = []
    left = words[2:]
    total = 0
    while left:
        position = table.get(left[0])
        if position is None or not _POSITION.fullmatch(left[0]):
            wanted = (
                f"a Wyckoff position of space group {space_group} instead of {shorten(left[0])}"
            )
            return wrong(Reason.BAD_ELEMENT_LINE, lines, at, wanted)
        n_free = len(position.free)
        values = left[1 : 1 + n_free]
        if len(values) < n_free or not all(map(_FRACTION.fullmatch, values)):
            wanted = f"{n_free} fractions after {left[0]}"
            return wrong(Reason.BAD_COORDINATE_LINE, lines, at, wanted)
        hundredths = tuple(int(value[2:]) for value in values)
        orbits.append(Orbit(words[0], left[0], hundredths))
        total += position.multiplicity
        left = left[1 + n_free :]
    if total != int(words[1]):
        wanted = f"positions for {words[1]} atoms (these make {total})"
        return wrong(Reason.BAD_ELEMENT_LINE, lines, at, wanted)
    return orbits


def _orbits_flaw(space_group: int, orbits: list[Orbit]) -> Flaw | None:
    """The flaw of no sites, too many, or a point taken twice."""
    if not orbits:
        return Flaw(reason=Reason.NO_SITES, detail="no site line after the space group")
    table = wyckoff.positions(space_group)
    n_sites = sum(table[orbit.position].multiplicity for orbit in orbits)
    if n_sites > MAX_SITES:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{n_sites} sites, limit {MAX_SITES}")
    fixed = [orbit.position for orbit in orbits if not orbit.free_hundredths]
    if twice := next((name for name in fixed if fixed.count(name) > 1), None):
        detail = f"position {twice} has no free coordinate but is taken twice"
        return Flaw(reason=Reason.BAD_ELEMENT_LINE, detail=detail)
    return None


def _parameters(space_group: int, line: str) -> tuple[float, ...] | None:
    names = wyckoff.CELL_PARAMETERS[wyckoff.cell_system(space_group)]
    words = line.split(" ")
    if len(words) != len(names):
        return None
    for name, word in zip(names, words, strict=True):
        if not (_LENGTH if len(name) == 1 else _NUMBER).fullmatch(word):
            return None
    return tuple(map(float, words))


def _primitive(
    space_group: int, matrix: np.ndarray, species: list[str], points: np.ndarray
) -> Crystal:
    """The primitive cell of a conventional one; `points` are exact fractions of the latter."""
    basis = wyckoff.primitive_basis(space_group)
    inside = points @ np.linalg.inv(basis)
    keys = np.rint(inside * PARTS * 2).astype(int) % (PARTS * 2)
    kinds = np.array(species)
    order = list(dict.fromkeys(species))
    columns = np.column_stack([[order.index(kind) for kind in kinds], keys])
    _, first = np.unique(columns, axis=0, return_index=True)
    first = first[np.argsort(first)]
    coords = keys[first] / (PARTS * 2)
    return Crystal.from_arrays(basis @ matrix, [species[i] for i in first], coords)
