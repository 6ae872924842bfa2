"""The loop on one page: brief → plan → propose → screen → relax → judge → record → brief …

State holds ids only; structures stay in the store. Every node can be run again after a kill: what
it has already done is found in the store and skipped. Brief, plan and proposals of the next cycle
depend on results up to the last one only, so they are prepared while this cycle is relaxed
(`hullward.agents.campaign.prepare`); the nodes then find their work done.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from hullward.agents.campaign.catching_up import cycle_end
from hullward.agents.campaign.commands import apply_waiting
from hullward.agents.campaign.outage import stop_if_no_model_answers
from hullward.agents.campaign.prepare import briefed, planned, preparing, proposed
from hullward.agents.followup import assess_candidates
from hullward.agents.settings import read_machine
from hullward.agents.workspace import Workspace, open_workspace
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import Plan, Proposal
from hullward.tools.screening import (
    check_proposals,
    judge_proposals,
    judge_union,
    label_candidates,
    relax_candidates,
)

NODES = 7  # a cycle


class Start(TypedDict):
    """What a campaign starts from."""

    campaign_id: str
    cycle: int


class Cycle(Start, total=False):
    """The state that nodes hand on."""

    plan_id: str
    proposal_ids: list[str]
    stop: str  # why the campaign ended; empty while it goes on


def brief(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Let the chat model, if there is one, sum up the results so far."""
    workspace = runtime.context
    stop_if_no_model_answers(workspace, state["cycle"] - 1)
    with workspace.screen.hooks.timed("plan"):
        briefed(workspace, state["cycle"])
    return {}


def plan(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Decide quotas, formulas and parents from the outcomes this cycle may see."""
    workspace = runtime.context
    with workspace.screen.hooks.timed("plan"):
        made = planned(workspace, state["cycle"])
    workspace.store.add([made])
    return {"plan_id": made.plan_id}


def propose(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Carry the plan out."""
    workspace = runtime.context
    (made,) = workspace.store.load(Plan, [state["plan_id"]])
    with workspace.screen.hooks.timed("propose"):
        records = proposed(workspace, made)
    _stop_here_if_asked(workspace)  # what is unanswered is asked again after a resume
    workspace.store.add(records)
    return {"proposal_ids": [r.proposal_id for r in records if isinstance(r, Proposal)]}


def screen(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Parse, check, and label what is known or proposed before."""
    workspace = runtime.context
    proposals = workspace.proposals(state["proposal_ids"])
    with workspace.screen.hooks.timed("check"):
        check_proposals(workspace.screen, proposals)
    with workspace.screen.hooks.timed("match"):
        label_candidates(workspace.screen, proposals)
    _stop_here_if_asked(workspace)
    return {}


def relax(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Relax what is new, within the budget, while the next cycle is prepared."""
    workspace = runtime.context
    proposals = workspace.proposals(state["proposal_ids"])
    limit = workspace.spending.relaxations_left()
    with preparing(workspace, state["cycle"] + 1, meanwhile=bool(proposals)):
        relax_candidates(workspace.screen, proposals, limit)
    _stop_here_if_asked(workspace)
    return {}


def judge(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Give every converged relaxation its height over the reference."""
    workspace = runtime.context
    with workspace.screen.hooks.timed("judge"):
        judge_proposals(workspace.screen, workspace.proposals(state["proposal_ids"]))
    _stop_here_if_asked(workspace)
    return {}


def record(state: Cycle, runtime: Runtime[Workspace]) -> dict[str, Any]:
    """Recompute the campaign's own hull, close the cycle, publish, and decide whether to go on."""
    workspace = runtime.context
    with workspace.screen.hooks.timed("judge"):
        judge_union(workspace.screen)
    workspace.screen, _ = apply_waiting(workspace.screen, workspace.machine)
    proposals = workspace.proposals(state["proposal_ids"])
    assess_candidates(workspace.screen, workspace.machine.home_folder, proposals)
    workspace.store.add([cycle_end(workspace, state["cycle"])])
    workspace.spending.note()
    workspace.publisher.at_a_milestone()
    following = state["cycle"] + 1
    return {"cycle": following, "stop": workspace.spending.reason_to_stop(following)}


def after_record(state: Cycle) -> Literal["brief", "__end__"]:
    """The node after a cycle: another brief, or the end."""
    return "__end__" if state.get("stop") else "brief"


def _stop_here_if_asked(workspace: Workspace) -> None:
    """End the run here if asked; a cycle whose time is over is closed with what it has."""
    if workspace.screen.hooks.stopping() and not workspace.spending.time_is_over():
        raise RunInterruptedError("stopped on request; nothing finished is lost")


def build_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[Cycle, Workspace, Start, Cycle]:
    """The compiled graph; invoke it with an open Workspace as context."""
    graph = StateGraph(Cycle, context_schema=Workspace, input_schema=Start)
    graph.add_sequence([brief, plan, propose, screen, relax, judge, record])
    graph.add_edge(START, "brief")
    graph.add_conditional_edges("record", after_record)
    return graph.compile(checkpointer=checkpointer, name="campaign")


@dataclass(frozen=True)
class CampaignDirectory:
    """The context that LangGraph's own server and tools pass."""

    directory: str


def campaign_graph() -> CompiledStateGraph[Cycle, CampaignDirectory, Start, Cycle]:
    """What `langgraph.json` names: the campaign of a directory, opened for as long as it runs.

    LangGraph's server brings its own checkpointer, and passes its configuration to any argument
    that a factory has, so this one has none.
    """
    inside = build_graph()

    def campaign(state: Cycle, runtime: Runtime[CampaignDirectory]) -> Any:
        directory = Path(runtime.context.directory)
        with closing(open_workspace(directory, read_machine(), command="graph")) as workspace:
            last = inside.invoke(state, recursion_limit(workspace), context=workspace)
            workspace.store.publish()
            return last

    graph = StateGraph(Cycle, context_schema=CampaignDirectory, input_schema=Start)
    graph.add_node("campaign", campaign)
    graph.add_edge(START, "campaign")
    return graph.compile(name="campaign")


def recursion_limit(workspace: Workspace) -> RunnableConfig:
    """LangGraph's limit on nodes, out of the way of the campaign's own budget."""
    return {"recursion_limit": NODES * workspace.campaign.budget.cycles + 10}
