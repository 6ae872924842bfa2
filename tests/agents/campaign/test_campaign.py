"""The loop as a whole, in the toy potential's world: the same twice, durable, and replayable."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import rejudge_directory, run
from hullward.agents.campaign.graph import CampaignDirectory, Start, campaign_graph
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.agents.workspace import open_workspace
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, LockedError, PreflightError, RunInterruptedError
from hullward.tools.records import Plan, RunEnd
from hullward.tools.store import Store, funnel, inbox, open_snapshot, rebuild

TABLE = """SELECT cycle, operator, proposal_id, candidate_id, parents, state, formula, label,
                  duplicate_before, known_before, rediscovered, duplicate_after,
                  round(energy_ev_per_atom, 4), round(e_above_union_ev_per_atom, 4)
           FROM results ORDER BY cycle, proposal_id"""


def campaign(settings: dict[str, Any], **changes: Any) -> Campaign:
    return parse_settings(Campaign, settings | changes, "test")


def quick(settings: dict[str, Any], **changes: Any) -> Campaign:
    """Without substitution, whose prototype library takes seconds to load."""
    return campaign(settings, operators=["perturbation", "swap"], **changes)


def table(directory: Path) -> list[tuple[Any, ...]]:
    with open_snapshot(directory) as connection:
        return connection.execute(TABLE).fetchall()


@pytest.fixture(scope="module")
def finished(toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign run to its end; tests only read it."""
    directory = tmp_path_factory.mktemp("finished") / "toy"
    run(directory, quick(toy_settings))
    return directory


def test_every_operator_proposes_and_the_counts_add_up(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path
) -> None:
    budget = {"cycles": 1, "proposals_per_cycle": 9}
    run(tmp_path / "c", campaign(toy_settings, budget=budget, seeds_from=[str(toy_seeds)]))
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
        proposed = connection.execute("SELECT operator, count(*) FROM proposals GROUP BY 1")
        assert dict(proposed.fetchall()) == {"substitution": 3, "perturbation": 3, "swap": 3}
    assert counting.proposed == 9
    assert counting.states["pending"] == counting.states["hull_pending"] == 0
    assert counting.states["judged"] > 0


