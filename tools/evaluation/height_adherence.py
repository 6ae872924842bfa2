"""Did those who were asked for a height above the hull reach it? Read off a screening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hullward.tools.evaluation.metrics import Rate
from hullward.tools.records import Wish

WITHIN_EV_PER_ATOM = (0.05, 0.1)


def adherence_to_height(connection: Any, wishes: Sequence[Wish]) -> dict[str, Rate]:
    """Shares of the attempts that asked for a height and are near it after relaxation.

    connection: a snapshot of a screening.  wishes: of the same attempts, in order. An attempt
    without a height, or whose twin was relaxed in its place, is not near.
    """
    asked = {
        index: wish.e_above_hull_ev_per_atom
        for index, wish in enumerate(wishes)
        if wish.e_above_hull_ev_per_atom is not None
    }
    if not asked:
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
            sum(i in heights and abs(heights[i] - e) <= near for i, e in asked.items()), len(asked)
        )
        for near in WITHIN_EV_PER_ATOM
    }
