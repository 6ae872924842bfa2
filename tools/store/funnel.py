"""Counts of proposals: each is in one state, each stage is part of the one before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from hullward.tools.records import Reason, State
from hullward.tools.store.projection import CountingError

NESTED = ("proposed", "parsed", "valid", "unique", "relaxed", "metastable", "stable")
NOVEL = ("novel_metastable", "novel_stable")
FAMILIES = ("novel_families",)
APART = ("rediscovered", "below_reference", "suspect")
WORDS = {
    "novel_metastable": "new and metastable",
    "novel_stable": "new and stable",
    "novel_families": "new families",
}
_SHOWN = 3  # ids of what is wrong


def stage_words(name: str) -> str:
    """A stage, state or reason in words."""
    return WORDS.get(name, name.replace("_", " "))


class Source(Protocol):
    """A DuckDB connection, an open store, a snapshot."""

    def execute(self, query: str, /) -> Any: ...


@dataclass(frozen=True)
class Counting:
    """How far the proposals of a campaign came."""

    states: dict[str, int]  # every State; together they are `proposed`
    funnel: dict[str, int]  # NESTED, NOVEL, FAMILIES and APART
    rejections: dict[str, int]  # reason: count, most frequent first

    @property
    def proposed(self) -> int:
        return self.funnel["proposed"]

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The counts as `--json` prints them."""
        return {"states": self.states, "funnel": self.funnel, "rejections": self.rejections}


def count(source: Source) -> Counting:
    """The counts by the views of the database."""
    states: dict[str, int] = {state.value: 0 for state in State}
    stages = (*NESTED, *NOVEL, *FAMILIES, *APART)
    columns = ", ".join(f'"{stage}"' for stage in stages)
    *numbers, found = source.execute(f"SELECT {columns}, states FROM counts").fetchone()
    states.update(found or {})
    funnel = dict(zip(stages, numbers, strict=True))
    reasons = source.execute(
        "SELECT reason, count(*) AS n FROM rejections GROUP BY reason ORDER BY n DESC, reason"
    ).fetchall()
    return Counting(states=states, funnel=funnel, rejections=dict(reasons))


def verify(source: Source) -> Counting:
    """Count twice, from the views and from the raw tables, and compare.

    Raises CountingError with what is wrong and the first few ids affected.
    """
    for what, query in FLAWS.items():
        (found, first) = source.execute(
            f"SELECT count(*), list(id::VARCHAR ORDER BY id)[:{_SHOWN}] FROM ({query}) AS flaw(id)"
        ).fetchone()
        if found:
            shown = ", ".join(first) + (" and others" if found > _SHOWN else "")
            raise CountingError(f"the counting is broken: {found} {what}, {shown}")
    counting = count(source)
    problems = list(_problems(counting, _recount(source)))
    if problems:
        raise CountingError("the counting is broken: " + "; ".join(problems))
    return counting


def _problems(counting: Counting, recount: Counter[str]) -> Iterable[str]:
    states, funnel = counting.states, counting.funnel
    if unknown := set(states) - set(State):
        yield f"unknown states {sorted(unknown)}"
    if sum(states.values()) != counting.proposed:
        yield f"states sum to {sum(states.values())}, proposed are {counting.proposed}"
    for state in State:
        if states[state] != recount[state]:
            yield f"{states[state]} {state} by the views, {recount[state]} by the tables"
    for stage, expected in (
        ("parsed", counting.proposed - recount[State.REJECTED_PARSE]),
        ("relaxed", recount[State.HULL_PENDING] + recount[State.JUDGED]),
    ):
        if funnel[stage] != expected:
            yield f"{funnel[stage]} {stage} by the funnel, {expected} by the tables"
    for chain in (
        NESTED,
        ("metastable", *NOVEL),
        ("stable", "novel_stable"),
        ("novel_metastable", *FAMILIES),
    ):
        for outer, inner in pairwise(chain):
            if funnel[inner] > funnel[outer]:
                yield f"more {inner} ({funnel[inner]}) than {outer} ({funnel[outer]})"
    rejected = states[State.REJECTED_PARSE] + states[State.REJECTED_CHECK]
    if sum(counting.rejections.values()) != rejected:
        yield f"{sum(counting.rejections.values())} reasons for {rejected} rejections"
    if unknown := set(counting.rejections) - set(Reason):
        yield f"unknown reasons {sorted(unknown)}"


