"""Ionic substitution into known structure types, likeliest replacement first.

Likelihoods are the mined probabilities that one ion replaces another (Hautier et al.,
10.1021/ic102031h), as pymatgen ships them. If an ion of a type has no known charge, as in metals,
the pair gets the lowest likelihood of the table.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import States, charge_balance, reduced_amounts
from hullward.tools.prototypes.library import decorate, prototype_library
from hullward.tools.prototypes.mutation import Constructed
from hullward.tools.prototypes.nano_types import NANO_PREFIX, nano_prototype, nano_types_for
from hullward.tools.prototypes.textbook import nearest_types

TEXTBOOK_TYPES = 3  # types of like phases that come before all others
PER_TURN = 2  # structures of a formula before the next formula follows
# What is kept in memory: a formula can have hundreds of structures, and takes a tenth of a second.
KEPT_FORMULAS = 1000  # those used last
KEPT_STRUCTURES = 4 * PER_TURN  # beyond those proposed, of each


class Substitution:
    """Makes structures of given formulas, each once.

    templates: known structures as (id, crystal), used beside the prototype library and the types
    that nano wrote.
    """

    def __init__(
        self,
        templates: Sequence[tuple[str, Crystal]],
        *,
        max_atoms: int,
        oxidation_states: States | None = None,
    ) -> None:
        self._templates = templates
        self._max_atoms = max_atoms
        self._allowed = oxidation_states
        self._made: OrderedDict[str, tuple[list[Constructed], int]] = OrderedDict()

    def propose(self, formulas: Sequence[str]) -> Iterator[Constructed]:
        """A few structures of each formula in turn, likeliest first within a formula."""
        start = 0
        left = list(formulas)
        while left:
            more = []
            for formula in left:
                taken = self._first(formula, start + PER_TURN)[start:]
                if len(taken) == PER_TURN:
                    more.append(formula)
                yield from taken
            left, start = more, start + PER_TURN

    def _first(self, formula: str, most: int) -> list[Constructed]:
        """The likeliest structures of a formula, at most so many."""
        kept, total = self._made.pop(formula, ([], -1))
        if len(kept) < most and len(kept) != total:
            ranked = self._ranked(formula)
            kept, total = ranked[: most + KEPT_STRUCTURES], len(ranked)
        self._made[formula] = kept, total
        if len(self._made) > KEPT_FORMULAS:
            self._made.popitem(last=False)
        return kept[:most]

    def _ranked(self, formula: str) -> list[Constructed]:
        found = [
            *_from_prototypes(formula, self._max_atoms, self._allowed),
            *_from_templates(formula, self._templates, self._max_atoms, self._allowed),
        ]
        # rounded: the last digit depends on the order of a set in pymatgen
        found.sort(key=lambda pair: (-round(pair[0], 6), pair[1].crystal.n_atoms))  # stable
        ranked = [*_from_textbook(formula, self._max_atoms), *(built for _, built in found)]
        distinct: dict[str, Constructed] = {}
        for one in ranked:
            distinct.setdefault(one.crystal.content_id, one)
        return list(distinct.values())


def _from_textbook(formula: str, max_atoms: int) -> Iterator[Constructed]:
    """The types of the phases that are most like the formula."""
    for phase in nearest_types(formula, max_atoms, TEXTBOOK_TYPES):
        yield Constructed(
            crystal=phase.crystal,
            parents=(f"prototype:{phase.type_name}",),
            note=f"{phase.type_name} type, as phases of like elements",
            target_formula=formula,
        )


def _from_prototypes(
    formula: str, max_atoms: int, allowed: States | None
) -> Iterator[tuple[float, Constructed]]:
    from pymatgen.core import Composition

    amounts = Composition(formula).get_el_amt_dict()
    charges = _charges(amounts, allowed)
    types = [*prototype_library(), *nano_types_for([formula])]
    for made in decorate(list(amounts), [formula], max_atoms, allowed=allowed, prototypes=types):
        old = _prototype_charges(made.prototype_id)
        pairs = [(label.rsplit("-", 1)[0], new) for label, new in made.assignment]
        score = _likelihood([((a, old.get(a)), (b, charges.get(b))) for a, b in pairs])
        note = ", ".join(f"{a} to {b}" for a, b in sorted(set(pairs)))
        built = Constructed(
            crystal=made.crystal,
            parents=(f"prototype:{made.prototype_id}",),
            note=f"{made.prototype_id}: {note}",
            target_formula=formula,
        )
        yield score, built


def _from_templates(
    formula: str,
    templates: Sequence[tuple[str, Crystal]],
    max_atoms: int,
    allowed: States | None,
) -> Iterator[tuple[float, Constructed]]:
    """Known structures of other compounds with the same stoichiometry, ions exchanged."""
    from pymatgen.core import Composition

    target = {el: int(n) for el, n in Composition(formula).get_el_amt_dict().items()}
    charges = _charges(target, allowed)
    for template_id, crystal in templates:
        if crystal.n_atoms > max_atoms or set(crystal.species) == set(target):
            continue
        own = reduced_amounts(Counter(crystal.species))
        if sorted(own.values()) != sorted(target.values()):
            continue
        old = _charges(own, None)
        for mapping in _mappings(own, target):
            score = _likelihood([((a, old.get(a)), (b, charges.get(b))) for a, b in mapping])
            changed = ", ".join(f"{a} to {b}" for a, b in mapping if a != b)
            built = Constructed(
                crystal=_exchanged(crystal, dict(mapping)),
                parents=(template_id,),
                note=changed,
                target_formula=formula,
            )
            yield score, built


def _mappings(
    own: Mapping[str, int], target: Mapping[str, int]
) -> Iterator[tuple[tuple[str, str], ...]]:
    """Every replacement of the template's elements that gives the target's formula."""
    names = sorted(own)
    for chosen in itertools.permutations(sorted(target)):
        if all(own[a] == target[b] for a, b in zip(names, chosen, strict=True)):
            yield tuple(zip(names, chosen, strict=True))


def _exchanged(crystal: Crystal, mapping: Mapping[str, str]) -> Crystal:
    """The template with new elements, scaled by the ratio of the summed ionic volumes."""
    species = [mapping[s] for s in crystal.species]
    cube = sum(_radius(s) ** 3 for s in species) / sum(_radius(s) ** 3 for s in crystal.species)
    return Crystal.from_arrays(
        np.array(crystal.lattice) * cube ** (1 / 3), species, crystal.frac_coords
    )


@cache
def _radius(symbol: str) -> float:
    """Mean ionic radius in Å, or the atomic one if there is none."""
    from pymatgen.core import Element

    return float(Element(symbol).average_ionic_radius or Element(symbol).atomic_radius or 1.5)


def _charges(amounts: Mapping[str, float], allowed: States | None) -> Mapping[str, float]:
    return charge_balance(amounts, allowed).states


@cache
def _prototype_charges(prototype_id: str) -> Mapping[str, float]:
    if prototype_id.startswith(NANO_PREFIX):
        return _charges(Counter(nano_prototype(prototype_id).species), None)
    species = {p.prototype_id: p.species for p in prototype_library()}[prototype_id]
    return _charges(Counter(species), None)


Ion = tuple[str, float | None]


def _likelihood(pairs: Sequence[tuple[Ion, Ion]]) -> float:
    """Mean log probability of the replacements."""
    return sum(math.log(_probability(old, new)) for old, new in pairs) / len(pairs)


@cache
def _probability(old: Ion, new: Ion) -> float:
    table = _table()
    floor = math.exp(table.alpha)
    if old[1] is None or new[1] is None:
        return 1.0 if old[0] == new[0] else floor
    first, second = (_species(symbol, charge) for symbol, charge in (old, new))
    if first not in table.species or second not in table.species:
        return 1.0 if first == second else floor
    return float(table.cond_prob(first, second))


def _species(symbol: str, charge: float | None) -> Any:
    from pymatgen.core import Species

    return Species(symbol, round(charge or 0))


@cache
def _table() -> Any:
    from pymatgen.analysis.structure_prediction.substitution_probability import (
        SubstitutionProbability,
    )

    return SubstitutionProbability()
