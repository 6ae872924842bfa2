"""Do again what the store lacks of cycles that ended.

A journal that lost lines for good may lack proposals, relaxations and verdicts of cycles that it
shows as ended. Each step asks the store for what is missing, so here only the cycles are found.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullward.agents.campaign.prepare import planned, proposed
from hullward.agents.followup import assess_candidates
from hullward.agents.workspace import Workspace
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import CycleEnd, Plan, Proposal
from hullward.tools.screening import (
    check_proposals,
    judge_proposals,
    judge_union,
    label_candidates,
    label_judged,
    relax_candidates,
)

# Proposals of each cycle, and those that wait for a step. A structure with no hull has a verdict.
_STANDS = """
SELECT
    r.cycle, count(*) AS proposed,
    count(*) FILTER (r.state = 'pending' OR (r.state = 'hull_pending' AND NOT EXISTS (
        FROM verdicts v JOIN bases USING (reference_id, reference_version)
        WHERE v.relaxation_id = r.relaxation_id))) AS waiting
FROM results r GROUP BY r.cycle
"""


def cycle_end(workspace: Workspace, cycle: int) -> CycleEnd:
    """What a cycle came to, by the store."""
    (row,) = workspace.store.rows(
        """SELECT count(*) AS proposed, count(*) FILTER (WHERE state = 'judged') AS judged,
                  coalesce(sum(force_calls), 0)::BIGINT AS force_calls
           FROM results WHERE cycle = $cycle""",
        {"cycle": cycle},
    )
    return CycleEnd(campaign_id=workspace.campaign.campaign_id, cycle=cycle, **row)


def cycles_ended(workspace: Workspace) -> int:
    """How many cycles have ended, whether or not the end of each is stored."""
    return max((end.cycle + 1 for end in workspace.store.load(CycleEnd)), default=0)


def catch_up(workspace: Workspace) -> bool:
    """Do what is missing in the cycles that ended; returns whether there was something.

    A plan rests on earlier results, so the cycles follow one another. Nothing shows that a label is
    missing, so after each of them every cycle is labelled again, all at once: what is equal is then
    found whichever of its labels were kept.
    """
    touched = list(_incomplete(workspace))
    for cycle in touched:
        plan = _plan_of(workspace, cycle)
        workspace.store.add([plan])
        with workspace.screen.hooks.timed("propose"):
            workspace.store.add(proposed(workspace, plan))
        _carry_out(workspace)
    if touched:
        with workspace.screen.hooks.timed("judge"):
            judge_union(workspace.screen)
        assess_candidates(workspace.screen, workspace.machine.home_folder, _ended(workspace))
        workspace.store.add([cycle_end(workspace, cycle) for cycle in touched])
    return bool(touched)


def _carry_out(workspace: Workspace) -> None:
    """Every step for what lacks it among the proposals of the cycles that ended."""
    screen, proposals = workspace.screen, _ended(workspace)
    everything = workspace.store.load(Proposal)  # also of a cycle whose end is lost
    with screen.hooks.timed("check"):
        check_proposals(screen, everything)
    with screen.hooks.timed("match"):
        screen.proposed_structures.forget()
        label_candidates(screen, everything)
    relax_candidates(screen, proposals, workspace.spending.relaxations_left())
    with screen.hooks.timed("judge"):
        judge_proposals(screen, proposals)
        screen.relaxed_structures.forget()
        label_judged(screen, proposals)
    if screen.hooks.stopping():
        raise RunInterruptedError("stopped on request; nothing finished is lost")


def _ended(workspace: Workspace) -> list[Proposal]:
    """The proposals of the cycles that ended."""
    rows = workspace.store.rows(
        "SELECT proposal_id FROM proposals WHERE cycle < ?", [cycles_ended(workspace)]
    )
    return workspace.proposals(row["proposal_id"] for row in rows)


def _incomplete(workspace: Workspace) -> Iterator[int]:
    """The cycles that ended and lack a plan, a proposal, a relaxation or a verdict."""
    store = workspace.store
    ends = {end.cycle: end.proposed for end in store.load(CycleEnd)}
    stands = {row["cycle"]: row for row in store.rows(_STANDS)}
    plans = {plan.cycle for plan in store.load(Plan)}
    for cycle in range(cycles_ended(workspace)):
        row = stands.get(cycle, {"proposed": 0, "waiting": 0})
        short = cycle not in ends or cycle not in plans or row["proposed"] < ends[cycle]
        if short or row["waiting"]:
            yield cycle


def _plan_of(workspace: Workspace, cycle: int) -> Plan:
    stored = [plan for plan in workspace.store.load(Plan) if plan.cycle == cycle]
    return stored[-1] if stored else planned(workspace, cycle)
