"""Run a campaign: resume where it stopped, stop when asked, always leave a report."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from langchain_core.runnables import RunnableConfig

from hullward.agents.campaign import checkpoints
from hullward.agents.campaign.catching_up import catch_up, cycles_ended
from hullward.agents.campaign.stopper import Stopper
from hullward.agents.followup import close_with_opinions, run_phonons
from hullward.agents.language import ModelEndpoints
from hullward.agents.settings import Campaign, Machine, read_machine
from hullward.agents.workspace import Workspace, open_workspace
from hullward.models.errors import BreakerError, HullwardError, RunInterruptedError
from hullward.tools.records import RunEnd
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import Screen
from hullward.tools.screening.shortlist import symmetrise_candidates
from hullward.tools.store import timestamp

EndReason = Literal["finished", "budget", "stopped", "interrupted", "breaker", "failed"]


def run(
    directory: Path,
    campaign: Campaign | None,
    *,
    machine: Machine | None = None,
    workers: int | None = None,
    endpoints: ModelEndpoints | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    notes: Callable[[str], None] = lambda line: None,
) -> ReportPaths:
    """Run or resume the campaign of a directory to its end; campaign None: the one that is there.

    machine: None for the one that the environment describes.
    endpoints: the language models to ask, instead of those that the campaign names.
    Raises RunInterruptedError when stopped on request and BreakerError after too many failures;
    what was done is stored, published and reported in every case.
    """
    stopper = Stopper(directory)
    workspace = open_workspace(
        directory,
        machine or read_machine(),
        command="run" if campaign is not None else "resume",
        campaign=campaign,
        workers=workers,
        endpoints=endpoints,
        progress=progress,
        stopping=stopper,
        notes=notes,
    )
    with closing(workspace):
        for line in workspace.store.notes:
            notes(line)
        with stopper.listening(workspace.store.is_busy):
            return _to_the_end(workspace, directory, stopper, notes)


def _to_the_end(
    workspace: Workspace, directory: Path, stopper: Stopper, notes: Callable[[str], None]
) -> ReportPaths:
    try:
        why = _invoke(workspace, notes)
        _follow_up(workspace, directory, why, notes)
    except (RunInterruptedError, KeyboardInterrupt) as error:
        stopper.obeyed()
        paths = _finish(workspace, directory, "stopped", stopper.asked or "interrupted")
        raise RunInterruptedError(
            f"stopped on {stopper.asked or 'request'}; go on with `hullward resume {directory}`; "
            f"report so far: {paths.html}"
        ) from error
    except BreakerError as error:
        _finish(workspace, directory, "breaker", str(error))
        raise
    except HullwardError as error:
        _finish(workspace, directory, "failed", str(error))
        raise
    finally:
        stopper.acknowledge()
    reason: EndReason = "finished" if why.endswith("cycles done") else "budget"
    return _finish(workspace, directory, reason, why)


def _follow_up(
    workspace: Workspace, directory: Path, why: str, notes: Callable[[str], None]
) -> None:
    """Symmetrised cells that are missing, second opinions and phonons, where there is time."""
    if not why.endswith("cycles done"):
        notes(
            f"the budget of this campaign is spent: {why}. To go on from its best structures, run "
            f"a file with `seeds_from: [{directory}]` in another --dir"
        )
    campaign, screen = workspace.campaign, workspace.screen
    if not screen.hooks.stopping():
        with screen.hooks.timed("symmetrise"):
            symmetrise_candidates(screen)  # an earlier version stored none
        close_with_opinions(screen, campaign.second_opinion, notes)
        if campaign.phonons.top:
            with screen.hooks.timed("vibrations"):
                run_phonons(
                    workspace.store,
                    campaign.potential,
                    campaign.phonons,
                    screen.executor,
                    stopping=screen.hooks.stopping,
                )
    elif campaign.second_opinion or campaign.phonons.top:
        notes(
            "no second opinions and no phonons, for there was no time left: `hullward opinion "
            f"{directory}` and `hullward phonons {directory}` compute them"
        )


def _invoke(workspace: Workspace, notes: Callable[[str], None]) -> str:
    """Run the graph from what the store lacks; returns why it ended."""
    ended = cycles_ended(workspace)
    why = workspace.spending.reason_to_stop(ended) if ended else ""
    if (not why or why.endswith("cycles done")) and catch_up(workspace):
        notes("what was missing in the cycles that had ended was done again")
    if why:
        return why
    directory = workspace.store.directory
    try:
        return _run_graph(workspace, ended, notes)
    except sqlite3.Error as error:
        checkpoints.refuse(directory, error)
        aside = checkpoints.set_aside(directory)
        notes(f"checkpoints were unreadable ({error}): moved to {aside}; going on from the store")
    return _run_graph(workspace, cycles_ended(workspace), notes)


def _run_graph(workspace: Workspace, cycle: int, notes: Callable[[str], None]) -> str:
    from hullward.agents.campaign.graph import Start, build_graph, recursion_limit

    campaign_id = workspace.campaign.campaign_id
    config: RunnableConfig = {
        # a thread for each run: none goes on from what another one left here
        "configurable": {"thread_id": f"{campaign_id}:{timestamp()}"},
        **recursion_limit(workspace),
    }
    start: Start = {"campaign_id": campaign_id, "cycle": cycle}
    directory = workspace.store.directory
    with closing(checkpoints.open_checkpoints(directory, notes)) as connection:
        graph = build_graph(checkpoints.saver(connection))
        last = graph.invoke(start, config, context=workspace, durability="sync")
        return str(last["stop"])


def _finish(workspace: Workspace, directory: Path, reason: EndReason, detail: str) -> ReportPaths:
    """Record why the run ended, publish, and write the report."""
    if end_run(workspace.screen, reason, detail):
        workspace.spending.note()
    workspace.store.publish()
    return write_report(directory)


def end_run(screen: Screen, reason: EndReason, detail: str) -> bool:
    """Record why a run ended and what its stages cost; False where the same end is stored."""
    earlier = screen.store.load(RunEnd)
    if earlier and (earlier[-1].reason, earlier[-1].detail) == (reason, detail):
        return False
    spent = {stage: round(cpu_s, 3) for stage, cpu_s in screen.hooks.timed.cpu_s.items()}
    end = RunEnd(
        campaign_id=screen.basis.campaign_id,
        number=earlier[-1].number + 1 if earlier else 0,
        reason=reason,
        detail=detail,
        stage_cpu_s=spent,
    )
    screen.store.add([end])
    return True
