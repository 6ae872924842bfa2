"""`hullward reference …` as a user types it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.cli.app import main
from hullward.models.crystal import Crystal
from hullward.tools.reference.materials_project.server_double import (
    KEY,
    Fault,
    MaterialsProjectDouble,
    thermo_document,
)

Call = Callable[..., tuple[int, str, str]]
HALF = [[0, 0, 0], [0.5, 0.5, 0.5]]


def cell(*species: str) -> Crystal:
    return Crystal.from_parameters((3.0,) * 3, (90,) * 3, list(species), HALF)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delenv("PMG_MAPI_KEY", raising=False)
    return tmp_path / "home"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaterialsProjectDouble]:
    documents = [
        thermo_document("mp-1", cell("Li", "Li"), -1.9, is_stable=True),
        thermo_document("mp-2", cell("O", "O"), -4.9, is_stable=True),
        thermo_document(
            "mp-3",
            cell("Li", "O"),
            -5.0,
            correction_ev=-0.687,
            is_stable=True,
            formation_ev_per_atom=-1.6,
        ),
    ]
    with MaterialsProjectDouble(documents) as double:
        monkeypatch.setenv("MP_API_KEY", KEY)
        monkeypatch.setenv("MP_API_ENDPOINT", double.endpoint)
        yield double


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hullward", "reference", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def answer(call: Call, *words: object) -> Any:
    code, out, err = call(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_list_has_what_is_shipped_and_what_came_later(
    call: Call, server: MaterialsProjectDouble, tmp_path: Path
) -> None:
    (first, mp) = answer(call, "list")["references"]
    assert (first["name"], first["kind"]) == ("embedded", "embedded")
    assert first["phases"] > 1000
    assert first["n_systems"] > 100
    assert (mp["name"], mp["version"], mp["database_version"]) == ("mp", "not-fetched", None)

    answer(call, "fetch", "Li-O", "--stable")
    table = tmp_path / "mine.csv"
    table.write_text("formula,formation_energy_per_atom\nLi2O,-2.0\n")
    answer(call, "import", table, "--name", "mine")
    rows = {row["name"]: row for row in answer(call, "list")["references"]}
    assert list(rows) == ["embedded", "mp", "mp-stable", "mine"]
    assert rows["mp-stable"]["trouble"] == ""
    assert rows["mp"]["database_version"] == rows["mp-stable"]["version"] == "2025.09.25"
    assert rows["mp"]["systems"] == ["Li-O"]
    assert (rows["mp"]["phases"], rows["mp-stable"]["phases"], rows["mine"]["phases"]) == (3, 3, 1)
    assert rows["mp"]["date"]
    assert rows["mine"]["date"]
    code, out, _ = call("list")
    assert code == 0
    assert "CC BY 4.0" in out


def test_a_damaged_reference_is_listed_with_its_trouble(
    call: Call, home: Path, tmp_path: Path
) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("formula,formation_energy_per_atom\nLi2O,-2.0\n")
    answer(call, "import", table, "--name", "mine")
    [copy] = home.rglob("mine.csv")
    copy.write_text("formula,formation_energy_per_atom\nLi2O,-3.0\n")
    rows = {row["name"]: row for row in answer(call, "list")["references"]}
    assert "is damaged" in rows["mine"]["trouble"]
    assert rows["embedded"]["trouble"] == ""


def test_show_says_what_is_stable_how_deep_and_what_is_covered(call: Call) -> None:
    shown = answer(call, "show", "Mn-Li-O")
    assert shown["system"] == "Li-Mn-O"
    assert shown["reference_id"] == "embedded"
    stable = {p["formula"]: p for p in shown["phases"]}
    assert stable["Li2O"]["formation_energy_ev_per_atom"] == pytest.approx(-2.03, abs=0.02)
    assert stable["Li"]["formation_energy_ev_per_atom"] == pytest.approx(0)
    assert all(p["stable"] and p["e_above_hull_ev_per_atom"] < 1e-8 for p in shown["phases"])
    covered = {c["formula"]: c["covered"] for c in shown["coverage"]}
    assert covered["Li2O"]
    assert not covered["Li2O2"]
    assert not covered["Li-Mn, as LiMn"]  # no compound there, so a likely formula was asked
    everything = answer(call, "show", "Li-Mn-O", "--all")
    assert len(everything["phases"]) == everything["n_phases"] > len(stable)
    code, out, _ = call("show", "Li-Mn-O")
    assert code == 0
    assert "not covered Li2O2" in out


def test_what_was_fetched_is_shown(call: Call, server: MaterialsProjectDouble) -> None:
    fetched = answer(call, "fetch", "Li-O")
    assert fetched["database_version"] == "2025.09.25"
    assert [m["system"] for m in fetched["fetched"]] == ["Li-O"]
    assert answer(call, "fetch", "O-Li")["already_here"] == ["Li-O"]
    shown = answer(call, "show", "Li-O", "--reference", "mp")
    assert [p["phase_id"] for p in shown["phases"]] == ["mp-1-GGA", "mp-3-GGA", "mp-2-GGA"]
    assert shown["phases"][1]["formation_energy_ev_per_atom"] == pytest.approx(-1.6)


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["show", "Li-Xx"], 2, "'Xx' is no element; did you mean Xe"),
        (["show", "Po-I"], 2, "no phase of Po"),
        (["show", "Li-O", "--reference", "mp"], 2, "`hullward reference fetch Li-O`"),
        (["show", "Li-O", "--reference", "embeded"], 2, "did you mean 'embedded'"),
        (["show", "Li-O", "--reference", "mp-stable"], 2, "`hullward reference fetch --stable`"),
        (["fetch"], 2, "nothing to fetch: name systems"),
        (["fetch", "Li-O"], 3, "no key for the Materials Project: set MP_API_KEY"),
        (["import", "/nowhere.json", "--name", "mine"], 2, "no reference file at /nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], exit_code: int, message: str, call: Call, home: Path
) -> None:
    code, out, err = call(*words, "--json")
    assert code == exit_code
    assert message in json.loads(out)["error"]
    assert err.count("\n") == 1


def test_the_key_is_never_printed(call: Call, server: MaterialsProjectDouble, home: Path) -> None:
    server.faults.append(Fault("status", 403))
    code, out, err = call("fetch", "Li-O")
    assert code == 3
    assert "refused (403)" in err
    assert KEY not in out + err
    assert not any(KEY in p.read_text(errors="ignore") for p in home.rglob("*") if p.is_file())


def test_a_bad_cap_of_calls_is_refused(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_MP_CALLS_PER_DAY", "0")
    code, _, err = call("list")
    assert code == 2
    assert "HULLWARD_MP_CALLS_PER_DAY" in err


def test_build_takes_over_what_is_embedded_and_names_its_holes(call: Call, home: Path) -> None:
    code, out, _ = call("build", "Na-Cl", "--workers", "0", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["name"] == "built:na-cl"
    assert document["not_covered"] == {}
    assert not list((home / "references" / "built" / "na-cl.work").glob("*.jsonl"))  # no new work
    code, out, _ = call("show", "Na-Cl", "--reference", "built:na-cl", "--json")
    assert code == 0
    assert "NaCl" in {phase["formula"] for phase in json.loads(out)["phases"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Na-Xx"], "'Na-Xx' is no chemical system"),
        (["Na-Cl", "--name", "Two Words"], "'Two Words' cannot be a name"),
        (["Na-Cl", "--phases", "nowhere"], "nowhere does not exist"),
        (["Na-Cl", "--from", "nowhere"], "nowhere"),
        (["Na-Cl", "--potential", "chgnet"], "chgnet"),
    ],
)
def test_a_build_that_cannot_be_says_why(
    call: Call, home: Path, arguments: list[str], message: str
) -> None:
    code, _, err = call("build", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_check_prints_canaries_and_every_element(call: Call, home: Path) -> None:
    code, out, _ = call("check", "--json")
    document = json.loads(out)
    assert code == 0
    assert all(canary["alive"] for canary in document["canaries"])
    assert abs(document["element_offsets_ev_per_atom"]["Fe"] - 0.113) < 0.003
