"""The grammar of form B, the asymmetric unit: texts that fulfil a wish, symmetry included.

As with `crystal_grammar` for form A, `parse_asymmetric_text` reads every text of the grammar, and
the text has the wanted elements, formula, number of atoms (of the primitive cell) and space group.
Atoms are counted as they are placed: a number of atoms or a Wyckoff position is allowed only if the
remaining positions can hold the rest. A coordinate is allowed only if the site keeps the symmetry
of its position. There is no GBNF form and no distance mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache

from hullward.models import wyckoff
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.language import Constraint
from hullward.tools.crystal.text.asymmetric import AsymmetricUnit, parse_asymmetric_text, parse_unit
from hullward.tools.crystal.text.cell_grammar import CrystalGrammar, crystal_grammar
from hullward.tools.crystal.text.number_words import angles, lengths
from hullward.tools.crystal.text.word_grammar import WordGrammar, Words, suffixed
from hullward.tools.crystal.text.wyckoff_slots import (
    Need,
    Placed,
    centring,
    numbers_of_element,
    numbers_of_formula,
    open_coordinates,
    open_positions,
)

LEAST_TENTHS, SHARPEST = 10, 20  # lengths from 1.0 Å, angles from 20° to 160°


@dataclass(frozen=True)
class UnitState:
    """The state of a text so far. All counts are of the conventional cell."""

    slot: str = "group"
    group: int = 0
    done: tuple[tuple[str, int], ...] = ()  # elements with their numbers
    left: int = 0  # atoms of the last element still to place
    taken: tuple[str, ...] = ()  # positions without free coordinates
    orbits: tuple[Placed, ...] = ()  # the others
    position: str = ""
    free: tuple[int, ...] = ()  # coordinates of it, hundredths
    cell: tuple[str, ...] = ()  # parameters so far


@dataclass(frozen=True)
class UnitGrammar(WordGrammar[UnitState]):
    """Texts of asymmetric units. wishes: contents of the primitive cell."""

    wishes: CrystalGrammar
    space_group: int | None = None

    @property
    def name(self) -> str:
        """All wishes in one line."""
        group = f", space group {self.space_group}" if self.space_group else ""
        return self.wishes.name.replace("crystal text", "asymmetric unit", 1) + group

    def constraint(self) -> Constraint:
        """The constraint for a request to a model in this process."""
        return Constraint.grammar(self.name, check=self.flaw, automaton=self)

    def flaw(self, text: str) -> str | None:
        """The flaw of a whole text in one line, or None."""
        unit = parse_unit(text)
        crystal = parse_asymmetric_text(text)
        if not isinstance(crystal, Crystal) or not isinstance(unit, AsymmetricUnit):
            return f"{crystal.reason.value}: {crystal.detail}"  # type: ignore[union-attr]
        if self.space_group not in (None, unit.space_group):
            return f"space group {unit.space_group} instead of {self.space_group}"
        return self.wishes.misfit(crystal)

    def first(self) -> UnitState:
        return UnitState()

    def kind(self, unit: UnitState) -> str:
        return f"{unit.slot} {len(unit.cell)}" + (" may end" if self.ends(unit) else "")

    def words(self, unit: UnitState) -> Words:
        if unit.slot == "group":
            return _groups(self)
        if unit.slot == "number":
            return self._numbers(unit)
        if unit.slot == "position":
            return self._positions(unit)
        if unit.slot == "free":
            return open_coordinates(unit.group, unit.position, unit.free, unit.orbits)
        if unit.slot == "join":
            return _MORE if unit.left else _LAST
        if unit.slot == "line":
            elements = tuple(f"{el} " for el in self.elements(unit))
            return _line(elements, self._complete(unit))
        return _parameter(unit.group, unit.cell)

    def after(self, unit: UnitState, word: str) -> UnitState:
        value = word.strip()
        if unit.slot == "group":
            return UnitState("line", int(value))
        if unit.slot == "line" and value in self.wishes.allowed:
            return replace(unit, slot="number", done=(*unit.done, (value, 0)))
        if unit.slot == "number":
            done = (*unit.done[:-1], (unit.done[-1][0], int(value)))
            return replace(unit, slot="position", done=done, left=int(value))
        if unit.slot == "position":
            position = wyckoff.positions(unit.group)[value]
            left = unit.left - position.multiplicity
            if position.free:
                return replace(unit, slot="free", left=left, position=value)
            taken = tuple(sorted((*unit.taken, value)))
            return replace(unit, slot="join", left=left, taken=taken)
        if unit.slot == "free":
            free = (*unit.free, int(value[2:]))
            if len(free) < len(wyckoff.positions(unit.group)[unit.position].free):
                return replace(unit, free=free)
            orbits = (*unit.orbits, (unit.position, free))
            return replace(unit, slot="join", orbits=orbits, position="", free=())
        if unit.slot == "join":
            return replace(unit, slot="line" if word == "\n" else "position")
        return UnitState("cell", unit.group, unit.done, cell=(*unit.cell, value))

    def ends(self, unit: UnitState) -> bool:
        return unit.slot == "cell" and len(unit.cell) == len(_names(unit.group))

    def elements(self, unit: UnitState) -> tuple[str, ...]:
        """Elements that may be named next, with at least one number of atoms."""
        named = {el for el, _ in unit.done}
        units = dict(self.wishes.formula)
        numbers: dict[int, bool] = {}  # without a formula all elements are equivalent
        found = []
        for el in self.wishes.allowed:
            if el not in named:
                kind = units.get(el, 0)
                if kind not in numbers:
                    numbers[kind] = bool(self._numbers(_naming(unit, el)))
                if numbers[kind]:
                    found.append(el)
        return tuple(found)

    def _numbers(self, unit: UnitState) -> Words:
        """Possible numbers of atoms of the element named last."""
        cells, wishes = centring(unit.group), self.wishes
        low, most = wishes.min_atoms * cells, wishes.max_atoms * cells
        if wishes.formula:
            units = dict(wishes.formula)
            named = {el for el, _ in unit.done}
            rest = tuple(sorted(n for el, n in wishes.formula if el not in named))
            first, number = unit.done[0]
            times = number // units[first]  # 0 for the first element
            own = units[unit.done[-1][0]]
            return numbers_of_formula(unit.group, unit.taken, times, own, rest, low, most)
        return numbers_of_element(unit.group, unit.taken, self._need(unit))

    def _positions(self, unit: UnitState) -> Words:
        """Positions for the element that leave room for all others."""
        formula = self.wishes.formula
        need = Need(self.to_come(unit.done)) if formula else self._need(unit)
        return open_positions(unit.group, unit.taken, unit.left, need)

    def _need(self, unit: UnitState) -> Need:
        """What must follow the elements named so far, without a formula."""
        cells, total = centring(unit.group), sum(n for _, n in unit.done)
        return Need(
            missing=len(set(self.wishes.required) - {el for el, _ in unit.done}),
            spare=len(self.wishes.allowed) - len(unit.done),
            low=self.wishes.min_atoms * cells - total,
            most=self.wishes.max_atoms * cells - total,
        )

    def to_come(self, done: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
        """Numbers of atoms of the formula's elements that are not named yet."""
        units = dict(self.wishes.formula)
        first, number = done[0]
        times = number // units[first]
        named = {el for el, _ in done}
        return tuple(times * n for el, n in self.wishes.formula if el not in named)

    def _complete(self, unit: UnitState) -> bool:
        """Whether the list of sites may end here."""
        named = {el for el, _ in unit.done}
        total = sum(n for _, n in unit.done)
        low = self.wishes.min_atoms * centring(unit.group)
        return bool(named) and named >= set(self.wishes.required) and total >= low


