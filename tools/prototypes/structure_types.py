"""Decide whether two crystals have the same structure type, whatever their elements.

The type class is the space group with the multiplicity and free coordinates of every element's
Wyckoff positions; it does not depend on origin, setting or names. Two crystals of one class have
the same type if StructureMatcher matches them after an exchange of elements
(`hullward.tools.crystal.anonymous_match`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from string import ascii_uppercase

from hullward.models.crystal import Crystal
from hullward.tools.crystal import AnonymousFormula, PrototypeLibrary, space_group
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    asymmetric_unit,
    parse_asymmetric_text,
    write_asymmetric_text,
)
from hullward.tools.records import Flaw

# For each element the (multiplicity, number of free coordinates) of its orbits, sorted.
Orbits = tuple[tuple[tuple[int, int], ...], ...]
SYMPREC_A = 0.1  # for proposed or relaxed crystals
EXACT_A = 0.01  # for crystals read from text


@dataclass(frozen=True)
class TypeClass:
    """What two crystals of one type must have in common before they are superposed."""

    space_group: int
    orbits: Orbits

    @property
    def anonymous(self) -> AnonymousFormula:
        """Smallest whole amounts, ascending: (1, 1, 3) of a perovskite."""
        counts = [sum(multiplicity for multiplicity, _ in own) for own in self.orbits]
        units = gcd(*counts)
        return tuple(sorted(n // units for n in counts))

    @property
    def words(self) -> str:
        """The orbits as text: '1.1.3' has one orbit per element, '2+4' two of one element."""
        return ".".join(
            "+".join(str(multiplicity) for multiplicity, _ in own) for own in self.orbits
        )


@dataclass(frozen=True)
class TypedCrystal:
    """A crystal with its symmetry, as the text of its asymmetric unit gives it."""

    text: str
    crystal: Crystal  # the primitive cell
    of_class: TypeClass


class TypeLibrary:
    """Structure types by name, in which the type of a crystal is searched."""

    def __init__(self, entries: Iterable[tuple[str, Crystal, TypeClass]] = ()) -> None:
        self._classes: dict[TypeClass, PrototypeLibrary] = {}
        self._size = 0
        for name, crystal, of_class in entries:
            self.add(name, crystal, of_class)

    def __len__(self) -> int:
        return self._size

    def add(self, name: str, crystal: Crystal, of_class: TypeClass) -> None:
        self._classes.setdefault(of_class, PrototypeLibrary()).add(name, crystal)
        self._size += 1

    def find(self, crystal: Crystal, of_class: TypeClass) -> str | None:
        """The name of the crystal's type; None if the library lacks it."""
        known = self._classes.get(of_class)
        match = known.nearest(crystal) if known is not None else None
        return match.match_id if match is not None else None


def type_class(unit: AsymmetricUnit) -> TypeClass:
    """The class of a crystal from its asymmetric unit."""
    own: dict[str, list[tuple[int, int]]] = {}
    for orbit in unit.orbits:
        position = (int(orbit.position[:-1]), len(orbit.free_hundredths))
        own.setdefault(orbit.element, []).append(position)
    return TypeClass(unit.space_group, tuple(sorted(tuple(sorted(o)) for o in own.values())))


def typed_crystal(crystal: Crystal) -> TypedCrystal | None:
    """A crystal with its symmetry; None if none is found or the text cannot represent it.

    The crystal of the text has exactly the space group that the text names, at EXACT_A.
    """
    try:
        unit = asymmetric_unit(crystal, SYMPREC_A)
        text = write_asymmetric_text(unit)
    except (ValueError, KeyError):
        return None
    read = parse_asymmetric_text(text)
    if isinstance(read, Flaw) or space_group(read, EXACT_A) != unit.space_group:
        return None
    return TypedCrystal(text, read, type_class(unit))


def anonymous_letters(anonymous: AnonymousFormula) -> str:
    """An anonymous formula in letters.

    >>> anonymous_letters((1, 1, 3))
    'ABC3'
    """
    return "".join(f"{ascii_uppercase[k]}{n if n > 1 else ''}" for k, n in enumerate(anonymous))
