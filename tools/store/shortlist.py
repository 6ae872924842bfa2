"""The short-list rule and what ranks higher, in one place: report, export, planner all ask here."""

from __future__ import annotations

import duckdb

RULE = (
    "judged, novel before and after relaxation, composition covered by the reference, not suspect "
    "(or confirmed by a second opinion), stable or metastable; what a second opinion disputes "
    "last; most probably within 50 meV/atom of DFT's hull first where a calibrator says so, then "
    "lowest height over reference ∪ campaign, then over the reference alone"
)

# The same rows that the funnel counts as novel_metastable.
CONDITION = "novel AND metastable"


def ranking(*heights: str) -> str:
    """The order of what is worth more, for SQL over `results`: likeliest first, then lowest.

    heights: columns, eV/atom, the first one counting most. Rounded, so that everything on the hull
    is level whatever the last digits say; equals by id.
    """
    rounded = [f"round({column}, 6) NULLS LAST" for column in heights]
    return ", ".join(["round(p_below_50mev, 4) DESC NULLS LAST", *rounded, "candidate_id"])


BEFORE_OPINIONS = ranking("e_above_union_ev_per_atom", "e_above_reference_ev_per_atom")
ORDER = f"coalesce(disputed, false), {BEFORE_OPINIONS}"


def shortlist(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Candidate ids worth a closer look, best first; equal heights by id."""
    rows = connection.execute(
        f"SELECT candidate_id FROM results WHERE {CONDITION} ORDER BY {ORDER}"
    )
    return [candidate_id for (candidate_id,) in rows.fetchall()]
