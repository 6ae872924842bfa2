"""A campaign on the Materials Project: fetched at its start, or judged once its hull is there."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import rejudge_directory, run
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.agents.workspace import fetch_for_start, mp_access
from hullward.models.errors import PreflightError
from hullward.models.potential import registry
from hullward.tools.hull import MP2020
from hullward.tools.records import Basis
from hullward.tools.reference import load_reference
from hullward.tools.reference.materials_project import fetch_stable, fetch_systems
from hullward.tools.reference.materials_project.server_double import (
    KEY,
    MaterialsProjectDouble,
    thermo_document,
)
from hullward.tools.store import Store, funnel, open_snapshot


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and no key; the toy potential predicts what the server holds."""
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delenv("PMG_MAPI_KEY", raising=False)
    monkeypatch.setenv("MP_API_ENDPOINT", "http://127.0.0.1:9/")  # nobody is there
    toy = registry._CATALOGUE["toy"]
    corrected = replace(toy, card=replace(toy.card, energy_scheme=MP2020))
    monkeypatch.setitem(registry._CATALOGUE, "toy", corrected)


@pytest.fixture
def server(toy_reference: Path) -> Iterator[MaterialsProjectDouble]:
    """The toy world as the Materials Project would have it."""
    phases = load_reference(f"file:{toy_reference}").phases("Li-Mn-O")
    documents = [
        thermo_document(
            f"mp-{number}",
            phase.crystal,
            phase.energy_ev_per_atom,
            correction_ev=-0.687 if len(phase.elements) > 1 else 0.0,
            is_stable=True,
        )
        for number, phase in enumerate(phases, start=1)
        if phase.crystal is not None
    ]
    with MaterialsProjectDouble(documents) as double:
        yield double


