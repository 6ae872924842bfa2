"""One ruler for crystal generators: every rate divides by everything that was attempted.

Structural validity is CDVAE's (arXiv:2110.06197): no two atoms closer than 0.5 Å and a volume of
0.1 Å³ or more. It lets crystals pass that no crystal is like, so the share without a pair under
1.0 Å stands beside it. Compositional validity is SMACT's, with the same elements in random amounts
as its control. Uniqueness and novelty are by superposition (`hullward.tools.crystal.matching`): what two
structures share, not how near their fingerprints are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import (
    StructureLibrary,
    compact_cell,
    group,
    nearest_pairs,
    plane_spacings_a,
    space_group,
)
from hullward.tools.evaluation.attempts import Attempt
from hullward.tools.evaluation.smact import random_amounts, smact_valid
from hullward.tools.records import Flaw

CLOSE_A = 0.5
CROWDED_A = 1.0
LEAST_VOLUME_A3 = 0.1
FLAT_A = 0.025  # cells with faces closer than this count as atoms on top of each other
CONTROL_DRAWS = 10
SYMPREC_A = (0.01, 0.1)
AMU_PER_A3 = 1.66053907  # g/cm³


@dataclass(frozen=True)
class Rate:
    """A count and what it is divided by."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        return self.count / self.of if self.of else None

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "of": self.of, "share": self.value}


@dataclass(frozen=True)
class CheckedAttempt:
    """An attempt that parsed, and what the metrics need of it."""

    index: int
    crystal: Crystal
    closest_a: float
    structural: bool
    compositional: bool

    @property
    def valid(self) -> bool:
        return self.structural and self.compositional


