"""Counts of proposals: each is in one state, each stage is part of the one before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from hullward.tools.records import Reason, State
from hullward.tools.store.projection import CountingError

NESTED = ("proposed", "parsed", "valid", "unique", "relaxed", "metastable", "stable")
NOVEL = ("novel_metastable", "novel_stable")
APART = ("rediscovered", "below_reference", "suspect")


class Source(Protocol):
    """A DuckDB connection, an open store, a snapshot."""

    def execute(self, query: str, /) -> Any: ...


@dataclass(frozen=True)
class Counting:
    """How far the proposals of a campaign came."""

    states: dict[str, int]  # every State; together they are `proposed`
    funnel: dict[str, int]  # NESTED, NOVEL and APART
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
    states.update(source.execute("SELECT state, count(*) FROM states GROUP BY state").fetchall())
    counts = dict(source.execute("SELECT stage, count FROM funnel").fetchall())
    funnel = {stage: counts.get(stage, 0) for stage in (*NESTED, *NOVEL, *APART)}
    reasons = source.execute(
        "SELECT reason, count(*) AS n FROM rejections GROUP BY reason ORDER BY n DESC, reason"
    ).fetchall()
    return Counting(states=states, funnel=funnel, rejections=dict(reasons))


def verify(source: Source) -> Counting:
    """Count twice, from the views and from the raw tables, and compare.

    Raises CountingError with what is wrong and the first few ids affected.
    """
    for what, query in FLAWS.items():
        found = [row[0] for row in source.execute(query).fetchall()]
        if found:
            raise CountingError(f"the counting is broken: {len(found)} {what}, {_some(found)}")
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
    for chain in (NESTED, ("metastable", *NOVEL), ("stable", "novel_stable")):
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


def _recount(source: Source) -> Counter[str]:
    """The states by set algebra on the raw tables, independent of the views."""

    def ids(query: str) -> set[str]:
        return {row[0] for row in source.execute(query).fetchall()}

    parse = ids("SELECT proposal_id FROM rejections WHERE stage = 'parse'")
    check = ids("SELECT proposal_id FROM rejections WHERE stage = 'check'")
    before = "SELECT proposal_id FROM labels WHERE moment = 'before' AND kind ="
    known, labelled = ids(f"{before} 'known'"), ids(f"{before} 'duplicate'")
    candidate_of = dict(
        source.execute(
            "SELECT proposal_id, candidate_id FROM proposals WHERE candidate_id <> ''"
        ).fetchall()
    )
    brought = dict(source.execute("SELECT candidate_id, proposal_id FROM candidates").fetchall())
    height = ids(
        "SELECT relaxation_id FROM verdicts WHERE e_above_hull_ev_per_atom IS NOT NULL AND "
        "(reference_id, reference_version) IN (SELECT (reference_id, reference_version) FROM bases)"
    )
    relaxations = source.execute(
        "SELECT candidate_id, relaxation_id, failure, converged FROM relaxations WHERE "
        "(potential_sha256, protocol_id) IN (SELECT (potential_sha256, protocol_id) FROM bases)"
    ).fetchall()
    ends: dict[str, State] = {}
    for candidate_id, relaxation_id, failure, converged in relaxations:
        if failure not in (None, Reason.STALLED):
            state = State.FAILED
        elif not converged:
            state = State.UNCONVERGED
        else:
            state = State.JUDGED if relaxation_id in height else State.HULL_PENDING
        ends[candidate_id] = state

    counts: Counter[str] = Counter({State.REJECTED_PARSE: len(parse)})
    counts[State.REJECTED_CHECK] = len(check - parse)
    for proposal_id in ids("SELECT proposal_id FROM proposals") - parse - check:
        candidate_id = candidate_of.get(proposal_id)
        first = brought.get(candidate_id or "") == proposal_id
        if proposal_id in labelled or (candidate_id and not first and proposal_id not in known):
            counts[State.DUPLICATE] += 1
        elif proposal_id in known and not (first and candidate_id in ends):
            counts[State.KNOWN] += 1
        else:
            counts[ends.get(candidate_id or "", State.PENDING)] += 1
    return counts


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(sorted(map(str, ids))[:3])
    return shown if len(ids) <= 3 else f"{shown} and others"
