"""Rates of a crystal generator: validity, uniqueness, novelty and adherence to wishes.

Every rate divides by all attempts. Structural validity is CDVAE's (arXiv:2110.06197): no two atoms
closer than 0.5 Å and a volume of 0.1 Å³ or more. Unrealistic crystals pass this, so the share
without a pair under 1.0 Å is given beside it. Compositional validity is SMACT's, with the same
elements in random amounts as its control. Uniqueness and novelty are decided by superposition
(`hullward.tools.crystal.matching`), not by fingerprints.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts
from hullward.tools.crystal import (
    StructureLibrary,
    compact_cell,
    group_equal,
    nearest_pairs,
    plane_spacings_a,
    reduced_amounts,
    space_group,
)
from hullward.tools.evaluation.attempts import Attempt
from hullward.tools.evaluation.smact import random_amounts, smact_valid
from hullward.tools.records import Flaw, Wish

CLOSE_A = 0.5
CROWDED_A = 1.0
LEAST_VOLUME_A3 = 0.1
FLAT_A = 0.025  # in cells with faces closer than this, atoms count as on top of each other
CONTROL_DRAWS = 10
SYMPREC_A = (0.01, 0.1)
HEIGHTS_WITHIN_EV_PER_ATOM = (0.05, 0.1)
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
    """An attempt that parsed, with its validity."""

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
    """All metrics of a set of attempts.

    known: phases that are not new.  like: crystals with which the distributions of density (g/cm³)
    and number of elements are compared; without them there are no distances.
    """
    total = len(attempts)
    checked = []
    for index, attempt in enumerate(attempts):
        if isinstance(attempt.found, Crystal):
            checked.append(check_attempt(attempt.found))
        if index % 500 == 0:
            progress("check", index, total)
    progress("check", total, total)
    valid = [c for c in checked if c.valid]
    groups = group_equal([c.crystal for c in valid])
    progress("compare", total, total)
    result: dict[str, Any] = {
        "attempts": total,
        "rates": _rates_of_all(checked, len(groups), total),
        "of_those_that_parsed": _rates_of_parsed(checked),
        "of_the_valid": {"unique": Rate(len(groups), len(valid))},
        "parse_failures": dict(
            Counter(a.found.reason.value for a in attempts if isinstance(a.found, Flaw))
        ),
        "adherence": adherence(attempts),
    }
    if known is not None:
        new = [members for members in groups if known.match(valid[members[0]].crystal) is None]
        result["rates"]["valid_unique_and_novel"] = Rate(len(new), total)
        result["of_the_valid"]["novel"] = Rate(sum(map(len, new)), len(valid))
    if like:
        result["wasserstein"] = _distances([c.crystal for c in valid], like)
        result["wasserstein_of_all_parsed"] = _distances([c.crystal for c in checked], like)
    return result


def _rates_of_all(checked: Sequence[CheckedAttempt], unique: int, total: int) -> dict[str, Rate]:
    return {
        "parsed": Rate(len(checked), total),
        "structurally_valid": Rate(sum(c.structural for c in checked), total),
        "no_pair_below_1_a": Rate(sum(c.closest_a >= CROWDED_A for c in checked), total),
        "compositionally_valid": Rate(sum(c.compositional for c in checked), total),
        "valid": Rate(sum(c.valid for c in checked), total),
        "valid_and_unique": Rate(unique, total),
    }


def _rates_of_parsed(checked: Sequence[CheckedAttempt]) -> dict[str, Rate]:
    compositions = [Counter(c.crystal.species) for c in checked]
    control = [
        smact_valid(amounts)
        for seed in range(CONTROL_DRAWS)
        for amounts in random_amounts(compositions, seed=seed)
    ]
    parsed = len(checked)
    return {
        "structurally_valid": Rate(sum(c.structural for c in checked), parsed),
        "pair_below_0_5_a": Rate(sum(c.closest_a < CLOSE_A for c in checked), parsed),
        "pair_below_1_a": Rate(sum(c.closest_a < CROWDED_A for c in checked), parsed),
        "compositionally_valid": Rate(sum(c.compositional for c in checked), parsed),
        "random_amounts_compositionally_valid": Rate(sum(control), len(control)),
        "valid": Rate(sum(c.valid for c in checked), parsed),
    }


def adherence(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Shares of the attempts that fulfil each wish; an attempt that did not parse fulfils none.

    Space groups are determined at two tolerances (Å). Formulas are compared in reduced form, as in
    the literature.
    """
    met: dict[str, list[bool]] = defaultdict(list)
    for attempt in attempts:
        wish = attempt.wish
        crystal = attempt.found if isinstance(attempt.found, Crystal) else None
        present = set(crystal.species) if crystal else set()
        if wish.formula is not None:
            wanted = _formula(wish.formula)
            same = crystal is not None and wanted == reduced_amounts(Counter(crystal.species))
            met["formula"].append(same)
            met["elements_of_formula"].append(wanted.keys() == present)
        if wish.elements:
            met["elements"].append(set(wish.elements) == present)
        if wish.space_group is not None:
            for symprec in SYMPREC_A:
                found = space_group(crystal, symprec) if crystal else None
                met[f"space_group_at_{symprec:g}_a"].append(found == wish.space_group)
    return {name: Rate(sum(hits), len(hits)) for name, hits in met.items()}


def adherence_to_height(connection: Any, wishes: Sequence[Wish]) -> dict[str, Rate]:
    """Shares of the attempts with a wanted height above the hull that are near it once relaxed.

    connection: a snapshot of a screening.  wishes: of the same attempts, in order. An attempt
    without a height, or one that is a duplicate of another, is not near.
    """
    wanted = {
        index: wish.e_above_hull_ev_per_atom
        for index, wish in enumerate(wishes)
        if wish.e_above_hull_ev_per_atom is not None
    }
    if not wanted:
        return {}
    heights = dict(
        connection.execute(
            'SELECT p."index", r.e_above_reference_ev_per_atom FROM results r '
            "JOIN proposals p USING (proposal_id) "
            "WHERE r.e_above_reference_ev_per_atom IS NOT NULL"
        ).fetchall()
    )
    return {
        f"within_{near:g}_ev_per_atom": Rate(
            sum(i in heights and abs(heights[i] - e) <= near for i, e in wanted.items()),
            len(wanted),
        )
        for near in HEIGHTS_WITHIN_EV_PER_ATOM
    }


def density_g_per_cm3(crystal: Crystal) -> float:
    """The density of a crystal."""
    from ase.data import atomic_masses, atomic_numbers

    mass = sum(float(atomic_masses[atomic_numbers[s]]) for s in crystal.species)
    return mass / crystal.volume_a3 * AMU_PER_A3


def check_attempt(crystal: Crystal) -> CheckedAttempt:
    """Whether a crystal's structure and composition are valid."""
    closest = closest_a(crystal)
    structural = closest >= CLOSE_A and crystal.volume_a3 >= LEAST_VOLUME_A3
    return CheckedAttempt(crystal, closest, structural, smact_valid(Counter(crystal.species)))


def closest_a(crystal: Crystal) -> float:
    """The shortest distance between two atoms or an atom and its image; exact below 1 Å."""
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
    """Smallest whole numbers of a formula; empty for text that is no formula."""
    try:
        amounts = formula_amounts(text)
    except InputError:
        return {}
    return reduced_amounts({el: round(n) for el, n in amounts.items() if n >= 1})
