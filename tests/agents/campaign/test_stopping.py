"""A stop is seen within seconds in every stage, what was stored stays, and nobody is left over."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hullward.agents.campaign import run, screen_file
from hullward.agents.campaign.stopper import Stopper
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import RunEnd
from hullward.tools.store import Store, inbox, lock

SEEN_WITHIN_S = 5.0
FILES = Path(__file__).parents[2] / "cases" / "files"
Ask = Callable[[Path], object]


def by_signal(directory: Path) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def by_command(directory: Path) -> None:
    running = lock.holder(directory)
    assert running is not None
    inbox.send(directory, "stop", {"since": running.since})


@contextmanager
def asked_during(
    where: str, directory: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[float]]:
    """Make a function of a stage endless, and ask to stop in it; gives when the stage ended."""
    module, _, name = where.rpartition(".")
    here = importlib.import_module(f"hullward.{module}")
    began, ended = threading.Event(), list[float]()

    def endless(*_: Any, **__: Any) -> Any:
        began.set()
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                time.sleep(0.01)
        finally:
            ended.append(time.monotonic())

    def ask_then() -> None:
        began.wait(60)
        ended.append(time.monotonic())
        ask(directory)

    asking = threading.Thread(target=ask_then)
    asking.start()
    with monkeypatch.context() as patch:
        patch.setattr(here, name, endless)
        yield ended
    asking.join()


STAGES = ["planned", "proposed", "check_proposals", "label_candidates", "relax_candidates",
          "judge_proposals", "judge_union", "assess_candidates"]  # fmt: skip
DEFAULT = {"check_proposals", "judge_union"}


def quick(toy_settings: dict[str, Any]) -> Campaign:
    more = {"budget": {"cycles": 1, "proposals_per_cycle": 4}, "operators": ["perturbation"]}
    return parse_settings(Campaign, toy_settings | more, "t")


@pytest.mark.parametrize(
    "stage", [s if s in DEFAULT else pytest.param(s, marks=pytest.mark.slow) for s in STAGES]
)
@pytest.mark.parametrize("ask", [by_signal, by_command])
def test_a_stop_is_seen_within_seconds_in_every_stage_of_a_campaign(
    stage: str, ask: Ask, toy_settings: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory = tmp_path / "c"
    with (
        asked_during(f"agents.campaign.graph.{stage}", directory, ask, monkeypatch) as times,
        pytest.raises(RunInterruptedError, match="hullward resume"),
    ):
        run(directory, quick(toy_settings))
    asked_s, seen_s = times
    assert seen_s - asked_s < SEEN_WITHIN_S
    run(directory, None)
    with Store.open(directory, command="test") as store:
        assert [end.reason for end in store.load(RunEnd)] == ["stopped", "finished"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["check_proposals", "label_candidates", "relax_candidates",
                                   "judge_proposals", "judge_union", "assess_candidates",
                                   "close_with_opinions"])  # fmt: skip
def test_a_stop_is_seen_within_seconds_in_every_stage_of_a_screening(
    stage: str, toy_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, source = tmp_path / "s", FILES / "paths/one.jsonl"
    settings = screen_file.describe(source, potential="toy", reference=f"file:{toy_reference}")
    where = f"agents.campaign.screen_file.{stage}"
    with (
        asked_during(where, directory, by_signal, monkeypatch) as times,
        pytest.raises(RunInterruptedError, match="same command"),
    ):
        screen_file.screen_file(directory, source, settings, workers=0)
    assert times[1] - times[0] < SEEN_WITHIN_S
    screen_file.screen_file(directory, source, settings, workers=0)


@pytest.mark.slow
def test_a_stop_during_the_last_report_leaves_a_finished_campaign(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "c"
    where = "agents.campaign.runner.write_report"
    with (
        asked_during(where, directory, by_signal, monkeypatch) as times,
        pytest.raises(KeyboardInterrupt),
    ):
        run(directory, quick(toy_settings))
    assert times[1] - times[0] < SEEN_WITHIN_S
    assert run(directory, None).html.is_file()


def test_a_run_that_writes_is_not_interrupted_there(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, wrote = tmp_path / "c", list[str]()
    project = Store._project

    def slowly(store: Store, entries: Any) -> None:
        listening = isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Stopper)
        if listening and not wrote:
            wrote.append("began")
            os.kill(os.getpid(), signal.SIGTERM)
            until = time.monotonic() + 4
            while time.monotonic() < until:
                time.sleep(0.01)
            wrote.append("ended")
        project(store, entries)

    monkeypatch.setattr(Store, "_project", slowly)
    with pytest.raises(RunInterruptedError):
        run(directory, quick(toy_settings))
    assert wrote == ["began", "ended"]


def children_of(pid: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.add(int(path.parent.name))
    return found | {inner for child in found for inner in children_of(child)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_a_killed_run(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    settings = toy_settings | {"budget": {"cycles": 50, "proposals_per_cycle": 40}}
    path.write_text(yaml.safe_dump(json.loads(json.dumps(settings, default=str))))
    command = [sys.executable, "-m", "hullward.agents.cli.app", "run", str(path), "--dir",
               str(tmp_path / "c"), "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children: set[int] = set()
    until = time.monotonic() + 60
    while len(children) < 2 and time.monotonic() < until:
        children |= children_of(process.pid)
        time.sleep(0.2)
    assert len(children) >= 2
    children |= children_of(process.pid)
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.1)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
