"""When two crystals are of one structure type, whatever their elements.

A class is a space group with the multiplicity and freedom of every element's Wyckoff positions; it
does not depend on origin, setting or names. Within a class an exchange of elements must make
StructureMatcher join the two (`hullward.tools.crystal.anonymous_match`). Another symmetry is another type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from string import ascii_uppercase

from hullward.models.crystal import Crystal
from hullward.tools.crystal import Anonymous, PrototypeLibrary, space_group
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    asymmetric_unit,
    parse_asymmetric_text,
    write_asymmetric_text,
)
from hullward.tools.records import Flaw

# Of each element the (multiplicity, free coordinates) of its orbits; elements in no order.
Orbits = tuple[tuple[tuple[int, int], ...], ...]
SYMPREC_A = 0.1  # symmetry of what was proposed or relaxed
EXACT_A = 0.01  # symmetry of what was written down


@dataclass(frozen=True)
class TypeClass:
    """What two crystals of one type have in common before they are superposed."""

    space_group: int
    orbits: Orbits

    @property
    def anonymous(self) -> Anonymous:
        """Smallest whole amounts, ascending: (1, 1, 3) of a perovskite."""
        counts = [sum(multiplicity for multiplicity, _ in own) for own in self.orbits]
        units = gcd(*counts)
        return tuple(sorted(n // units for n in counts))

    @property
    def words(self) -> str:
        """The orbits to be read: '1.1.3' is one orbit an element, '2+4' two of one element."""
        return ".".join(
            "+".join(str(multiplicity) for multiplicity, _ in own) for own in self.orbits
        )


@dataclass(frozen=True)
class Typed:
    """A crystal with its symmetry found: the text of its asymmetric unit, and what that says."""

    text: str
    crystal: Crystal  # the primitive cell
    of_class: TypeClass


class Types:
    """Structure types by name, searched for the one a crystal belongs to."""

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
        """The name of the crystal's type; None where it is not in here."""
        known = self._classes.get(of_class)
        kin = known.nearest(crystal) if known is not None else None
        return kin.match_id if kin is not None else None


def type_class(unit: AsymmetricUnit) -> TypeClass:
    """The class of a crystal from its asymmetric unit."""
    own: dict[str, list[tuple[int, int]]] = {}
    for orbit in unit.orbits:
        place = (int(orbit.position[:-1]), len(orbit.free_hundredths))
        own.setdefault(orbit.element, []).append(place)
    return TypeClass(unit.space_group, tuple(sorted(tuple(sorted(o)) for o in own.values())))


def typed(crystal: Crystal) -> Typed | None:
    """Its symmetry and text; None where no symmetry is found or the text cannot hold it.

    What the text says has the space group it names at EXACT_A, no more.
    """
    try:
        unit = asymmetric_unit(crystal, SYMPREC_A)
        text = write_asymmetric_text(unit)
    except (ValueError, KeyError):
        return None
    said = parse_asymmetric_text(text)
    if isinstance(said, Flaw) or space_group(said, EXACT_A) != unit.space_group:
        return None
    return Typed(text, said, type_class(unit))


def letters(anonymous: Anonymous) -> str:
    """An anonymous formula as it is spoken of.

    >>> letters((1, 1, 3))
    'ABC3'
    """
    return "".join(f"{ascii_uppercase[k]}{n if n > 1 else ''}" for k, n in enumerate(anonymous))
