"""The structures that the recipe tries in one chemical system, formula by formula.

Formulas come from oxidation states and from the common types of intermetallics, so that coverage
can be stated without a database of computed materials; a caller may name more. Structures are known
types, types that nano wrote, and orderings of two parents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import gcd

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import bond_length, charge_balance, is_alloy
from hullward.tools.prototypes import (
    PARENTS,
    Decorated,
    Prototype,
    best_orderings,
    decorate,
    element_structures,
    encyclopedia_types,
    nano_types_for,
    prototype_library,
)
from hullward.tools.records import Relaxation
from hullward.tools.reference.sources import common_states_of, served_class

EXPECTED_ATOMS = 8  # formula units up to this size are expected to have been tried
ORDERED_ATOMS = 12  # formula units up to this size get orderings of parent structures
LARGEST_ORDERED_CELL = 24
# Atoms of a primitive cell: where each species of the type stays one element, where its orbits are
# shared out otherwise, and in our own types.
KEPT_ATOMS, SPLIT_ATOMS, OWN_ATOMS = 24, 10, 80
KEPT_ATOMS_ALLOY, SPLIT_ATOMS_ALLOY = 16, 4
MOST_TRIALS = 50  # of one formula: own types, then whole types, then shared ones, small ones first
MOST_GENERATED = 30  # of one formula, types that nano wrote: besides the others, displacing none
# Amounts of the common intermetallic types, in any order of the elements.
ALLOY_TYPES = {2: ((1, 1), (1, 2), (1, 3), (1, 5), (3, 5)), 3: ((1, 1, 1), (2, 1, 1), (2, 2, 1))}


@dataclass(frozen=True)
class Trial:
    """One structure on its way through the funnel."""

    prototype: str
    crystal: Crystal
    energy: float | None = None  # eV/atom, of the last stage
    relaxation: Relaxation | None = None

    @property
    def own(self) -> bool:
        """Relaxed whatever its rank: a type written by us, or a structure the user gave."""
        return self.prototype.startswith(("own:", "given:"))


def expected_formulas(elements: Sequence[str], most_atoms: int = EXPECTED_ATOMS) -> list[str]:
    """Reduced formulas of all these elements that belong to a class the recipe serves.

    Compounds with an anion: all that common oxidation states balance, up to `most_atoms`. Metals
    and metalloids: the common types besides.
    """
    found: dict[str, None] = {}  # in order, once each
    for total in range(len(elements), most_atoms + 1):
        for cuts in combinations(range(1, total), len(elements) - 1):
            counts = np.diff([0, *cuts, total]).tolist()
            if gcd(*counts) == 1 and _balances(elements, counts):
                found[_formula(elements, counts)] = None
    if is_alloy(elements):
        for kind in ALLOY_TYPES.get(len(elements), ()):
            for counts in sorted(set(permutations(kind))):
                found[_formula(elements, counts)] = None
    return list(found)


def _balances(elements: Sequence[str], counts: Sequence[int]) -> bool:
    composition = dict(zip(elements, map(float, counts), strict=True))
    if not charge_balance(composition, common_states_of(elements)).balanced:
        return False
    return served_class(composition).covered


def _formula(elements: Sequence[str], counts: Iterable[int]) -> str:
    from pymatgen.core import Composition

    amounts = {el: float(n) for el, n in zip(elements, counts, strict=True)}
    return str(Composition(amounts).reduced_formula)


def all_trials(elements: Sequence[str], more_formulas: Iterable[str] = ()) -> list[Trial]:
    """Every structure to try in the system of exactly these elements, in a fixed order."""
    if len(elements) == 1:
        return [Trial(name, c) for name, c in element_structures(elements[0], _every_type())]
    formulas = list(dict.fromkeys([*expected_formulas(elements), *more_formulas]))
    alloy = is_alloy(elements)
    groups: dict[str, list[tuple[tuple[int, int], Trial]]] = defaultdict(list)
    kept_atoms = KEPT_ATOMS_ALLOY if alloy else KEPT_ATOMS
    split_atoms = SPLIT_ATOMS_ALLOY if alloy else SPLIT_ATOMS
    for d in _decorated(elements, formulas, OWN_ATOMS, _fitting(len(elements), OWN_ATOMS)):
        own, kept, n_atoms = d.prototype_id.startswith("own:"), _is_kept(d), d.crystal.n_atoms
        if own and kept:
            rank = 0
        elif kept and n_atoms <= kept_atoms:
            rank = 1
        elif n_atoms <= split_atoms:
            rank = 2
        else:
            continue
        name = d.prototype_id if rank < 2 else f"split:{d.prototype_id}"
        groups[d.crystal.formula].append(((rank, n_atoms), Trial(name, d.crystal)))
    found = []
    for formula in sorted(groups):
        ranked = sorted(groups[formula], key=lambda pair: pair[0])
        found += [trial for _, trial in ranked[:MOST_TRIALS]]
    found += _generated(elements, formulas, kept_atoms)
    return found if alloy else [*found, *_ordered(elements, formulas)]


def _decorated(
    elements: Sequence[str], formulas: Sequence[str], most_atoms: int, types: Iterable[Prototype]
) -> Iterator[Decorated]:
    """The types with these elements; salts with the states that the recipe tries."""
    return decorate(
        elements,
        formulas,
        most_atoms,
        charge_balanced=not is_alloy(elements),
        keep_unbalanced=True,
        allowed=common_states_of(elements),
        prototypes=types,
    )


def _generated(elements: Sequence[str], formulas: Sequence[str], most_atoms: int) -> list[Trial]:
    """Types that nano wrote, for formulas with their amounts; in each formula small ones first."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for d in _decorated(elements, formulas, most_atoms, nano_types_for(formulas)):
        groups[d.crystal.formula].append(Trial(d.prototype_id, d.crystal))
    return [
        trial
        for formula in sorted(groups)
        for trial in sorted(groups[formula], key=lambda t: t.crystal.n_atoms)[:MOST_GENERATED]
    ]


