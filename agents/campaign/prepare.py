"""Thinking ahead: the next cycle's brief, plan and proposals, while this one is relaxed.

Feedback has a fixed lag: cycle k+1 is planned from results up to cycle k-1, and those are there
before cycle k is relaxed. So whether it is prepared meanwhile or afterwards, by the nodes, the plan
and the questions are the same, and so is the table. What was asked ahead is stored as it is
answered; proposals are stored by their own node, when their turn has come.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from hullward.agents.operators import propose
from hullward.agents.planning import Brief, make_brief, make_plan, plan_by_chat, read_outcomes
from hullward.agents.workspace import Workspace
from hullward.tools.records import Plan, Record


def briefed(bench: Workspace, cycle: int) -> Brief | None:
    """What the planner of a cycle is told; asked once, then found in the store."""
    outcomes = read_outcomes(bench.store, cycle)
    return make_brief(bench, cycle, outcomes)


def planned(bench: Workspace, cycle: int) -> Plan:
    """The plan of a cycle: by the rules, changed by the chat model where there is one."""
    outcomes = read_outcomes(bench.store, cycle)
    rules = make_plan(bench.campaign, cycle, outcomes, bench.formulas, bench.spare_parents())
    return plan_by_chat(bench, rules, outcomes, make_brief(bench, cycle, outcomes))


def proposed(bench: Workspace, plan: Plan) -> list[Record]:
    """The proposals of a plan, prepared ahead or made now."""
    ready = bench.ready.pop(plan.plan_id, None)
    if ready is not None:
        return ready
    return propose(bench, plan, bench.screen.stopping, bench.screen.progress)


class NextCycle:
    """Prepares a cycle in a thread for as long as the block runs; then waits for it.

    Nothing is prepared where relaxations run in this very process, where there are none, where the
    campaign says not to, or where it will end before. An exception of the thread is raised at the
    end of the block, unless the block has one of its own.
    """

    def __init__(self, bench: Workspace, cycle: int, *, meanwhile: bool = True) -> None:
        self._bench, self._cycle, self._meanwhile = bench, cycle, meanwhile
        self._given_up = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NextCycle:
        campaign, screen = self._bench.campaign, self._bench.screen
        wanted = self._meanwhile and campaign.overlap and screen.workers > 0
        if wanted and not self._bench.reason_to_stop(self._cycle):
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
        return self._given_up.is_set() or self._bench.screen.stopping()

    def _prepare(self) -> None:
        started = time.thread_time()
        try:
            self._work(self._stopping)
        except BaseException as error:  # told where the block ends
            self._error = error
        self._bench.screen.stage_cpu_s["propose"] += time.thread_time() - started

    def _work(self, stopping: Callable[[], bool]) -> None:
        bench = self._bench
        plan = planned(bench, self._cycle)
        bench.store.add([plan])
        if stopping():
            return
        records = propose(bench, plan, stopping)
        if not stopping():
            bench.ready[plan.plan_id] = records
