"""Budgets of wall time: sums over all runs, asked wherever a run may stop."""

import time
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.agents.workspace import budget, open_workspace
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import RunEnd, RunTime
from hullward.tools.screening import relaxing
from hullward.tools.store import Store, funnel, inbox, open_snapshot


def campaign(settings: dict[str, Any], hours: float | None) -> Campaign:
    limits = {"cycles": 3, "proposals_per_cycle": 9, "hours": hours}
    changes = {"operators": ["perturbation", "swap"], "budget": limits, "relax_known": True}
    return parse_settings(Campaign, settings | changes, "test")


class Clock:
    """A clock that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s, real = 0.0, time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self.ahead_s)


def ends(directory: Path) -> list[tuple[str, str]]:
    with Store.open(directory, command="test") as store:
        return [(end.reason, end.detail) for end in store.load(RunEnd)]


def test_time_sums_over_runs_whether_they_ended_or_were_killed(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    settings = campaign(toy_settings, hours=3)
    for run_number in range(3):
        workspace = open_workspace(
            tmp_path / "c", read_machine(), command="test", campaign=settings
        )
        spending = workspace.spending
        assert spending.run == run_number
        assert round(spending.earlier_s / 3600, 2) == run_number
        assert not workspace.screen.hooks.stopping()
        clock.ahead_s += 3600
        workspace.screen.hooks.progress("relax", 1, 9)  # then it is killed
        clock.ahead_s += 10  # less than a minute is forgotten
        workspace.screen.hooks.progress("relax", 2, 9)
        workspace.close()
    workspace = open_workspace(tmp_path / "c", read_machine(), command="test", campaign=settings)
    assert workspace.screen.hooks.stopping()
    assert workspace.spending.reason_to_stop(0) == "3 hours over"
    workspace.close()


def test_a_long_cycle_ends_within_its_budget_and_is_closed_with_what_it_has(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As budget, not as a stop: what was relaxed is judged, the rest stays pending."""
    clock = Clock(monkeypatch)
    relaxed = []

    def in_an_hour_each(screen: Any, results: Any, *rest: Any, **more: Any) -> None:
        def slowly() -> Any:
            for one in results:
                relaxed.append(one)
                clock.ahead_s += 3600
                yield one

        store_relaxations(screen, slowly(), *rest, **more)

    store_relaxations = relaxing.store_relaxations
    monkeypatch.setattr(relaxing, "store_relaxations", in_an_hour_each)
    monkeypatch.setenv("HULLWARD_CACHE", "false")  # what is cached needs no time
    notes: list[str] = []
    run(tmp_path / "c", campaign(toy_settings, hours=2.5), workers=0, notes=notes.append)
    assert ends(tmp_path / "c") == [("budget", "2.5 hours over")]
    assert any("seeds_from" in note for note in notes)
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
        cycles = connection.execute("SELECT count(*) FROM cycles").fetchone()
    assert 2 < len(relaxed) < 9
    assert counting.states["pending"] > 0
    assert counting.states["hull_pending"] == 0
    assert counting.states["judged"] > 0
    assert cycles == (1,)

    journal, notes = (tmp_path / "c" / "journal.jsonl").read_bytes(), []
    run(tmp_path / "c", None, notes=notes.append)
    assert [note for note in notes if "2.5 hours over" in note and "seeds_from" in note]
    assert (tmp_path / "c" / "journal.jsonl").read_bytes() == journal


def test_a_stop_within_the_time_is_a_stop(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = campaign(toy_settings, hours=5)
    asked = []

    def ask(step: str, done: int, total: int) -> None:
        if step == "relax" and done == 1 and not asked:
            asked.append(inbox.send(tmp_path / "c", "stop", {}))

    with pytest.raises(RunInterruptedError):
        run(tmp_path / "c", settings, progress=ask)
    assert ends(tmp_path / "c")[0][0] == "stopped"
    run(tmp_path / "c", None)
    assert ends(tmp_path / "c")[-1] == ("finished", "all 3 cycles done")
    with Store.open(tmp_path / "c", command="test") as store:
        assert [one.number for one in store.load(RunTime)] == [0, 1]


def test_without_a_limit_of_hours_no_time_is_stored(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "NOTED_EVERY_S", 0.0)
    run(tmp_path / "c", campaign(toy_settings, hours=None))
    with Store.open(tmp_path / "c", command="test") as store:
        assert store.load(RunTime) == []