@pytest.fixture
def online(server: MaterialsProjectDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MP_API_ENDPOINT", server.endpoint)


def campaign(settings: dict[str, Any], **changes: Any) -> Campaign:
    quick = {"operators": ["perturbation", "swap"], "reference": "mp"}
    budget = {"cycles": 2, "proposals_per_cycle": 6}
    return parse_settings(Campaign, settings | quick | {"budget": budget} | changes, "test")


def states(directory: Path) -> dict[str, int]:
    with open_snapshot(directory) as connection:
        return {k: n for k, n in funnel.verify(connection).states.items() if n}


def basis(directory: Path) -> Basis:
    with Store.open(directory, command="test") as store:
        [found] = store.load(Basis)
    return found


def test_with_a_key_the_systems_are_fetched_once_and_the_version_is_pinned(
    toy_settings: dict[str, Any], server: MaterialsProjectDouble, online: None, tmp_path: Path
) -> None:
    notes: list[str] = []
    run(tmp_path / "c", campaign(toy_settings), notes=notes.append)
    assert states(tmp_path / "c").get("hull_pending", 0) == 0
    assert states(tmp_path / "c")["judged"] > 0
    assert notes == ["loading toy and checking the reference mp …"]
    asked = len(server.requests)
    assert asked <= 7  # four heartbeats, a count, a page, a last look at the version
    assert basis(tmp_path / "c").reference_spec == "mp:2025.09.25"
    assert basis(tmp_path / "c").reference_version == "2025.09.25"

    server.database_version = "2025.11.1"
    run(tmp_path / "d", campaign(toy_settings, seed=4))  # what is here is used, nobody is asked
    assert len(server.requests) == asked


@pytest.mark.parametrize("why", ["no key", "no server"])
def test_without_the_server_candidates_wait_and_are_judged_after_a_fetch(
    why: str,
    toy_settings: dict[str, Any],
    server: MaterialsProjectDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hullward.tools.reference.materials_project.session.BACKOFF_S", 0.01)
    if why == "no server":
        monkeypatch.setenv("MP_API_KEY", KEY)
    directory, notes = tmp_path / "c", []
    run(directory, campaign(toy_settings), notes=notes.append)
    found = states(directory)
    assert found["hull_pending"] > 0
    assert "judged" not in found
    assert {"no key": "set MP_API_KEY", "no server": "no connection"}[why] in " ".join(notes)
    assert "their candidates stay hull_pending" in notes[-1]
    with open_snapshot(directory) as connection:
        rows = connection.execute(
            "SELECT DISTINCT label, e_above_hull_ev_per_atom, covered FROM verdicts"
        ).fetchall()
    assert rows == [("hull_pending", None, False)]
    report = json.loads((directory / "report" / "report.json").read_text())
    assert report["states"]["hull_pending"] == found["hull_pending"]

    with pytest.raises(PreflightError, match=r"nothing was fetched .* yet"):
        rejudge_directory(directory, "mp", 0)

    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MP_API_ENDPOINT", server.endpoint)
    fetch_systems(["Li-Mn-O"], mp_access(read_machine(), notes.append, 10.0))
    with pytest.raises(PreflightError, match=r"has changed since .* not-fetched then"):
        run(directory, None)
    rejudge_directory(directory, "mp", 0)
    after = states(directory)
    assert "hull_pending" not in after
    assert after["judged"] == found["hull_pending"]
    assert basis(directory).reference_spec == "mp:2025.09.25"
    with open_snapshot(directory) as connection:
        rows = connection.execute(
            """SELECT count(*), bool_and(suspect OR e_above_union_ev_per_atom >= -1e-9)
               FROM results WHERE state = 'judged'"""
        ).fetchall()
    assert rows == [(after["judged"], True)]
    run(directory, None)  # goes on with what it has now


def test_a_system_fetched_later_with_the_same_database_version_is_judged(
    toy_settings: dict[str, Any], server: MaterialsProjectDouble, online: None, tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    access = mp_access(read_machine(), lambda line: None, 10.0)
    fetch_systems(["Mn-O"], access)
    one = {"cycles": 1, "proposals_per_cycle": 10}
    settings = campaign(toy_settings, max_elements=2, budget=one, relax_known=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MP_API_KEY")
        run(directory, settings)
    before = states(directory)
    assert before["hull_pending"] > 0
    assert before["judged"] > 0  # of Mn-O
    assert basis(directory).reference_spec == "mp:2025.09.25"
    fetch_systems(["Li-Mn-O"], access)
    rejudge_directory(directory, "mp", 0)
    after = states(directory)
    assert "hull_pending" not in after
    assert after["judged"] == before["judged"] + before["hull_pending"]


def test_a_newer_database_with_less_in_it_is_not_preferred(
    toy_settings: dict[str, Any], server: MaterialsProjectDouble, online: None, tmp_path: Path
) -> None:
    access = mp_access(read_machine(), lambda line: None, 10.0)
    fetch_systems(["Li-Mn-O"], access)
    server.database_version = "2026.01.01"
    fetch_systems(["Li-O"], access)
    run(tmp_path / "c", campaign(toy_settings))
    assert basis(tmp_path / "c").reference_version == "2025.09.25"
    assert "hull_pending" not in states(tmp_path / "c")


def test_the_stable_phases_judge_any_system(
    toy_settings: dict[str, Any], server: MaterialsProjectDouble, online: None, tmp_path: Path
) -> None:
    fetch_stable(mp_access(read_machine(), lambda line: None, 10.0))
    run(tmp_path / "c", campaign(toy_settings, reference="mp-stable"))
    assert states(tmp_path / "c")["judged"] > 0
    assert basis(tmp_path / "c").reference_spec == "mp-stable:2025.09.25"


def test_what_would_take_hundreds_of_calls_is_not_begun(toy_settings: dict[str, Any]) -> None:
    twelve = ["Li", "Na", "K", "Mg", "Ca", "Ti", "V", "Mn", "Fe", "O", "F", "S"]
    wide = {"systems": [], "elements": twelve, "min_elements": 5, "max_elements": 5}
    notes: list[str] = []
    settings = campaign(toy_settings, oxidation_states={}, **wide)
    fetch_for_start(settings, read_machine(), notes.append)
    [note] = notes
    assert "792 whole systems would be needed, more than 24" in note
