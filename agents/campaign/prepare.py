"""Thinking ahead: the next cycle's brief, plan and proposals, while this one is relaxed.

Feedback has a fixed lag: cycle k+1 is planned from results up to cycle k-1, and those are there
before cycle k is relaxed. So whether it is prepared meanwhile or afterwards, by the nodes, the plan
and the questions are the same, and so is the table. What was asked ahead is stored as it is
answered; proposals are stored by their own node, when their turn has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from hullward.agents.operators import propose
from hullward.agents.planning import Brief, make_brief, make_plan, plan_by_chat, read_outcomes
from hullward.agents.workspace import Workspace
from hullward.tools.records import Plan, Record


def briefed(workspace: Workspace, cycle: int) -> Brief | None:
    """What the planner of a cycle is told; asked once, then found in the store."""
    outcomes = read_outcomes(workspace.store, cycle)
    return make_brief(workspace, cycle, outcomes)


def planned(workspace: Workspace, cycle: int) -> Plan:
    """The plan of a cycle: by the rules, changed by the chat model where there is one."""
    outcomes = read_outcomes(workspace.store, cycle)
    rules = make_plan(
        workspace.campaign, cycle, outcomes, workspace.formulas, workspace.spare_parents()
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


class NextCycle:
    """Prepares a cycle in a thread for as long as the block runs; then waits for it.

    Nothing is prepared where relaxations run in this very process, where there are none, where the
    campaign says not to, or where it will end before. An exception of the thread is raised at the
    end of the block, unless the block has one of its own.
    """

    def __init__(self, workspace: Workspace, cycle: int, *, meanwhile: bool = True) -> None:
        self._workspace, self._cycle, self._meanwhile = workspace, cycle, meanwhile
        self._given_up = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NextCycle:
        campaign, screen = self._workspace.campaign, self._workspace.screen
        wanted = self._meanwhile and campaign.overlap and screen.workers > 0
        if wanted and not self._workspace.reason_to_stop(self._cycle):
            self._thread = threading.Thread(target=self._prepare, name="ahead", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._given_up.set()
        if self._thread is not None:
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _stopping(self) -> bool:
        return self._given_up.is_set() or self._workspace.screen.hooks.stopping()

    def _prepare(self) -> None:
        with self._workspace.screen.hooks.timed("propose"):
            try:
                self._work(self._stopping)
            except BaseException as error:  # raised where the block ends
                self._error = error

    def _work(self, stopping: Callable[[], bool]) -> None:
        workspace = self._workspace
        plan = planned(workspace, self._cycle)
        workspace.store.add([plan])
        if stopping():
            return
        records = propose(workspace, plan, stopping)
        if not stopping():
            workspace.ready[plan.plan_id] = records
