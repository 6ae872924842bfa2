"""The questions that nano is asked: any crystal, or crystals of given formulas.

Formulas are those that oxidation states suggest; no list of known compounds is read. The fewer
known types an anonymous formula has, the earlier its formulas come. Quarantined formulas and
systems are left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hullward.models.language import Request, Sampling, crystal_prompt, flat_formula
from hullward.tools.crystal import AnonymousFormula
from hullward.tools.prototypes import anonymous_formula
from hullward.tools.records import stable_id
from hullward.tools.reference.recipe import expected_formulas
from hullward.training.crystals import in_quarantine

CHUNK = 32  # completions a request; a stop loses at most one request
# Wide systems have one of these anions, common ones more often, and one to three other elements.
ANIONS = ("O", "O", "O", "S", "Se", "F", "Cl", "Br", "N", "Te", "I", "P", "H")
MOST_FORMULA_ATOMS = 12


@dataclass(frozen=True)
class TypeQuestion:
    """One request, and the formula in its prompt."""

    request: Request
    formula: str | None = None


def free_questions(
    each: int, sampling: Sampling, temperatures: Sequence[float]
) -> list[TypeQuestion]:
    """`each` crystals of no particular kind at every temperature."""
    return [
        question
        for temperature in temperatures
        for question in _questions(None, each, replace(sampling, temperature=temperature))
    ]


def formula_questions(
    formulas: Iterable[str], each: int, sampling: Sampling, temperature: float
) -> list[TypeQuestion]:
    """`each` crystals of every formula."""
    warm = replace(sampling, temperature=temperature)
    return [q for formula in formulas for q in _questions(formula, each, warm)]


def _questions(formula: str | None, number: int, sampling: Sampling) -> list[TypeQuestion]:
    flat = flat_formula(formula) if formula is not None else None
    prompt = crystal_prompt(formula=flat, form="asymmetric")
    found = []
    for start in range(0, number, CHUNK):
        n = min(CHUNK, number - start)
        name = stable_id("q", prompt, sampling.temperature, sampling.top_p, sampling.seed, start, n)
        drawn = replace(sampling, n=n, seed=int(name[2:14], 16))
        found.append(TypeQuestion(Request(request_id=name, prompt=prompt, sampling=drawn), formula))
    return found


def suggested_formulas(
    systems: Iterable[str], served: Mapping[AnonymousFormula, int], most_types: int
) -> list[str]:
    """Formulas that oxidation states suggest in these systems, those with fewest types first.

    served: number of known types of each anonymous formula. Formulas with more than `most_types`
    and quarantined ones are left out.
    """
    found: dict[str, int] = {}
    for system in systems:
        elements = system.split("-")
        if len(elements) < 2:
            continue
        for formula in expected_formulas(elements, MOST_FORMULA_ATOMS):
            known = served.get(anonymous_formula(formula), 0)
            if known <= most_types and not in_quarantine(formula, "-".join(sorted(elements))):
                found.setdefault(formula, known)
    return sorted(found, key=lambda formula: (found[formula], formula))


def wide_systems(number: int, elements: Iterable[str], seed: int) -> list[str]:
    """Systems of two to four of these elements with one common anion, drawn at random."""
    draw = random.Random(seed)
    others = sorted(set(elements) - set(ANIONS))
    found: dict[str, None] = {}
    while len(found) < number:
        size = draw.choice((1, 2, 2, 2, 3, 3))
        found["-".join(sorted([draw.choice(ANIONS), *draw.sample(others, size)]))] = None
    return list(found)
