"""Prepare the next cycle's brief, plan and proposals while this one is relaxed.

Feedback has a fixed lag: cycle k+1 is planned from results up to cycle k-1, and those are there
before cycle k is relaxed. So whether it is prepared meanwhile or afterwards, by the nodes, the plan
and the questions are the same, and so is the table. What was asked ahead is stored as it is
answered; proposals are stored by their own node, when their turn has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hullward.agents.operators import propose
from hullward.agents.planning import Brief, make_brief, make_plan, plan_by_chat, read_outcomes
from hullward.agents.workspace import Workspace
from hullward.tools.records import Plan, Record


def briefed(workspace: Workspace, cycle: int) -> Brief | None:
    """The brief for the planner of a cycle; made once, then found in the store."""
    if workspace.endpoints.chat is None:
        return None
    return make_brief(workspace, cycle, read_outcomes(workspace.store, cycle))


def planned(workspace: Workspace, cycle: int) -> Plan:
    """The plan of a cycle: by the rules, changed by the chat model where there is one.

    A plan whose proposals are stored is carried out to its end, whatever the rules are by now.
    """
    begun = workspace.store.rows(
        "SELECT plan_id FROM proposals WHERE cycle = ? AND plan_id IS NOT NULL LIMIT 1", [cycle]
    )
    if plans := workspace.store.load(Plan, [row["plan_id"] for row in begun]):
        return plans[0]  # not if a damaged journal lost it
    outcomes = read_outcomes(workspace.store, cycle)
    rules = make_plan(
        workspace.campaign,
        cycle,
        outcomes,
        workspace.reasons,
        list(workspace.seeds),
        workspace.spare_phases(),
    )
    return plan_by_chat(workspace, rules, outcomes, make_brief(workspace, cycle, outcomes))


def proposed(workspace: Workspace, plan: Plan) -> list[Record]:
    """The proposals of a plan, prepared ahead or made now."""
    ready = workspace.ready.pop(plan.plan_id, None)
    if ready is not None:
        return ready
    return propose(
        workspace, plan, workspace.screen.hooks.stopping, workspace.screen.hooks.progress
    )


@contextmanager
def preparing(workspace: Workspace, cycle: int, *, meanwhile: bool = True) -> Iterator[None]:
    """Prepare a cycle in a thread for as long as the block runs; then wait for it.

    It prepares nothing where relaxations run in this process, where there are none (`meanwhile`
    False), with `overlap: false`, or where the campaign ends before. An exception of the thread is
    raised at the end of the block, unless the block has one of its own.
    """
    screen = workspace.screen
    wanted = meanwhile and workspace.campaign.overlap and not screen.executor.in_this_process
    if not wanted or workspace.spending.reason_to_stop(cycle):
        yield
        return
    given_up = threading.Event()
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            with screen.hooks.timed("propose"):
                _prepare(workspace, cycle, lambda: given_up.is_set() or screen.hooks.stopping())
        except BaseException as error:  # raised where the block ends
            errors.append(error)

    thread = threading.Thread(target=prepare, name="ahead", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        given_up.set()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _prepare(workspace: Workspace, cycle: int, stopping: Callable[[], bool]) -> None:
    plan = planned(workspace, cycle)
    workspace.store.add([plan])
    if stopping():
        return
    records = propose(workspace, plan, stopping)
    if not stopping():
        workspace.ready[plan.plan_id] = records
