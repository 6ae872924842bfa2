"""Outcomes of earlier cycles, read from the store: the planner's memory.

Feedback has a fixed lag of one cycle: cycle k is planned from results up to cycle k-2, whatever
has finished meanwhile. Heights here are those over the fixed reference, so that what a plan saw
does not change when later candidates lower the campaign's own hull.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hullward.tools.records import OperatorOutcome
from hullward.tools.store import Store, ranking

LAG_CYCLES = 2
MAX_PARENTS = 12
PARENTS_PER_FORMULA = 2


@dataclass(frozen=True, kw_only=True)
class FormulaOutcome:
    """The outcome of one reduced formula."""

    formula: str
    tried: int  # proposals that aimed at it, of every earlier cycle
    best_ev_per_atom: float | None  # lowest height over the reference; None: no results yet


@dataclass(frozen=True, kw_only=True)
class ParentOutcome:
    """A judged candidate that may be mutated."""

    candidate_id: str
    formula: str
    e_above_reference_ev_per_atom: float


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Everything a plan is based on."""

    up_to_cycle: int  # -1: nothing yet
    operators: tuple[OperatorOutcome, ...] = ()
    formulas: tuple[FormulaOutcome, ...] = ()
    parents: tuple[ParentOutcome, ...] = ()  # ranked as a short list is, few of a formula


def read_outcomes(store: Store, cycle: int) -> Outcomes:
    """The outcomes that the plan of `cycle` may see."""
    up_to = cycle - LAG_CYCLES
    aimed = {
        row["formula"]: row["tried"]
        for row in store.rows(
            """SELECT target_formula AS formula, count(*) AS tried FROM proposals
               WHERE cycle < ? AND target_formula IS NOT NULL GROUP BY ALL ORDER BY ALL""",
            [cycle],
        )
    }
    if up_to < 0:
        return Outcomes(up_to_cycle=-1, formulas=_tried(aimed, {}))
    order = ranking("e_above_reference_ev_per_atom")
    (found,) = store.rows(
        f"""WITH seen AS MATERIALIZED (FROM results WHERE cycle <= $up_to),
            credible AS MATERIALIZED (FROM seen WHERE state = 'judged' AND NOT suspect),
            by_operator AS (
                SELECT operator, count(*) AS proposed,
                       count(*) FILTER (WHERE state = 'judged') AS judged,
                       count(*) FILTER (WHERE rewarded) AS rewarded,
                       coalesce(sum(force_calls), 0)::BIGINT AS force_calls
                FROM seen GROUP BY operator
            ),
            by_formula AS (
                SELECT formula, min(e_above_reference_ev_per_atom) AS best_ev_per_atom
                FROM credible GROUP BY formula
            ),
            ranked AS (
                SELECT candidate_id, formula, e_above_reference_ev_per_atom,
                       row_number() OVER (ORDER BY {order}) AS place
                FROM credible WHERE duplicate_when_judged IS NULL
                QUALIFY row_number() OVER (PARTITION BY formula ORDER BY {order})
                    <= {PARENTS_PER_FORMULA}
            )
            SELECT
                (SELECT list(x ORDER BY operator) FROM by_operator x) AS operators,
                (SELECT list(x ORDER BY formula) FROM by_formula x) AS formulas,
                (SELECT list(x ORDER BY place) FROM
                    (SELECT * FROM ranked ORDER BY place LIMIT {MAX_PARENTS}) x) AS parents""",
        {"up_to": up_to},
    )
    return Outcomes(
        up_to_cycle=up_to,
        operators=tuple(OperatorOutcome(**row) for row in found["operators"] or ()),
        formulas=_tried(
            aimed, {row["formula"]: row["best_ev_per_atom"] for row in found["formulas"] or ()}
        ),
        parents=tuple(
            ParentOutcome(
                candidate_id=row["candidate_id"],
                formula=row["formula"],
                e_above_reference_ev_per_atom=row["e_above_reference_ev_per_atom"],
            )
            for row in found["parents"] or ()
        ),
    )


def _tried(aimed: Mapping[str, int], best: Mapping[str, float]) -> tuple[FormulaOutcome, ...]:
    """What is known of every formula that was aimed at or found."""
    return tuple(
        FormulaOutcome(
            formula=formula, tried=aimed.get(formula, 0), best_ev_per_atom=best.get(formula)
        )
        for formula in sorted({*aimed, *best})
    )