# Each query returns the ids of rows that must not exist.
FLAWS = {
    "proposals stored twice": "SELECT proposal_id FROM proposals GROUP BY ALL HAVING count(*) > 1",
    "proposals rejected twice": (
        "SELECT proposal_id FROM rejections GROUP BY ALL HAVING count(*) > 1"
    ),
    "proposals both rejected and candidates": (
        "SELECT proposal_id FROM rejections SEMI JOIN "
        "(FROM proposals WHERE candidate_id IS NOT NULL) USING (proposal_id)"
    ),
    "rejections of unknown proposals": (
        "SELECT proposal_id FROM rejections ANTI JOIN proposals USING (proposal_id)"
    ),
    "candidates of unknown proposals": (
        "SELECT candidate_id FROM candidates ANTI JOIN proposals USING (proposal_id, candidate_id)"
    ),
    "proposals of unknown candidates": (
        "SELECT proposal_id FROM proposals ANTI JOIN candidates USING (candidate_id) "
        "WHERE proposals.candidate_id IS NOT NULL"
    ),
    "labels of proposals that are no candidates": (
        "SELECT proposal_id FROM labels ANTI JOIN "
        "(FROM proposals WHERE candidate_id IS NOT NULL) USING (proposal_id)"
    ),
    "relaxations of unknown candidates": (
        "SELECT relaxation_id FROM relaxations ANTI JOIN candidates USING (candidate_id)"
    ),
    "candidates relaxed twice by one potential and protocol": (
        "SELECT candidate_id FROM relaxations "
        "GROUP BY candidate_id, potential_sha256, protocol_id HAVING count(*) > 1"
    ),
    "verdicts on unknown relaxations": (
        "SELECT relaxation_id FROM verdicts ANTI JOIN relaxations USING (relaxation_id)"
    ),
    "candidates whose force calls are not those of their proposal": (
        "SELECT c.candidate_id FROM candidates c JOIN proposals p USING (proposal_id) "
        "LEFT JOIN (SELECT candidate_id, sum(force_calls) AS spent FROM relaxations "
        "GROUP BY candidate_id) r ON r.candidate_id = c.candidate_id "
        "WHERE r.spent IS DISTINCT FROM p.force_calls"
    ),
    "proposals charged for a crystal another one brought": (
        "SELECT proposal_id FROM proposals ANTI JOIN candidates USING (proposal_id) "
        "WHERE force_calls IS NOT NULL"
    ),
}


# The states by set algebra on the raw tables, independent of the views.
_RECOUNT = """
WITH brought AS (
    SELECT p.proposal_id, p.candidate_id, c.proposal_id AS first
    FROM proposals p LEFT JOIN candidates c USING (candidate_id)
),
ends AS (
    SELECT
        candidate_id,
        CASE
            WHEN failure IS NOT NULL AND failure <> 'stalled' THEN 'failed'
            WHEN NOT converged THEN 'unconverged'
            WHEN relaxation_id IN (
                SELECT relaxation_id FROM verdicts
                WHERE e_above_hull_ev_per_atom IS NOT NULL AND (reference_id, reference_version)
                    IN (SELECT (reference_id, reference_version) FROM bases)
            ) THEN 'judged'
            ELSE 'hull_pending'
        END AS state
    FROM relaxations WHERE (potential_sha256, protocol_id)
        IN (SELECT (potential_sha256, protocol_id) FROM bases)
),
labelled AS (SELECT proposal_id, kind FROM labels WHERE moment = 'before'),
sets AS (
    SELECT
        candidate_id,
        proposal_id IN (SELECT proposal_id FROM rejections WHERE stage = 'parse') AS parse,
        proposal_id IN (SELECT proposal_id FROM rejections WHERE stage = 'check') AS checked,
        proposal_id IN (SELECT proposal_id FROM labelled WHERE kind = 'known') AS known,
        proposal_id IN (SELECT proposal_id FROM labelled WHERE kind = 'duplicate') AS twin,
        coalesce(first = proposal_id, false) AS own
    FROM brought
)
SELECT
    CASE
        WHEN parse THEN 'rejected_parse'
        WHEN checked THEN 'rejected_check'
        WHEN twin OR (candidate_id IS NOT NULL AND NOT own AND NOT known) THEN 'duplicate'
        WHEN known AND NOT (own AND ends.state IS NOT NULL) THEN 'known'
        ELSE coalesce(ends.state, 'pending')
    END AS state,
    count(*)
FROM sets LEFT JOIN ends USING (candidate_id)
GROUP BY ALL
"""


def _recount(source: Source) -> Counter[str]:
    return Counter(dict(source.execute(_RECOUNT).fetchall()))
