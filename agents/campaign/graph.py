"""The loop on one page: brief → plan → propose → screen → relax → judge → record → brief …

State is narrow and holds ids only; structures stay in the store. Every node can be run again
after a kill: what it has already done is found in the store and skipped. Brief, plan and proposals
of the next cycle depend on results up to the last one only, so they are prepared while this cycle
is relaxed (`hullward.agents.campaign.prepare`); the nodes then find their work done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from hullward.agents.campaign.commands import apply_waiting
from hullward.agents.campaign.opening import workspace_at
from hullward.agents.campaign.outage import stop_if_no_model_answers
from hullward.agents.campaign.prepare import NextCycle, briefed, planned, proposed
from hullward.agents.followup import assess_candidates
from hullward.agents.workspace import Workspace
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import CycleEnd, Plan, Proposal

NODES = 7  # a cycle


@dataclass(frozen=True)
class Where:
    """The campaign a run belongs to; all else is found there."""

    directory: str


class Start(TypedDict):
    """What a campaign starts from."""

    campaign_id: str
    cycle: int


class Cycle(Start, total=False):
    """What travels between nodes."""

    plan_id: str
    proposal_ids: list[str]
    stop: str  # why the campaign ended; empty while it goes on


def brief(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Have the results so far read, where a chat model is there to read them."""
    bench = workspace_at(runtime.context.directory)
    stop_if_no_model_answers(bench, state["cycle"] - 1)
    with bench.screen.timed("plan"):
        briefed(bench, state["cycle"])
    return {}


def plan(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Decide quotas, formulas and parents from the outcomes this cycle may see."""
    bench = workspace_at(runtime.context.directory)
    with bench.screen.timed("plan"):
        made = planned(bench, state["cycle"])
    bench.store.add([made])
    return {"plan_id": made.plan_id}


def propose(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Carry the plan out."""
    bench = workspace_at(runtime.context.directory)
    (made,) = bench.store.load(Plan, [state["plan_id"]])
    with bench.screen.timed("propose"):
        records = proposed(bench, made)
    _stop_here_if_asked(bench)  # an answer still missing is asked for when it goes on
    bench.store.add(records)
    return {"proposal_ids": [r.proposal_id for r in records if isinstance(r, Proposal)]}


def screen(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Parse, check, and label what is known or proposed before."""
    bench = workspace_at(runtime.context.directory)
    proposals = bench.proposals(state["proposal_ids"])
    with bench.screen.timed("check"):
        bench.screen.check(proposals)
    with bench.screen.timed("match"):
        bench.screen.label(proposals)
    _stop_here_if_asked(bench)
    return {}


def relax(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Relax what is new, within the budget, while the next cycle is prepared."""
    bench = workspace_at(runtime.context.directory)
    proposals, limit = bench.proposals(state["proposal_ids"]), bench.relaxations_left()
    with NextCycle(bench, state["cycle"] + 1, meanwhile=bool(proposals)):
        bench.screen.relax(proposals, limit=limit)
    _stop_here_if_asked(bench)
    return {}


def judge(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Give every converged relaxation its height over the reference."""
    bench = workspace_at(runtime.context.directory)
    with bench.screen.timed("judge"):
        bench.screen.judge(bench.proposals(state["proposal_ids"]))
    _stop_here_if_asked(bench)
    return {}


def record(state: Cycle, runtime: Runtime[Where]) -> dict[str, Any]:
    """Recompute the campaign's own hull, close the cycle, publish, and decide whether to go on."""
    bench = workspace_at(runtime.context.directory)
    with bench.screen.timed("judge"):
        bench.screen.judge_union()
    apply_waiting(bench.screen)
    assess_candidates(bench.screen)
    bench.store.add([_cycle_end(bench, state["cycle"])])
    bench.store.publish()
    following = state["cycle"] + 1
    return {"cycle": following, "stop": bench.reason_to_stop(following)}


def after_record(state: Cycle) -> Literal["brief", "__end__"]:
    """Another cycle, or the end."""
    return "__end__" if state.get("stop") else "brief"


def _stop_here_if_asked(bench: Workspace) -> None:
    if bench.screen.stopping():
        raise RunInterruptedError("stopped on request; nothing finished is lost")


def _cycle_end(bench: Workspace, cycle: int) -> CycleEnd:
    (row,) = bench.store.rows(
        """SELECT count(*) AS proposed, count(*) FILTER (WHERE state = 'judged') AS judged,
                  coalesce(sum(force_calls), 0)::BIGINT AS force_calls
           FROM results WHERE cycle = $cycle""",
        {"cycle": cycle},
    )
    return CycleEnd(campaign_id=bench.campaign.campaign_id, cycle=cycle, **row)


def campaign_graph() -> CompiledStateGraph[Cycle, Where, Start, Cycle]:
    """What `langgraph.json` names: LangGraph's server brings its own checkpointer.

    It passes its configuration to any argument a factory has, so this one has none.
    """
    return build_graph()


def build_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[Cycle, Where, Start, Cycle]:
    """The compiled graph; invoke it with Where(directory) as context."""
    graph = StateGraph(Cycle, context_schema=Where, input_schema=Start)
    graph.add_node("brief", brief)
    graph.add_node("plan", plan)
    graph.add_node("propose", propose)
    graph.add_node("screen", screen)
    graph.add_node("relax", relax)
    graph.add_node("judge", judge)
    graph.add_node("record", record)
    graph.add_edge(START, "brief")
    graph.add_edge("brief", "plan")
    graph.add_edge("plan", "propose")
    graph.add_edge("propose", "screen")
    graph.add_edge("screen", "relax")
    graph.add_edge("relax", "judge")
    graph.add_edge("judge", "record")
    graph.add_conditional_edges("record", after_record)
    return graph.compile(checkpointer=checkpointer, name="campaign")
