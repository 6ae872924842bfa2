"""Does a generator find the structure that is known? And would plain substitution have found it?

A held-out formula counts as found within k tries when one of the first k structures is the true
one by pymatgen's StructureMatcher with its defaults (`hullward.tools.crystal.matching`). Tries that did not
parse are tries. Template substitution, with the same number of tries, is the baseline every model
has to earn its place beside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from hullward.models.crystal import Crystal
from hullward.tools.crystal import StructureLibrary
from hullward.tools.evaluation.metrics import Rate
from hullward.tools.prototypes import Substitution
from hullward.tools.records import Flaw

Try = Crystal | Flaw | None
Stoichiometry = tuple[int, ...]


def first_match(tries: Sequence[Try], truths: Sequence[Crystal]) -> int | None:
    """Number, from 1, of the first try that is one of the true structures; None where none is."""
    library = StructureLibrary((f"truth-{i}", truth) for i, truth in enumerate(truths))
    for number, crystal in enumerate(tries, 1):
        if isinstance(crystal, Crystal) and library.match(crystal) is not None:
            return number
    return None


def found_within(
    tries: Mapping[str, Sequence[Try]], truths: Mapping[str, Sequence[Crystal]], ks: Sequence[int]
) -> dict[int, Rate]:
    """Of all formulas with a truth, how many were found within k tries, for each k.

    tries and truths by formula; a formula without tries was not found.
    """
    firsts = [first_match(tries.get(formula, ())[: max(ks)], truths[formula]) for formula in truths]
    return {k: Rate(sum(n is not None and n <= k for n in firsts), len(firsts)) for k in ks}


class TemplateTries:
    """Structures of a formula by exchanging the ions of known ones, likeliest first.

    templates: known structures as (id, crystal); AFLOW's prototypes are not used.
    """

    def __init__(self, templates: Sequence[tuple[str, Crystal]], *, max_atoms: int) -> None:
        self._max_atoms = max_atoms
        self._by_kind: dict[Stoichiometry, list[tuple[str, Crystal]]] = {}
        for template_id, crystal in templates:
            kind = stoichiometry(Counter(crystal.species))
            self._by_kind.setdefault(kind, []).append((template_id, crystal))

    def has_kind(self, formula: str) -> bool:
        """Whether any template has this stoichiometry."""
        return self._kind(formula) in self._by_kind

    def tries(self, formula: str, k: int) -> list[Crystal]:
        """The k likeliest structures that differ, fewer where there are fewer."""
        found: list[Crystal] = []
        seen = StructureLibrary()
        for crystal in self._ranked(formula):
            if seen.match(crystal) is None:
                seen.add(str(len(found)), crystal)
                found.append(crystal)
                if len(found) == k:
                    break
        return found

    def _ranked(self, formula: str) -> Iterator[Crystal]:
        templates = self._by_kind.get(self._kind(formula), [])
        maker = Substitution(templates, max_atoms=self._max_atoms, prototypes=False)
        yield from (made.crystal for made in maker.propose([formula]))

    def _kind(self, formula: str) -> Stoichiometry:
        from pymatgen.core import Composition

        return stoichiometry(Composition(formula).get_el_amt_dict())


def stoichiometry(amounts: Mapping[str, float]) -> Stoichiometry:
    """Sorted smallest whole numbers, whatever the elements: (1, 1, 3) for a perovskite."""
    whole = [round(n) for n in amounts.values()]
    divisor = math.gcd(*whole)
    return tuple(sorted(n // divisor for n in whole))