def _every_type() -> list[Prototype]:
    return [*prototype_library(), *encyclopedia_types()]


def _fitting(n_elements: int, most_atoms: int) -> list[Prototype]:
    return [p for p in _every_type() if len(p.labels) >= n_elements and p.n_atoms <= most_atoms]


def _is_kept(decorated: Decorated) -> bool:
    """Whether every species of the type stays one element."""
    pairs = {(label.split("-")[0], element) for label, element in decorated.assignment}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _ordered(elements: Sequence[str], formulas: Sequence[str]) -> Iterable[Trial]:
    """Orderings of antifluorite and rock salt for the formulas their sites can hold."""
    from pymatgen.core import Composition, Element

    anion = max(elements, key=lambda el: Element(el).X)
    for formula in formulas:
        amounts = Composition(formula).get_el_amt_dict()
        counts = {str(el): int(n) for el, n in amounts.items()}
        states = charge_balance(counts, common_states_of(elements)).states
        if sum(counts.values()) > ORDERED_ATOMS or not states or states[anion] >= 0:
            continue
        filling = sum(n for el, n in counts.items() if el != anion) / counts[anion]
        if not 0.5 <= filling <= 2 or any(states[el] <= 0 for el in counts if el != anion):
            continue
        parent = PARENTS["antifluorite" if filling > 1 else "rocksalt"]
        bond = float(np.mean([bond_length(el, anion) for el in counts if el != anion]))
        for units in (1, 2):
            if sum(counts.values()) * units <= LARGEST_ORDERED_CELL:
                cations = {el: (n * units, states[el]) for el, n in counts.items() if el != anion}
                for name, crystal in best_orderings(
                    parent, cations, anion, states[anion], counts[anion] * units, bond
                ):
                    yield Trial(name, crystal)
