"""Running a campaign: resume where it stopped, stop when asked, always leave a report."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig

from hullward.agents.campaign.opening import close_bench, open_workspace
from hullward.agents.followup import close_with_opinions, run_phonons
from hullward.agents.language import ModelEndpoints
from hullward.agents.settings import Campaign
from hullward.agents.workspace import Workspace
from hullward.models.errors import BreakerError, HullwardError, RunInterruptedError
from hullward.tools.records import CycleEnd, RunEnd
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import Screen
from hullward.tools.store import inbox

PUBLISH_EVERY_S = 20.0

EndReason = Literal["finished", "budget", "stopped", "interrupted", "breaker", "failed"]


class Stopper:
    """Says when to stop: a signal, or a `stop` command in the inbox. A second signal is final."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked = ""

    def __call__(self) -> bool:
        if not self.asked and any(c.kind == "stop" for c in inbox.drain(self.directory)):
            self.asked = "`hullward stop`"
        return bool(self.asked)

    def acknowledge(self) -> None:
        """Take the `stop` commands out of the inbox: they were meant for this run."""
        for command in inbox.drain(self.directory):
            if command.kind == "stop":
                inbox.acknowledge(command)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM into a request to stop."""
        before = {s: signal.signal(s, self._signalled) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


def run(
    directory: Path,
    campaign: Campaign | None,
    *,
    workers: int | None = None,
    voices: ModelEndpoints | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    notes: Callable[[str], None] = lambda line: None,
) -> ReportPaths:
    """Run or resume the campaign of a directory to its end; campaign None: the one that is there.

    voices: the language models to ask, instead of those that the campaign names.
    Raises RunInterruptedError when stopped on request and BreakerError after too many failures;
    what was done is stored, published and reported in every case.
    """
    command = "run" if campaign is not None else "resume"
    bench = open_workspace(
        directory, command=command, campaign=campaign, workers=workers, voices=voices
    )
    try:
        for line in bench.store.notes:
            notes(line)
        stopper = Stopper(directory)
        bench.screen.stopping = stopper
        bench.screen.progress = _publishing(bench, progress)
        with stopper.listening():
            return _to_the_end(bench, directory, stopper, notes)
    finally:
        close_bench(bench)


def _to_the_end(
    bench: Workspace, directory: Path, stopper: Stopper, notes: Callable[[str], None]
) -> ReportPaths:
    try:
        why = _invoke(bench, directory, notes)
    except (RunInterruptedError, KeyboardInterrupt) as error:
        paths = _finish(bench, directory, "stopped", stopper.asked or "interrupted")
        raise RunInterruptedError(
            f"stopped on {stopper.asked or 'request'}; go on with `hullward resume {directory}`; "
            f"report so far: {paths.html}"
        ) from error
    except BreakerError as error:
        _finish(bench, directory, "breaker", str(error))
        raise
    except HullwardError as error:
        _finish(bench, directory, "failed", str(error))
        raise
    finally:
        stopper.acknowledge()
    close_with_opinions(bench.screen, bench.campaign.second_opinion, notes)
    if bench.campaign.phonons.top:
        with bench.screen.timed("vibrations"):
            run_phonons(
                bench.store, bench.campaign.potential, bench.campaign.phonons, stopping=stopper
            )
    reason: EndReason = "finished" if why.endswith("cycles done") else "budget"
    return _finish(bench, directory, reason, why)


def _invoke(bench: Workspace, directory: Path, notes: Callable[[str], None]) -> str:
    """Run the graph from its last checkpoint; returns why it ended."""
    from hullward.agents.campaign.graph import NODES, Start, Where, build_graph

    config: RunnableConfig = {
        "configurable": {"thread_id": bench.campaign.campaign_id},
        "recursion_limit": NODES * bench.campaign.budget.cycles + 10,
    }
    path = directory / "checkpoints.sqlite"
    with closing(_open_checkpoints(path, notes)) as connection:
        graph = build_graph(_saver(connection))
        state = graph.get_state(config)
        start: Start | None = None
        if not state.values:  # a new campaign, or one whose checkpoints were lost
            ended = len(bench.store.load(CycleEnd))
            start = {"campaign_id": bench.campaign.campaign_id, "cycle": ended}
            if ended and (why := bench.reason_to_stop(ended)):
                return why
        elif stop := state.values.get("stop"):
            return str(stop)  # `next` says nothing: it is empty too after a kill between two steps
        where = Where(str(directory))
        last = graph.invoke(start, config, context=where, durability="sync")
        return str(last["stop"])


def _open_checkpoints(path: Path, notes: Callable[[str], None]) -> sqlite3.Connection:
    """The checkpoint file; an unreadable one is set aside, for the store knows all it knew."""
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        connection.close()
        aside = path.with_suffix(f".corrupt-{int(time.time())}")
        os.replace(path, aside)
        notes(f"checkpoints were unreadable: moved to {aside.name}; going on from the store")
        return _open_checkpoints(path, notes)
    path.chmod(0o600)
    return connection


def _saver(connection: sqlite3.Connection) -> Any:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.checkpoint.sqlite import SqliteSaver

    # ids and numbers only: no class is ever revived from a checkpoint
    return SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))


def _publishing(
    bench: Workspace, progress: Callable[[str, int, int], None]
) -> Callable[[str, int, int], None]:
    """Progress that also publishes a snapshot now and then, so that readers see the run."""
    last = time.monotonic()

    def tell(step: str, done: int, total: int) -> None:
        nonlocal last
        progress(step, done, total)
        if time.monotonic() - last > PUBLISH_EVERY_S:
            bench.store.publish()
            last = time.monotonic()

    return tell


def _finish(bench: Workspace, directory: Path, reason: EndReason, detail: str) -> ReportPaths:
    """Record why the run ended, publish, and write the report."""
    end_run(bench.screen, reason, detail)
    bench.store.publish()
    return write_report(directory)


def end_run(screen: Screen, reason: EndReason, detail: str) -> None:
    """Record why a run ended and what its stages cost; saying the same again adds nothing."""
    earlier = screen.store.load(RunEnd)
    if earlier and (earlier[-1].reason, earlier[-1].detail) == (reason, detail):
        return
    spent = {stage: round(cpu_s, 3) for stage, cpu_s in screen.stage_cpu_s.items()}
    end = RunEnd(
        campaign_id=screen.basis.campaign_id,
        number=len(earlier),
        reason=reason,
        detail=detail,
        stage_cpu_s=spent,
    )
    screen.store.add([end])