def test_the_same_campaign_gives_the_same_table(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    run(tmp_path / "again", quick(toy_settings))
    assert table(tmp_path / "again") == table(finished)


def test_a_budget_of_relaxations_goes_to_the_lowest_and_is_the_same_twice(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Not to the first: with a limit, who is relaxed is decided by a few steps of everyone."""
    budget = {"cycles": 1, "proposals_per_cycle": 12}
    run(tmp_path / "all", quick(toy_settings, budget=budget, relax_known=True))
    few = quick(toy_settings, budget=budget | {"relaxations": 3}, relax_known=True)
    run(tmp_path / "few", few)
    run(tmp_path / "same", few, workers=2)
    assert table(tmp_path / "few") == table(tmp_path / "same")
    query = """SELECT candidate_id FROM relaxations LEFT JOIN verdicts USING (relaxation_id)
        WHERE height = 'reference' OR height IS NULL
        ORDER BY early_energy_ev_per_atom + e_above_hull_ev_per_atom - energy_ev_per_atom"""
    with open_snapshot(tmp_path / "all") as connection:
        lowest = connection.execute(query).fetchall()
    with open_snapshot(tmp_path / "few") as connection:
        done = connection.execute(query).fetchall()
        funnel.verify(connection)
    assert len(lowest) > 3
    assert done == lowest[:3]


def test_the_graph_of_langgraph_json_runs_a_directory_and_gives_it_back(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    directory, settings = tmp_path / "c", quick(toy_settings)
    open_workspace(directory, read_machine(), command="test", campaign=settings).close()
    start: Start = {"campaign_id": settings.campaign_id, "cycle": 0}
    campaign_graph().invoke(start, context=CampaignDirectory(str(directory)))
    assert table(directory) == table(finished)
    run(directory, settings)  # it is locked no more


def test_feedback_lags_one_cycle_and_is_used(finished: Path) -> None:
    with Store.open(finished, command="test") as store:
        plans = store.load(Plan)
    assert [p.results_up_to_cycle for p in plans] == [-1, -1, 0]
    assert not plans[1].outcomes
    assert plans[2].outcomes
    assert any(p.startswith("c-") for p in plans[2].parents)


def test_a_finished_campaign_run_again_adds_nothing(
    finished: Path, toy_settings: dict[str, Any]
) -> None:
    before = (finished / "journal.jsonl").read_bytes()
    run(finished, quick(toy_settings))
    assert (finished / "journal.jsonl").read_bytes() == before


def test_rebuild_gives_the_identical_table(finished: Path) -> None:
    before = table(finished)
    rebuild(finished)
    with Store.open(finished, command="test") as store:
        store.publish()
    assert table(finished) == before


def test_every_verdict_leads_back_to_its_parents_and_plan(finished: Path) -> None:
    with open_snapshot(finished) as connection:
        rows = connection.execute(
            """SELECT p.parents, p.plan_id, n.plan_id, b.reference_version, v.reference_version
               FROM verdicts v JOIN relaxations USING (relaxation_id)
               JOIN candidates c USING (candidate_id)
               JOIN proposals p ON p.proposal_id = c.proposal_id
               LEFT JOIN plans n ON n.plan_id = p.plan_id, bases b"""
        ).fetchall()
    assert rows
    for parents, asked, found, basis_version, version in rows:
        assert parents
        assert asked == found
        assert version == basis_version


def test_other_settings_are_refused_in_the_same_directory(
    finished: Path, toy_settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="belongs to another campaign"):
        run(finished, quick(toy_settings, seed=99))


def test_changed_inputs_are_refused(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Phases and seeds are part of what a campaign is, though they lie elsewhere."""
    crystal = Crystal.from_parameters((3.0,) * 3, (90,) * 3, ["Li"], [[0, 0, 0]])
    folder = tmp_path / "mine"
    folder.mkdir()
    crystal.to_structure().to(str(folder / "one.cif"))
    settings = toy_settings | {"known_phases": str(folder), "seeds_from": [str(finished)]}
    settings["budget"] = {"cycles": 1, "proposals_per_cycle": 4}
    run(tmp_path / "c", quick(settings))
    run(tmp_path / "c", quick(settings))
    crystal.to_structure().to(str(folder / "two.cif"))
    with pytest.raises(InputError, match="hold other structures than when it began"):
        run(tmp_path / "c", quick(settings))


def test_every_stage_says_what_it_cost(finished: Path) -> None:
    with Store.open(finished, command="test") as store:
        (end,) = store.load(RunEnd)
    assert set(end.stage_cpu_s) == {
        "plan",
        "propose",
        "check",
        "match",
        "supervise",
        "relax",
        "judge",
        "symmetrise",
    }
    assert all(cpu_s > 0 for cpu_s in end.stage_cpu_s.values())
    assert "CPU s by stage" in (finished / "report" / "report.html").read_text()


def test_a_second_writer_is_refused(finished: Path, toy_settings: dict[str, Any]) -> None:
    with Store.open(finished, command="first"), pytest.raises(LockedError, match="first"):
        run(finished, quick(toy_settings))


def test_a_reference_of_another_scheme_is_refused(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match="energies do not compare"):
        run(tmp_path / "c", quick(toy_settings, reference="embedded"))


def test_a_looser_reference_is_refused(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    tight = {"fmax_ev_per_a": 0.001}
    settings = toy_settings | {"potential": "chgnet-0.3.0", "reference": "embedded"}
    with pytest.raises(PreflightError, match="was relaxed to fmax"):
        run(tmp_path / "c", quick(settings, protocol=tight))


def test_elements_without_a_reference_are_refused(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match="no phase of Cu"):
        run(tmp_path / "c", quick(toy_settings, systems=["Cu-O"]))


def test_rejudging_by_another_reference_relaxes_nothing(
    toy_settings: dict[str, Any], toy_reference: Path, tmp_path: Path
) -> None:
    run(tmp_path / "c", quick(toy_settings, budget={"cycles": 1, "proposals_per_cycle": 6}))
    lines = [json.loads(line) for line in toy_reference.read_text().splitlines()]
    other = tmp_path / "higher.jsonl"
    for entry in lines:  # every phase 0.2 eV/atom higher: every candidate 0.2 lower
        entry["energy"] += 0.2 * sum(entry["composition"].values())
    other.write_text("\n".join(json.dumps(entry) for entry in lines))
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    (tmp_path / "higher.reference.json").write_text(json.dumps(sidecar))
    query = """SELECT candidate_id, e_above_reference_ev_per_atom FROM results
               WHERE state = 'judged' ORDER BY 1"""
    with open_snapshot(tmp_path / "c") as connection:
        before = dict(connection.execute(query).fetchall())
        relaxed = connection.execute("SELECT count(*) FROM relaxations").fetchall()
    rejudge_directory(tmp_path / "c", f"file:{other}", 0)
    with open_snapshot(tmp_path / "c") as connection:
        after = dict(connection.execute(query).fetchall())
        again = connection.execute(
            "SELECT count(*) FROM relaxations WHERE protocol_id IN (SELECT protocol_id FROM bases)"
        ).fetchall()
        versions = connection.execute("SELECT count(DISTINCT reference_id) FROM verdicts")
        assert versions.fetchall() == [(2,)]
    assert before
    assert after == pytest.approx({key: e - 0.2 for key, e in before.items()})
    assert again <= relaxed


def test_a_reference_that_changed_is_refused_until_it_judges_everything(
    toy_settings: dict[str, Any], toy_reference: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(toy_reference.read_text())
    sidecar = toy_reference.with_name("toy.reference.json").read_text()
    (tmp_path / "own.reference.json").write_text(sidecar)
    settings = toy_settings | {"budget": {"cycles": 1, "proposals_per_cycle": 6}}
    asked = quick(settings, reference=f"file:{own}")
    run(tmp_path / "c", asked)
    before = table(tmp_path / "c")
    own.write_text(own.read_text() + "\n")
    with pytest.raises(PreflightError, match="hullward rejudge"):
        run(tmp_path / "c", None)
    assert table(tmp_path / "c") == before
    rejudge_directory(tmp_path / "c", f"file:{own}", 0)
    run(tmp_path / "c", asked)
    assert table(tmp_path / "c") == before


def test_settings_that_cannot_be_used_claim_no_directory(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    one = {"budget": {"cycles": 1, "proposals_per_cycle": 2}}
    for wrong in ({"potential": "tyo"}, {"reference": "embedded"}, {"known_phases": "/nowhere"},
                  {"seeds_from": ["/nowhere"]}):  # fmt: skip
        with pytest.raises((InputError, PreflightError)):
            run(tmp_path / "c", quick(toy_settings, **one, **wrong))
    run(tmp_path / "c", quick(toy_settings, **one))


def test_a_rejudge_that_cannot_be_done_harms_no_campaign(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    directory = tmp_path / "c"

    def ask(step: str, done: int, total: int) -> None:
        for payload in ({"reference": "embedded"}, {"reference": "file:gone.json"}, {}):
            inbox.send(directory, "rejudge", payload)

    run(directory, quick(toy_settings), progress=ask)
    assert table(directory) == table(finished)
    assert not inbox.drain(directory)
    reasons = [path.read_text() for path in (directory / "inbox" / "bad").glob("*.reason")]
    assert len(reasons) == 3
    assert any("energies do not compare" in text for text in reasons)


def test_a_rejudge_asked_of_a_running_campaign_waits_in_its_inbox(finished: Path) -> None:
    with Store.open(finished, command="busy"):
        assert rejudge_directory(finished, "embedded", 0) is None
        (command,) = inbox.drain(finished)
        assert (command.kind, command.payload) == ("rejudge", {"reference": "embedded"})
        inbox.acknowledge(command)


def test_a_stop_finishes_what_is_in_flight_and_resume_goes_on(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    directory = tmp_path / "c"

    def stop_soon(step: str, done: int, total: int) -> None:
        if step == "relax" and done == 2:
            inbox.send(directory, "stop", {})

    with pytest.raises(RunInterruptedError, match="hullward resume") as raised:
        run(directory, quick(toy_settings), progress=stop_soon)
    assert raised.value.exit_code == 75
    assert (directory / "report" / "report.html").is_file()
    run(directory, None)
    assert table(directory) == table(finished)
    with Store.open(directory, command="test") as store:
        assert [end.reason for end in store.load(RunEnd)] == ["stopped", "finished"]


def test_lost_checkpoints_are_made_up_for_by_the_store(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    directory = tmp_path / "c"

    def fail_late(step: str, done: int, total: int) -> None:
        if step == "relax" and '"CycleEnd"' in (directory / "journal.jsonl").read_text():
            raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        run(directory, quick(toy_settings), progress=fail_late)
    for path in directory.glob("checkpoints.sqlite*"):
        path.write_bytes(b"not a database" * 100)
    notes: list[str] = []
    run(directory, None, notes=notes.append)
    assert any("checkpoints were unreadable" in note for note in notes)
    assert table(directory) == table(finished)


def _damaged(finished: Path, directory: Path, seed: int) -> Path:
    """A copy whose journal lost a line in five after the settings, and whose database is gone."""
    shutil.copytree(finished, directory)
    for name in ("hullward.duckdb", "snapshot.duckdb"):
        (directory / name).unlink()
    rng = random.Random(seed)
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [
        line if n < 3 or rng.random() > 0.2 else b"?" * 40 + b"\n" for n, line in enumerate(lines)
    ]
    (directory / "journal.jsonl").write_bytes(b"".join(kept))
    return directory


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 8))]
)
def test_what_a_journal_lost_for_good_is_done_again(
    finished: Path, tmp_path: Path, seed: int
) -> None:
    directory = _damaged(finished, tmp_path / "c", seed)
    with pytest.raises(InputError, match="hullward rebuild"):
        run(directory, None)
    rebuild(directory)
    assert table(directory) != table(finished)
    notes: list[str] = []
    run(directory, None, notes=notes.append)
    assert any("was done again" in note for note in notes)
    assert table(directory) == table(finished)
    notes.clear()
    run(directory, None, notes=notes.append)  # nothing is left to do
    assert all(note.startswith("loading toy and checking") for note in notes)


@pytest.mark.parametrize("place", [None, 20, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_checkpoints_newer_than_the_store_or_damaged_do_not_matter(
    finished: Path, tmp_path: Path, place: float | None
) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    end = next(n for n, line in enumerate(lines) if b'"kind":"CycleEnd"' in line)
    (directory / "journal.jsonl").write_bytes(b"".join(lines[: end + 20]))
    content = bytearray((finished / "checkpoints.sqlite").read_bytes())
    if place is not None:
        start = int(place * len(content)) if place < 1 else int(place)
        content[start : start + 64] = bytes(b ^ 0x5A for b in content[start : start + 64])
    (directory / "checkpoints.sqlite").write_bytes(content)
    run(directory, None)
    assert table(directory) == table(finished)


def _child(directory: str, settings: dict[str, Any]) -> None:
    run(Path(directory), quick(settings))


def _killed_and_resumed(directory: Path, settings: dict[str, Any], delays: list[float]) -> int:
    """Kill a run again and again, then let it finish; how many kills hit a living run."""
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(
        ["hullward.agents.campaign.runner", "hullward.agents.campaign.graph"]
    )
    hits = 0
    for delay in delays:
        child = spawn.Process(target=_child, args=(str(directory), settings))
        child.start()
        child.join(delay)
        if child.is_alive():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            hits += 1
        child.join()
    run(directory, quick(settings))
    return hits


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost_or_repeated(
    kills: int, finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    rng = random.Random(kills)
    started = time.monotonic()
    run(tmp_path / "timed", quick(toy_settings))
    whole = time.monotonic() - started
    directory = tmp_path / "c"
    hits = _killed_and_resumed(
        directory, toy_settings, [0.3 + rng.random() * whole / 2 for _ in range(kills)]
    )
    assert hits >= kills // 2
    assert table(directory) == table(finished)
    with Store.open(directory, command="test") as store:
        rows = store.rows("SELECT count(*) AS n FROM relaxations")
    lines = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    ids = [entry["data"]["relaxation_id"] for entry in lines if entry["kind"] == "Relaxation"]
    assert len(ids) == len(set(ids)) == rows[0]["n"]
