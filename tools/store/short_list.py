"""The rule of the short list and its order: report, export, planner and checks share them."""

from __future__ import annotations

SHORT_LIST_RULE = (
    "judged, novel before and after relaxation, composition covered by the reference, not suspect "
    "(or confirmed by a second opinion), stable or metastable; of each family (one formula on one "
    "lattice, whatever its ordering) the lowest in energy. Order: candidates that a second "
    "opinion disputes last, then by the probability that DFT finds them within 50 meV/atom of the "
    "hull, where a calibrator gives one, then by height over reference ∪ campaign and over the "
    "reference alone"
)

# The rows that the funnel counts as novel_metastable, and those of them that stand for a family.
MEMBERS = "novel AND metastable"
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
