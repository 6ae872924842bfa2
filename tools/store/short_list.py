"""What the results of a campaign show first: the short list, its order, the systems drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SHORT_LIST_RULE = (
    "judged, neither a known structure nor a duplicate, composition covered by the reference, not "
    "suspect (or confirmed by a second opinion), stable or metastable; of each family (one formula "
    "on one lattice, whatever its ordering) the lowest in energy. Order: candidates that a second "
    "opinion disputes last, then by the probability that DFT finds them within 50 meV/atom of the "
    "hull, where a calibrator gives one, then by height above the hull of reference and campaign "
    "together and over the reference alone"
)

# The rows that the funnel counts as novel_metastable and those whose novelty could not be judged,
# and those of them that stand for a family.
MEMBERS = "unmatched AND metastable"
SHORT_LIST = f"{MEMBERS} AND represents_family"


def ranking(*heights: str) -> str:
    """SQL that orders rows of `results`: most probable for DFT first, then lowest.

    heights: columns in eV/atom, the most important one first. They are rounded, so that the last
    digits do not order what is on the hull; equals are ordered by id.
    """
    rounded = [f"round({column}, 6) NULLS LAST" for column in heights]
    return ", ".join(["round(p_below_50mev, 4) DESC NULLS LAST", *rounded, "candidate_id"])


ORDER_BEFORE_OPINIONS = ranking("e_above_union_ev_per_atom", "e_above_reference_ev_per_atom")
SHORT_LIST_ORDER = f"coalesce(disputed, false), {ORDER_BEFORE_OPINIONS}"


SYSTEMS_DRAWN = 6


def systems_to_draw(judged: Mapping[str, int], wanted: Iterable[str] = ()) -> list[str]:
    """The chemical systems that are part of no other, those with most judged candidates first.

    judged: candidates of exactly each system.  wanted: systems asked for; they count as soon as
    something within them is judged.

    >>> systems_to_draw({"Li-O": 3, "Mn-O": 1, "Fe": 9}, ["O-Mn-Li"])
    ['Fe', 'Li-Mn-O']
    """
    sets = {frozenset(system.split("-")): 0 for system in judged}
    sets |= {
        frozenset(system.split("-")): 0
        for system in wanted
        if any(part <= set(system.split("-")) for part in sets)
    }
    largest = [s for s in sets if not any(s < other for other in sets)]
    counts = {
        "-".join(sorted(one)): sum(n for s, n in judged.items() if set(s.split("-")) <= one)
        for one in largest
    }
    return sorted(counts, key=lambda system: (-counts[system], system))
