"""The grammar of form A, the cell: texts that fulfil a wish.

`parse_cell_text` reads every text of the grammar, and the text has the wanted elements, formula
and number of atoms. `hullward.models.language.local` restricts a model to it token by token,
whatever its tokenizer; `gbnf` (or `constraint().value`) is the same grammar for vLLM's structured
outputs. Two conditions do not fit into a context-free grammar, and `flaw` checks them for answers
of a server: that the angles give a cell, and the distances.

The distance mask also excludes coordinates that bring two atoms closer than a limit. It changes the
distribution of a model, so it is off by default and part of the grammar's name, which belongs in
the record of what was made with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import ELEMENTS
from hullward.models.language import Constraint
from hullward.tools.crystal.formulas import parse_formula
from hullward.tools.crystal.geometry import nearest_pairs
from hullward.tools.crystal.input_checks import MAX_SITES
from hullward.tools.crystal.text.cell import parse_cell_text
from hullward.tools.crystal.text.number_words import (
    LONGEST_TENTHS,
    STEPS,
    angles,
    element_words,
    fractions,
    lengths,
    room,
)
from hullward.tools.crystal.text.word_grammar import WordGrammar, Words
from hullward.tools.records import Flaw

DEFAULT_MAX_ATOMS = 20
ROOM_PER_ATOM = 1.4  # in cubes of the distance; randomly added spheres fill 0.38 of a box

# atoms so far of each element of the formula, or (atoms so far, bits of elements still to come)
Sites = tuple[int, ...]
Point = tuple[int, ...]  # coordinates in hundredths; fewer than three while it is written
# (slot, parameters of the cell so far, sites, points, coordinates of this point)
# Without a distance mask it keeps only the angles of the cell and no points.
CellMemory = tuple[str, tuple[str, ...], Sites, tuple[Point, ...], Point]


@dataclass(frozen=True)
class CrystalGrammar(WordGrammar[CellMemory]):
    """Crystal texts of a formula, of elements, or of anything.

    formula: atoms of each element in one unit, in the order given; () for no formula.
    allowed: elements that may occur.  required: those that must.
    min_atoms, max_atoms: in the cell; with a formula, only its multiples within them.
    min_distance_a: no two atoms, nor an atom and its own image, closer than this, Å; None: any.

    Use `crystal_grammar` to make one.
    """

    formula: tuple[tuple[str, int], ...]
    allowed: tuple[str, ...]
    required: tuple[str, ...]
    min_atoms: int
    max_atoms: int
    min_distance_a: float | None = None

    @property
    def name(self) -> str:
        """All wishes in one line."""
        parts = ["crystal text"]
        if self.formula:
            parts.append("formula " + "".join(f"{el}{n}" for el, n in self.formula))
        elif self.required:
            parts.append(f"elements {'-'.join(self.required)}")
        elif len(self.allowed) < len(ELEMENTS):
            parts.append(f"only {'-'.join(self.allowed)}")
        parts.append(f"{self.min_atoms} to {self.max_atoms} atoms")
        if self.min_distance_a is not None:
            parts.append(f"distance mask {self.min_distance_a:g} Å")
        return ", ".join(parts)

    def constraint(self, *, server: bool = True) -> Constraint:
        """The constraint for a request. server False: no GBNF, for models in this process."""
        value = self._rules if server else self.name
        return Constraint.grammar(value, check=self.flaw, automaton=self)

    def flaw(self, text: str) -> str | None:
        """The flaw of a whole text in one line, or None."""
        found = parse_cell_text(text)
        if isinstance(found, Flaw):
            return f"{found.reason.value}: {found.detail}"
        return self.misfit(found)

    def misfit(self, found: Crystal) -> str | None:
        """The first wish that a crystal does not fulfil, in one line, or None."""
        counts = Counter(found.species)
        if strange := sorted(set(counts) - set(self.allowed)):
            return f"{strange[0]} is not among the wanted elements"
        if lacking := sorted(set(self.required) - set(counts)):
            return f"{lacking[0]} is missing"
        if not self.min_atoms <= found.n_atoms <= self.max_atoms:
            return f"{found.n_atoms} atoms instead of {self.min_atoms} to {self.max_atoms}"
        if self.formula:
            units = {counts[el] / n for el, n in self.formula}
            if len(units) != 1 or not units.pop().is_integer():
                return f"{found.formula} is not the wanted formula"
        if self.min_distance_a is not None:
            closest = nearest_pairs(found, 3.0)[2].min()
            if closest < self.min_distance_a:
                return f"two atoms {closest:.2f} Å apart, limit {self.min_distance_a:g}"
        return None

    @cached_property
    def _rules(self) -> str:
        return self.gbnf()

    def first(self) -> CellMemory:
        return "a", (), self._none, (), ()

    def kind(self, memory: CellMemory) -> str:
        slot = memory[0]
        return f"{slot}, may end" if slot == "next" and self.ends(memory) else slot

    def without_values(self, memory: CellMemory) -> CellMemory:
        slot, _, sites, _, _ = memory
        return slot, (), sites, (), ()

    def words(self, memory: CellMemory) -> Words:
        slot, cell, sites, points, point = memory
        if slot in ("a", "b", "c"):
            return lengths("\n" if slot == "c" else " ", self._shortest_tenths(cell))
        if slot in ("alpha", "beta", "gamma"):
            masked = self.min_distance_a is not None and len(cell) >= 3
            limit_a = self.min_distance_a if masked else None
            return angles(slot, cell, limit_a, self._least_volume_a3 if masked else 0.0)
        if slot in ("element", "next"):
            return element_words(self._choices(sites), slot == "element")
        suffix = "" if slot == "z" else " "
        if self.min_distance_a is None or not cell:
            return fractions(suffix)
        free = room(cell, points, self.min_distance_a)[point]
        open_ = free if slot == "z" else free.any(axis=tuple(range(1, free.ndim)))
        return Words(f"0.{i:02d}{suffix}" for i in np.flatnonzero(open_))

    def after(self, memory: CellMemory, word: str) -> CellMemory:
        slot, cell, sites, points, point = memory
        following = _FOLLOWING[slot]
        if slot in ("a", "b", "c", "alpha", "beta", "gamma"):
            masked = self.min_distance_a is not None
            if masked or slot in ("alpha", "beta"):
                cell = (*cell, word.strip())
            if slot == "gamma" and not masked:
                cell = ()
        elif slot in ("element", "next"):
            sites = self._with(sites, word.strip())
        elif cell:
            point = (*point, int(word.strip().replace(".", "")) % STEPS)
            if slot == "z":
                points, point = (*points, point), ()
        return following, cell, sites, points, point

    def ends(self, memory: CellMemory) -> bool:
        slot, _, sites, _, _ = memory
        if slot != "next":
            return False
        if self.formula:
            return any(
                all(have == n * units for have, (_, n) in zip(sites, self.formula, strict=True))
                for units in self._multiples
            )
        return sites[0] >= self.min_atoms and not sites[1]

    def _shortest_tenths(self, cell: tuple[str, ...]) -> int:
        """Least next length in 0.1 Å: with the mask at least the limit, and c fits the atoms."""
        if self.min_distance_a is None:
            return 1
        least = self.min_distance_a
        if len(cell) == 2:
            least = max(least, self._least_volume_a3 / (float(cell[0]) * float(cell[1])))
        return min(math.ceil(least * 10), LONGEST_TENTHS)

    @property
    def _least_volume_a3(self) -> float:
        """The volume that the fewest atoms need when they are added one after the other."""
        if self.min_distance_a is None:
            return 0.0
        fewest = max(self.min_atoms, len(self.required))
        if self.formula:
            fewest = self._multiples[0] * sum(n for _, n in self.formula)
        return fewest * ROOM_PER_ATOM * self.min_distance_a**3

    @cached_property
    def _multiples(self) -> tuple[int, ...]:
        """How many formula units a cell may hold."""
        unit = sum(n for _, n in self.formula)
        return tuple(range(-(-self.min_atoms // unit), self.max_atoms // unit + 1))

    @cached_property
    def _none(self) -> Sites:
        return (0,) * len(self.formula) if self.formula else (0, (1 << len(self.required)) - 1)

    def _with(self, sites: Sites, element: str) -> Sites:
        if self.formula:
            return tuple(
                have + (el == element) for have, (el, _) in zip(sites, self.formula, strict=True)
            )
        count, missing = sites
        if element in self.required:
            missing &= ~(1 << self.required.index(element))
        return count + 1, missing

    def _choices(self, sites: Sites) -> tuple[str, ...]:
        """Elements of which another atom still allows a complete text."""
        if self.formula:
            most = self._multiples[-1]
            return tuple(
                el for have, (el, n) in zip(sites, self.formula, strict=True) if have < n * most
            )
        count, missing = sites
        left = self.max_atoms - count
        if left < 1:
            return ()
        wanted = tuple(el for i, el in enumerate(self.required) if missing >> i & 1)
        return wanted if left <= len(wanted) else self.allowed


def crystal_grammar(
    *,
    formula: str | None = None,
    elements: Iterable[str] = (),
    only: bool = False,
    n_atoms: int | None = None,
    max_atoms: int = DEFAULT_MAX_ATOMS,
    min_distance_a: float | None = None,
) -> CrystalGrammar:
    """The grammar of a wish; without one: any crystal of up to `max_atoms` atoms.

    formula: its multiples, sites in any order.  elements: each occurs and no other; with `only`
    none has to.  n_atoms: exact number in the cell.  min_distance_a: the distance mask, Å.

    >>> crystal_grammar(formula="Li2O", max_atoms=7).name
    'crystal text, formula Li2O1, 1 to 7 atoms'

    Raises InputError for wishes that no crystal text can fulfil.
    """
    units = tuple(parse_formula(formula).items()) if formula is not None else ()
    named = tuple(dict.fromkeys(elements))
    if strange := sorted({*named, *(el for el, _ in units)} - ELEMENTS):
        raise InputError(f"{strange[0]!r} is no element")
    if units and named and not (set(named) == {el for el, _ in units}):
        raise InputError(f"formula {formula} and elements {', '.join(named)} contradict each other")
    if min_distance_a is not None and not 0 < min_distance_a <= 2:
        raise InputError(f"a distance mask of {min_distance_a} Å: give a value above 0 and up to 2")
    low, high = (1, max_atoms) if n_atoms is None else (n_atoms, n_atoms)
    required = () if only else named or tuple(el for el, _ in units)
    least = max(low, len(required), 1)
    if not least <= high <= MAX_SITES:
        raise InputError(f"{high} atoms: crystal text for this wish has {least} to {MAX_SITES}")
    unit = sum(n for _, n in units)
    if units and not any(low <= m * unit <= high for m in range(1, high // unit + 1)):
        raise InputError(f"no multiple of {formula} ({unit} atoms) has {low} to {high} atoms")
    return CrystalGrammar(
        formula=units,
        allowed=tuple(el for el, _ in units) or named or tuple(sorted(ELEMENTS)),
        required=required,
        min_atoms=low,
        max_atoms=high,
        min_distance_a=min_distance_a,
    )


# the cell, the first site, then another site as often as wanted
_SLOTS = ("a", "b", "c", "alpha", "beta", "gamma", "element", "x", "y", "z", "next", "x")
_FOLLOWING = dict(pairwise(_SLOTS))
