"""Phases that textbooks name, built from their structure type and their elements.

`data/textbook_phases.yaml` lists them by type. Cells are scaled to usual bond lengths, so volumes
are estimates, and free parameters are those of the type's own compound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice, permutations
from math import gcd
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal import bond_scale, parse_formula
from hullward.tools.prototypes.library import (
    Prototype,
    build_type,
    fingerprint,
    make_prototype,
    prototype_library,
)

FILE = "textbook_phases.yaml"
FARTHEST = 12.0  # Mendeleev numbers, in the mean of a formula's elements
DECAY = 3.0  # Mendeleev numbers within which phases count
PHASES_COUNTED = 3  # of a type
_TERM = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True)
class TextbookPhase:
    """A phase, the name of its structure type, and an estimate of its cell."""

    type_name: str
    crystal: Crystal

    @property
    def name(self) -> str:
        return f"{self.crystal.formula}, {self.type_name} type"


def textbook_phases() -> Iterator[TextbookPhase]:
    """Every phase of the list, in its order. Raises InputError for an entry that does not fit."""
    for number, entry in enumerate(_entries()):
        for phase in entry["phases"].split():
            yield _phase(number, _replacements(entry, phase))


def textbook_phases_of(chemsys: str) -> list[TextbookPhase]:
    """The phases of exactly these elements, e.g. of 'Br-Cs'."""
    wanted = set(chemsys.split("-"))
    return [
        _phase(number, _replacements(entry, phase))
        for number, entry in enumerate(_entries())
        for phase in entry["phases"].split()
        if {symbol for symbol, _ in _TERM.findall(phase)} == wanted
    ]


def nearest_types(formula: str, max_atoms: int, most: int) -> list[TextbookPhase]:
    """A formula in the types of the textbook phases that are most like it, nearest first.

    Each element of the formula takes a site of its amount. Likeness is the mean difference of the
    Mendeleev numbers (10.1016/0038-1098(84)90765-8) from the type's nearest phases. Types without
    a phase within FARTHEST are left out.
    """
    target = parse_formula(formula)
    found: list[tuple[float, int, dict[str, str]]] = []
    for number, (symbols, amounts, phases) in enumerate(_decorations()):
        if sorted(amounts) != sorted(target.values()):
            continue
        for chosen in permutations(sorted(target)):
            if any(target[el] != n for el, n in zip(chosen, amounts, strict=True)):
                continue
            here = np.array([_mendeleev(el) for el in chosen])
            far = np.abs(phases - here).mean(axis=1)
            if far.min() <= FARTHEST:
                likeness = float(np.exp(-np.sort(far)[:PHASES_COUNTED] / DECAY).sum())
                found.append((round(likeness, 6), number, dict(zip(symbols, chosen, strict=True))))
    found.sort(key=lambda one: (-one[0], one[1]))
    small = (one for one in found if _prototype(one[1]).n_atoms <= max_atoms)
    distinct: dict[tuple[object, ...], tuple[int, dict[str, str]]] = {}
    for _, number, elements in small:
        distinct.setdefault(_arrangement(number, elements), (number, elements))
    return [_phase(number, elements) for number, elements in islice(distinct.values(), most)]


def _arrangement(number: int, elements: dict[str, str]) -> tuple[object, ...]:
    """A key that is equal for decorations of a type that are related by symmetry."""
    prototype, order = _prototype(number), sorted(elements.values())
    placed = np.array([order.index(elements[symbol]) for symbol in prototype.species])
    return number, fingerprint(placed, prototype.distances)


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    import yaml

    text = (files("hullward.data") / FILE).read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text))


@cache
def _decorations() -> tuple[tuple[list[str], list[int], np.ndarray], ...]:
    """Of each entry the elements of its compound, their amounts, and (phases, elements) numbers."""
    found = []
    for entry in _entries():
        own = [(symbol, int(n or 1)) for symbol, n in _TERM.findall(entry["as"])]
        units = gcd(*(n for _, n in own))
        phases = [[s for s, _ in _TERM.findall(phase)] for phase in entry["phases"].split()]
        numbers = np.array([[_mendeleev(symbol) for symbol in phase] for phase in phases])
        found.append(([s for s, _ in own], [n // units for _, n in own], numbers))
    return tuple(found)


@cache
def _mendeleev(symbol: str) -> float:
    from pymatgen.core import Element

    return float(Element(symbol).mendeleev_no)


@cache
def _prototype(number: int) -> Prototype:
    """The structure type of an entry."""
    name = _entries()[number]["type"]
    if (prototype := _library().get(name)) is not None:
        return prototype
    entry = _described().get(name)
    if entry is None:
        raise InputError(f"data/{FILE}: no structure type {name!r}; give its cell and sites")
    return make_prototype(name, build_type(entry))


@cache
def _library() -> dict[str, Prototype]:
    return {prototype.prototype_id: prototype for prototype in prototype_library()}


@cache
def _described() -> dict[str, dict[str, Any]]:
    """The first entry of each structure type that the file itself describes; later ones name it."""
    found: dict[str, dict[str, Any]] = {}
    for entry in _entries():
        if "cell" in entry:
            found.setdefault(entry["type"], entry)
    return found


def _phase(number: int, elements: dict[str, str]) -> TextbookPhase:
    """A phase of an entry. elements: for each of the type's compound the one in its place."""
    prototype = _prototype(number)
    species = [elements[symbol] for symbol in prototype.species]
    symbols = tuple(dict.fromkeys(species))
    placed = np.array([symbols.index(symbol) for symbol in species])
    factor = bond_scale(symbols, placed, prototype.distances)
    crystal = Crystal.from_arrays(prototype.lattice * factor, species, prototype.frac_coords)
    return TextbookPhase(_entries()[number]["as"], crystal)


def _replacements(entry: dict[str, Any], phase: str) -> dict[str, str]:
    """The element of a phase for each of the type's compound, by their places in the spelling."""
    theirs, ours = _TERM.findall(entry["as"]), _TERM.findall(phase)
    if [n for _, n in theirs] != [n for _, n in ours]:
        raise InputError(f"data/{FILE}: {phase} is not spelt as {entry['as']} of {entry['type']}")
    return {old: new for (old, _), (new, _) in zip(theirs, ours, strict=True)}