def evaluate(
    attempts: Sequence[Attempt],
    *,
    known: StructureLibrary | None = None,
    like: Sequence[Crystal] = (),
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> dict[str, Any]:
    """All metrics of a set of attempts, as plain numbers.

    known: phases that are not new.  like: crystals whose density (g/cm³) and number of elements
    the valid ones should be distributed like; without them there are no distances.
    """
    total = len(attempts)
    checked = []
    for index, attempt in enumerate(attempts):
        if isinstance(attempt.found, Crystal):
            checked.append(check(index, attempt.found))
        if index % 500 == 0:
            progress("check", index, total)
    progress("check", total, total)
    valid = [c for c in checked if c.valid]
    compositions = [Counter(c.crystal.species) for c in checked]
    control = [
        smact_valid(amounts)
        for draw in range(CONTROL_DRAWS)
        for amounts in random_amounts(compositions, seed=draw)
    ]
    groups = group([c.crystal for c in valid])
    progress("compare", total, total)
    result: dict[str, Any] = {
        "attempts": total,
        "rates": {
            "parsed": Rate(len(checked), total),
            "structurally_valid": Rate(sum(c.structural for c in checked), total),
            "no_pair_below_1_a": Rate(sum(c.closest_a >= CROWDED_A for c in checked), total),
            "compositionally_valid": Rate(sum(c.compositional for c in checked), total),
            "valid": Rate(len(valid), total),
            "valid_and_unique": Rate(len(groups), total),
        },
        "of_those_that_parsed": {
            "structurally_valid": Rate(sum(c.structural for c in checked), len(checked)),
            "pair_below_0_5_a": Rate(sum(c.closest_a < CLOSE_A for c in checked), len(checked)),
            "pair_below_1_a": Rate(sum(c.closest_a < CROWDED_A for c in checked), len(checked)),
            "compositionally_valid": Rate(sum(c.compositional for c in checked), len(checked)),
            "random_amounts_compositionally_valid": Rate(sum(control), len(control)),
            "valid": Rate(len(valid), len(checked)),
        },
        "of_the_valid": {"unique": Rate(len(groups), len(valid))},
        "parse_failures": dict(
            Counter(a.found.reason.value for a in attempts if isinstance(a.found, Flaw))
        ),
        "adherence": adherence(attempts),
    }
    if known is not None:
        new = {m[0] for m in groups if known.match(valid[m[0]].crystal) is None}
        members = sum(len(m) for m in groups if m[0] in new)
        result["rates"]["valid_unique_and_novel"] = Rate(len(new), total)
        result["of_the_valid"]["novel"] = Rate(members, len(valid))
    if like:
        result["wasserstein"] = _distances([c.crystal for c in valid], like)
        result["wasserstein_of_all_parsed"] = _distances([c.crystal for c in checked], like)
    return result


def adherence(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """How many of those who asked for something got it; what did not parse did not get it.

    Space groups are looked for at two tolerances (Å). A formula matches when its reduced formula
    does, as in the literature.
    """
    met: dict[str, list[bool]] = {}
    for attempt in attempts:
        wish = attempt.wish
        crystal = attempt.found if isinstance(attempt.found, Crystal) else None
        present = set(crystal.species) if crystal else set()
        if wish.formula is not None:
            asked = _formula(wish.formula)
            same = crystal is not None and asked == _reduced(Counter(crystal.species))
            met.setdefault("formula", []).append(same)
            met.setdefault("elements_of_formula", []).append(asked.keys() == present)
        if wish.elements:
            met.setdefault("elements", []).append(set(wish.elements) == present)
        if wish.space_group is not None:
            for symprec in SYMPREC_A:
                found = space_group(crystal, symprec) if crystal else None
                met.setdefault(f"space_group_at_{symprec:g}_a", []).append(
                    found == wish.space_group
                )
    return {name: Rate(sum(hits), len(hits)) for name, hits in met.items()}


def density_g_per_cm3(crystal: Crystal) -> float:
    """Mass over volume."""
    from ase.data import atomic_masses, atomic_numbers

    mass = sum(float(atomic_masses[atomic_numbers[s]]) for s in crystal.species)
    return mass / crystal.volume_a3 * AMU_PER_A3


def check(index: int, crystal: Crystal) -> CheckedAttempt:
    """Whether a crystal's structure and composition are valid."""
    closest = closest_a(crystal)
    structural = closest >= CLOSE_A and crystal.volume_a3 >= LEAST_VOLUME_A3
    return CheckedAttempt(
        index, crystal, closest, structural, smact_valid(Counter(crystal.species))
    )


def closest_a(crystal: Crystal) -> float:
    """The shortest distance of two atoms or of an atom and its image, exact below 1 Å."""
    with np.errstate(all="ignore"):
        if not plane_spacings_a(compact_cell(np.array(crystal.lattice))).min() > FLAT_A:
            return 0.0
        return float(nearest_pairs(crystal, CROWDED_A)[2].min())


def _distances(crystals: Sequence[Crystal], like: Sequence[Crystal]) -> dict[str, float | None]:
    """Wasserstein distances of density (g/cm³) and number of elements; None without crystals."""
    from scipy.stats import wasserstein_distance

    if not crystals:
        return {"density_g_per_cm3": None, "n_elements": None}
    measures: tuple[tuple[str, Callable[[Crystal], float]], ...] = (
        ("density_g_per_cm3", density_g_per_cm3),
        ("n_elements", lambda crystal: float(len(set(crystal.species)))),
    )
    return {
        name: float(wasserstein_distance(list(map(of, crystals)), list(map(of, like))))
        for name, of in measures
    }


def _formula(text: str) -> dict[str, int]:
    """Smallest whole numbers of a formula; empty for what is none."""
    from pymatgen.core import Composition

    try:
        amounts = Composition(text).get_el_amt_dict()
    except (ValueError, KeyError):
        return {}
    return _reduced({el: round(n) for el, n in amounts.items() if n >= 1})


def _reduced(amounts: dict[str, int]) -> dict[str, int]:
    divisor = math.gcd(*amounts.values()) if amounts else 1
    return {el: n // divisor for el, n in amounts.items()}
