"""The command line: one JSON document on stdout, documented exit codes, plain words for errors."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hullward.agents.campaign.stopper import Stopper
from hullward.agents.cli.app import app, main
from hullward.models.errors import RunInterruptedError
from hullward.tools.records import State
from hullward.tools.store import inbox

ROWS = [  # lengths, angles, species, coords: an alloy, the same again, overlapping atoms, nothing
    ([3.1, 3.1, 3.1], [90, 90, 90], ["Li", "Mn"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ([3.1, 3.1, 3.1], [90, 90, 90], ["Li", "Mn"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ([3.1, 3.1, 3.1], [90, 90, 90], ["Li", "Mn"], [[0, 0, 0], [0.02, 0, 0]]),
    ([4.2, 4.2, 4.2], [90, 90, 90], [], []),
]


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, errors handled as in a shell."""
    runner = CliRunner()
    result = runner.invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def shell(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of the entry point itself, which turns our errors into codes."""
    monkeypatch.setattr(sys, "argv", ["hullward", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "generated.jsonl"
    names = ("lengths", "angles", "species", "coords")
    path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS))
    return path


@pytest.fixture(scope="module")
def screened(
    table: Path, toy_reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A finished screening in the toy world, and what --json printed."""
    directory = tmp_path_factory.mktemp("screened") / "s"
    code, out, _ = call("screen", table, "--dir", directory, "--potential", "toy", "--reference",
                        f"file:{toy_reference}", "--workers", "0", "--json")  # fmt: skip
    assert code == 0
    return directory, json.loads(out)


def test_screen_counts_every_row_once(screened: tuple[Path, dict[str, Any]]) -> None:
    _, document = screened
    assert set(document["states"]) == {state.value for state in State}
    assert sum(document["states"].values()) == document["funnel"]["proposed"] == len(ROWS)
    assert document["states"]["duplicate"] == 1
    assert document["states"]["rejected_check"] == 1
    assert document["states"]["rejected_parse"] == 1
    assert document["rejections"] == {"atoms_too_close": 1, "no_sites": 1}


@pytest.mark.parametrize(
    ("last", "waiting", "state"),
    [("parse", 3, "pending"), ("valid", 1, "pending"), ("novel", 1, "pending"),
     ("relaxed", 1, "hull_pending")],
)  # fmt: skip
def test_a_screening_stops_where_it_is_told_and_goes_on_from_there(
    last: str, waiting: int, state: str, table: Path, toy_reference: Path, tmp_path: Path,
    screened: tuple[Path, dict[str, Any]],
) -> None:  # fmt: skip
    asked = ["screen", table, "--dir", tmp_path / "s", "--potential", "toy", "--reference",
             f"file:{toy_reference}", "--workers", "0", "--json"]  # fmt: skip
    _, out, _ = call(*asked, "--stop-after", last)
    assert json.loads(out)["states"][state] == waiting
    _, out, _ = call(*asked)
    assert json.loads(out)["states"] == screened[1]["states"]


def test_query_answers_in_every_format(
    screened: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    directory, _ = screened
    sql = "SELECT state, count(*) AS n FROM states GROUP BY state ORDER BY state"
    _, out, _ = call("query", directory, sql, "--json")
    assert sum(row["n"] for row in json.loads(out)) == len(ROWS)
    _, out, _ = call("query", directory, sql, "--format", "csv")
    assert out.splitlines()[0] == "state,n"
    target = tmp_path / "answer.parquet"
    call("query", directory, sql, "--format", "parquet", "--out", target)
    assert target.read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nowhere.yaml"], 2),
        (["status", "nowhere"], 2),
        (["resume", "nowhere"], 2),
        (["screen", "nowhere.cif", "--dir", "x"], 2),
        (["query", "DIR", "DELETE FROM proposals"], 2),
        (["query", "DIR", "SELECT 1", "--format", "parquet"], 2),
        (["rejudge", "DIR", "--reference", "embeded"], 2),
        (["rejudge", "DIR", "--reference", "embedded"], 3),
        (["export", "DIR", "--out", "x", "--id", "c-none"], 2),
        (["resume", "DIR", "--frobnicate"], 2),
        (["query", "DIR", "SELECT 1", "--out", "no/such/folder.txt"], 2),
        (["screen", "INPUT", "--dir", "x", "--fmax", "-1"], 2),
    ],
)
def test_errors_end_with_their_exit_code(
    arguments: list[str], code: int, screened: tuple[Path, dict[str, Any]], table: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    named = {"DIR": str(screened[0]), "INPUT": str(table)}
    here = [named.get(a, a) for a in arguments]
    assert shell(monkeypatch, *here) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_is_one_json_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert shell(monkeypatch, "status", tmp_path, "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == 2
    assert captured.err.startswith("hullward: ")


def test_wrong_usage_is_one_json_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell(monkeypatch, "status", "--frobnicate", "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == 2
    assert "frobnicate" in captured.err
    assert "─" not in captured.err  # not a terminal: no boxes


def test_a_stop_ends_the_screening_that_runs_and_no_later_one(
    screened: tuple[Path, dict[str, Any]], table: Path, toy_reference: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory = tmp_path / "s"
    asked = ["screen", table, "--dir", directory, "--potential", "toy", "--reference",
             f"file:{toy_reference}", "--workers", "0", "--json"]  # fmt: skip
    call(*asked, "--stop-after", "parse")
    inbox.send(directory, "stop", {"since": "2026-01-01T00:00:00.000Z"})  # to a run since killed
    assert json.loads(call("stop", directory, "--json")[1]) == {"asked": False}
    listens = Stopper.listening

    def asked_at_once(stopper: Stopper, *others: Any) -> Any:
        assert json.loads(call("stop", directory, "--json")[1]) == {"asked": True}
        return listens(stopper, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "listening", asked_at_once)
        with pytest.raises(RunInterruptedError, match="same command"):
            call(*asked)
    inbox.send(directory, "stop", {})  # nothing runs
    _, out, _ = call(*asked)
    assert json.loads(out)["states"] == screened[1]["states"]


def test_a_known_crystal_given_twice_is_relaxed_once(toy_reference: Path, tmp_path: Path) -> None:
    row = {"lengths": [2.6] * 3, "angles": [90] * 3, "species": ["Mn", "O"],
           "coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}  # fmt: skip
    source = tmp_path / "twice.jsonl"
    source.write_text("\n".join([json.dumps(row)] * 2))
    asked = ["screen", source, "--dir", tmp_path / "s", "--potential", "toy", "--reference",
             f"file:{toy_reference}", "--workers", "0", "--relax-known"]  # fmt: skip
    _, out, err = call(*asked)
    assert "1 known, 1 judged" in out
    assert "relax: 1 of 1" in err
    assert "relax" not in call(*asked)[2]


def test_run_then_status_and_report(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    settings = toy_settings | {
        "operators": ["perturbation", "swap"],
        "budget": {"cycles": 1, "proposals_per_cycle": 4},
    }
    path.write_text(yaml.safe_dump(settings))
    code, out, err = call("run", path, "--dir", tmp_path / "c", "--json")
    assert code == 0
    document = json.loads(out)
    assert Path(document["report"]).is_file()
    assert err == ""
    _, out, _ = call("status", tmp_path / "c", "--json")
    assert json.loads(out)["states"] == document["states"]
    (tmp_path / "c" / "report" / "report.html").unlink()
    call("report", tmp_path / "c")
    assert (tmp_path / "c" / "report" / "report.html").is_file()


def test_rebuild_says_what_it_made(screened: tuple[Path, dict[str, Any]]) -> None:
    code, out, _ = call("rebuild", screened[0])
    assert code == 0
    assert "rebuilt" in out


def test_the_installed_command_starts_quickly_and_plainly() -> None:
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hullward.agents.cli.app", "--help"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert "screen" in done.stdout
    assert "\x1b[" not in done.stdout


def test_langgraph_opens_the_graph() -> None:
    """What `agents/langgraph.json` names is a graph that draws itself."""
    import importlib

    text = (Path(__file__).parents[3] / "agents" / "langgraph.json").read_text()
    module, name = json.loads(text)["graphs"]["campaign"].split(":")
    factory = getattr(importlib.import_module(module), name)
    assert not inspect.signature(factory).parameters  # LangGraph would fill them in
    graph = factory()
    drawn = graph.get_graph(xray=True).draw_mermaid()
    for node in ("plan", "propose", "screen", "relax", "judge", "record"):
        assert node in drawn