def unit_grammar(wishes: CrystalGrammar, space_group: int | None = None) -> UnitGrammar:
    """The grammar of form B for the wishes of `crystal_grammar` and optionally a space group.

    Raises InputError for a distance mask, a space group that does not exist, or wishes that the
    space group (or any) cannot fulfil.
    """
    if wishes.min_distance_a is not None:
        raise InputError(
            "the distance mask works with form A, which lists every site, not with form B"
        )
    if space_group is not None and not 1 <= space_group <= 230:
        raise InputError(f"space group {space_group}: numbers run from 1 to 230")
    grammar = UnitGrammar(wishes, space_group)
    if not _groups(grammar):
        where = f"space group {space_group}" if space_group else "any space group"
        raise InputError(f"no sites of {where} make up {wishes.name}")
    return grammar


@lru_cache(maxsize=4096)
def can_hold(space_group: int, formula: str, max_atoms: int) -> bool:
    """Whether sites of a space group can hold the formula in a primitive cell of `max_atoms`.

    >>> can_hold(225, "NaCl", 2), can_hold(225, "Al2O3", 5)
    (True, False)
    """
    try:
        unit_grammar(crystal_grammar(formula=formula, max_atoms=max_atoms), space_group)
    except InputError:
        return False
    return True


def _naming(unit: UnitState, element: str) -> UnitState:
    return replace(unit, slot="number", done=(*unit.done, (element, 0)), left=0)


@lru_cache(maxsize=1024)
def _groups(grammar: UnitGrammar) -> Words:
    """Words of the space groups that can fulfil the wishes."""
    wanted = range(1, 231) if grammar.space_group is None else (grammar.space_group,)
    return _group_words(tuple(g for g in wanted if grammar.elements(UnitState("line", g))))


@lru_cache(maxsize=1024)
def _group_words(groups: tuple[int, ...]) -> Words:
    return Words(f"{g}\n" for g in groups)


_MORE, _LAST = Words((" ",)), Words(("\n",))


@lru_cache(maxsize=1024)
def _line(elements: tuple[str, ...], complete: bool) -> Words:
    return Words((*elements, *(lengths("", LEAST_TENTHS) if complete else ())))


def _parameter(group: int, cell: tuple[str, ...]) -> Words:
    names = _names(group)
    if len(cell) >= len(names):
        return _NOTHING
    if len(names[len(cell)]) == 1:
        return _more_lengths()
    known = cell[3:] if len(names) == 6 else ("90",)
    return _open_angles(("alpha", "beta", "gamma")[len(known)], known)


_NOTHING = Words()


@cache
def _more_lengths() -> Words:
    return suffixed(lengths("", LEAST_TENTHS), prefix=" ")


@lru_cache(maxsize=8192)
def _open_angles(slot: str, known: tuple[str, ...]) -> Words:
    possible = (int(word) for word in angles(slot, known, None, 0.0))
    return Words(f" {n}" for n in possible if SHARPEST <= n <= 180 - SHARPEST)


@cache
def _names(group: int) -> tuple[str, ...]:
    return wyckoff.CELL_PARAMETERS[wyckoff.cell_system(group)]
