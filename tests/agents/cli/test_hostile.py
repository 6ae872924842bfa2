"""Nothing that a user does ends in a traceback, and no text steers the terminal."""

import ast
import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from hullward.agents.cli import app as entry
from hullward.agents.cli.app import explain
from hullward.agents.cli.output import neutral
from hullward.models.errors import InputError
from hullward.tools.store import StorageError, inbox

FILES = Path(__file__).parents[2] / "cases" / "files"
ONE = (FILES / "paths/one.jsonl").read_text()
CODES = {0, 2, 3, 4, 5, 75}
Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Exit code, stdout and stderr of the entry point."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hullward", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def screening(directory: Path, source: Path, reference: Path) -> list[str | Path]:
    return ["screen", source, "--dir", directory, "--potential", "toy", "--reference",
            f"file:{reference}", "--workers", "0"]  # fmt: skip


NAMES = ["'", "#", "%", ":", ";", '"', "*", "[x]", "ü", " ", "\n", "~", "$HOME", "-", "{0}", "日本"]


@pytest.mark.parametrize(
    "name", [n if n in "'%\n~ü" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_a_campaign_lives_in_a_folder_of_any_name(
    name: str, shell: Shell, toy_reference: Path, tmp_path: Path
) -> None:
    directory, source = tmp_path / f"a{name}b", tmp_path / f"in{name}put.jsonl"
    source.write_text(ONE)
    code, _, err = shell(*screening(directory, source, toy_reference), "--stop-after", "valid")
    assert (code, "Error" in err) == (0, False), err
    code, out, _ = shell("query", directory, "SELECT state FROM results", "--json")
    assert json.loads(out) == [{"state": "pending"}]
    assert shell("rebuild", directory)[0] == shell("report", directory)[0] == 0


@pytest.mark.parametrize("name", ["?", "\\", "a?b=c", os.fsdecode(b"\xff")])
def test_a_folder_that_the_database_cannot_open_is_refused_at_once(
    name: str, shell: Shell, toy_reference: Path, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    for directory in (tmp_path / name, tmp_path / name / "inside", tmp_path / "link"):
        code, _, err = shell(*screening(directory, FILES / "paths/one.jsonl", toy_reference))
        assert (code, err.count("\n")) == (2, 1)
        assert "rename the folder" in err
    assert list((tmp_path / name).iterdir()) == []


def test_a_file_whose_name_is_not_utf8_is_read(
    shell: Shell, toy_reference: Path, tmp_path: Path
) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    source.write_text(ONE)
    asked = screening(tmp_path / "s", source, toy_reference)
    assert shell(*asked, "--stop-after", "valid")[0] == 0
    code, _, err = shell("run", tmp_path / os.fsdecode(b"caf\xe9.yaml"))
    assert code == 2
    assert "caf\\udce9.yaml does not exist" in err
    code, _, err = shell(*asked, "--known", tmp_path / os.fsdecode(b"caf\xe9"))
    assert code == 2


HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\r"
STEERING = set(map(chr, [*range(9), *range(11, 32), 0x7F, *range(0x80, 0xA0)])) | set("\u202e")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, toy_reference: Path) -> Path:
    """A folder with a judged screening of hostile names and texts."""
    folder = tmp_path_factory.mktemp("hostile")
    source = folder / f"in{HOSTILE}put.jsonl"
    source.write_text(ONE + "\n" + json.dumps({"id": HOSTILE, "lengths": HOSTILE}) + "\n" + HOSTILE)
    (folder / "cifs").mkdir()
    (folder / "cifs" / f"a{HOSTILE}.cif").write_text(f"data_{HOSTILE}\n_cell_length_a {HOSTILE}\n")
    with pytest.MonkeyPatch.context() as patch:
        asked = screening(folder / f"s{HOSTILE}", source, toy_reference)
        patch.setattr(sys, "argv", ["hullward", *map(str, asked)])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        assert not ended.value.code
    return folder


def commands(folder: Path, reference: Path) -> dict[str, list[str | Path]]:
    """Every command that prints, on hostile names, texts and arguments."""
    there, source = folder / f"s{HOSTILE}", folder / f"in{HOSTILE}put.jsonl"
    hostile_yaml = folder / f"c{HOSTILE}.yaml"
    hostile_yaml.write_text(f'name: a\nsystems: [Li-O]\n"{HOSTILE[-4:-1]}": 1\n')
    raw = "SELECT raw, source, chr(27) || '[31m' AS \"\x1b[31m\" FROM proposals"
    return {
        "screen": screening(folder / f"again{HOSTILE}", source, reference),
        "screen cifs": screening(folder / "cifs again", folder / "cifs", reference),
        "status": ["status", there],
        "status json": ["status", there, "--json"],
        "stop": ["stop", there],
        "report": ["report", there],
        "rebuild": ["rebuild", there],
        "resume": ["resume", there, "--workers", "0"],
        "rejudge": ["rejudge", there, "--reference", f"file:{reference}", "--workers", "0"],
        "rejudge by": ["rejudge", there, "--reference", HOSTILE],
        "query": ["query", there, raw],
        "query csv": ["query", there, raw, "--format", "csv"],
        "query json": ["query", there, raw, "--json"],
        "query wrong": ["query", there, f"SELECT '{HOSTILE}' FROM {HOSTILE}"],
        "query out": ["query", there, raw, "--out", folder / f"out{HOSTILE}"],
        "export": ["export", there, "--which", "relaxed", "--out", folder / f"out{HOSTILE}.d"],
        "export id": ["export", there, "--out", folder / "x", "--id", HOSTILE],
        "run": ["run", hostile_yaml],
        "run none": ["run", folder / f"none{HOSTILE}.yaml"],
        "usage": ["status", f"--{HOSTILE}"],
        "usage extra": ["status", there, HOSTILE],
        "command": [HOSTILE],
        "choice": ["query", there, "SELECT 1", "--format", HOSTILE],
        "relax": ["relax", source, "--potential", "toy", "--workers", "0"],
        "hull": ["hull", source, "--reference", f"file:{reference}"],
        "reference": ["reference", "show", HOSTILE],
        "phonons": ["phonons", there, "--top", "1"],
        "opinion": ["opinion", there, "--potential", HOSTILE],
        "probe": ["probe", "--url", f"http://127.0.0.1:9/{HOSTILE}", "--model", HOSTILE],
        "propose": ["propose", "--model", folder / HOSTILE, "--formula", HOSTILE],
        "serve": ["serve", "owner/name", "--print", "--name", HOSTILE],
        "serve adapter": ["serve", "nano", "--lora", HOSTILE],
        "calibrate": ["calibrate", there, folder / HOSTILE],
        "coverage": ["evaluate", source, HOSTILE],
    }


THAT_WRITE_REPORTS = {"screen", "screen cifs", "report", "rebuild", "resume", "rejudge", "phonons"}


@pytest.mark.parametrize("reports", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_text_steers_the_terminal(
    reports: bool, hostile: Path, toy_reference: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    for name, arguments in commands(hostile, toy_reference).items():
        if (name in THAT_WRITE_REPORTS) != reports:
            continue
        code, out, err = shell(*arguments)
        assert not STEERING & set(out + err), (name, out, err)
        assert code in CODES, (name, err)
        assert out + err, name


def test_a_query_prints_hostile_text_whole_but_written_out(hostile: Path, shell: Shell) -> None:
    sql = "SELECT raw FROM proposals ORDER BY index DESC LIMIT 1"
    directory = hostile / f"s{HOSTILE}"
    assert json.loads(shell("query", directory, sql, "--json")[1]) == [{"raw": HOSTILE.rstrip()}]
    assert "\\x1b]0;owned\\x07" in shell("query", directory, sql)[1]
    shell("query", directory, sql, "--format", "csv", "--out", hostile / "answer.csv")
    assert HOSTILE.rstrip() in (hostile / "answer.csv").read_bytes().decode()  # a file keeps it


def test_all_that_commands_print_goes_through_one_module() -> None:
    folder = Path(entry.__file__).parent
    wrong = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and path.name != "output.py":
                called = ast.unparse(node.func)
                if called in ("print", "typer.echo", "typer.secho") or "stdout.write" in called:
                    wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("plain ü — 日本 \u00a0", "plain ü — 日本 \u00a0"),
        ("a\x1b[0m", "a\\x1b[0m"),
        ("a\x9bb\x7f\r\t", "a\\x9bb\\x7f\\r\\t"),
        ("\u202e\u2066\u200b\ufeff\u2028", "\\u202e\\u2066\\u200b\\ufeff\\u2028"),
        ("\udcff", "\\udcff"),
        ("a\nb", "a\nb"),
    ],
)
def test_control_characters_are_written_out(text: str, plain: str) -> None:
    assert neutral(text) == plain
    assert neutral(plain) == plain
    assert json.loads(neutral(json.dumps(text, ensure_ascii=False), as_json=True)) == text


# What may be wrong with a directory, by the files it then has.
def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _as_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _as_file(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.write_bytes(b"\xff\x00 no folder")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda d: None,
    "no directory": shutil.rmtree,
    "a file": _as_file,
    "empty": lambda d: [p.unlink() if p.is_file() else shutil.rmtree(p) for p in d.iterdir()],
    "snapshot cut": lambda d: _cut(d / "snapshot.duckdb"),
    "snapshot of zeros": lambda d: _zeros(d / "snapshot.duckdb"),
    "snapshot missing": lambda d: (d / "snapshot.duckdb").unlink(),
    "snapshot a folder": lambda d: _as_folder(d / "snapshot.duckdb"),
    "database cut": lambda d: _cut(d / "hullward.duckdb"),
    "database a folder": lambda d: _as_folder(d / "hullward.duckdb"),
    "journal of zeros": lambda d: _zeros(d / "journal.jsonl"),
    "journal missing": lambda d: (d / "journal.jsonl").unlink(),
    "journal a folder": lambda d: _as_folder(d / "journal.jsonl"),
    "journal not UTF-8": lambda d: (d / "journal.jsonl").write_bytes(b"\xff\xfe\n" * 9),
    "journal deep": lambda d: (d / "journal.jsonl").write_text("[" * 99_999),
    "lock a folder": lambda d: _as_folder(d / "lock"),
    "lock deep": lambda d: (d / "lock").write_text("[" * 99_999),
    "inbox a file": lambda d: _as_file(d / "inbox"),
    "inbox of junk": lambda d: [
        (d / "inbox").mkdir(exist_ok=True),
        (d / "inbox" / os.fsdecode(b"k-\xff.json")).write_text("[" * 60_000),
        (d / "inbox" / "k-1.json").symlink_to(d / "journal.jsonl"),
        (d / "inbox" / "k-2.json").mkdir(),
    ],
    "report a file": lambda d: _as_file(d / "report"),
}


def on_directory(directory: Path, reference: Path) -> list[list[str | Path]]:
    return [
        ["status", directory],
        ["query", directory, "SELECT count(*) FROM results"],
        ["report", directory],
        ["export", directory, "--which", "relaxed", "--out", directory.parent / "out"],
        ["stop", directory],
        ["phonons", directory, "--top", "1"],
        ["audit", directory],
        ["rejudge", directory, "--reference", f"file:{reference}", "--workers", "0"],
        ["resume", directory, "--workers", "0"],
        ["rebuild", directory],
        ["status", directory],
    ]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, toy_reference: Path) -> Path:
    directory = tmp_path_factory.mktemp("sound") / "s"
    with pytest.MonkeyPatch.context() as patch:
        asked = screening(directory, FILES / "paths/one.jsonl", toy_reference)
        patch.setattr(sys, "argv", ["hullward", *map(str, asked)])
        with pytest.raises(SystemExit):
            entry.main()
    return directory


QUICK = {"no directory", "a file", "snapshot cut", "journal a folder", "lock a folder", "lock deep"}


@pytest.mark.parametrize(
    "damage", [d if d in QUICK else pytest.param(d, marks=pytest.mark.slow) for d in DAMAGES]
)
def test_no_damaged_directory_gives_a_traceback(
    damage: str, sound: Path, toy_reference: Path, shell: Shell, tmp_path: Path
) -> None:
    for number, arguments in enumerate(on_directory(tmp_path / "s", toy_reference)):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        (tmp_path / "s").unlink(missing_ok=True)
        shutil.copytree(sound, tmp_path / "s")
        DAMAGES[damage](tmp_path / "s")
        code, _, err = shell(*arguments)
        assert code in CODES, (number, arguments[0], err)
        assert "fault of the program" not in err
        assert "Traceback" not in err
        assert code == 0 or err.startswith("hullward: ") or "hullward: " in err.splitlines()[-1]


ARGUMENTS = [
    ["run", "FOLDER"],
    ["run", "a.yaml", "--dir", "FILE"],
    ["run", "a.yaml", "--dir", "FILE/inside"],
    ["run", "/dev/null"],
    ["run", "a\0b.yaml"],
    ["run", "x" * 5000],
    ["status", "x" * 5000],
    ["status", ""],
    ["screen", "FOLDER", "--dir", "d1"],
    ["screen", "FILE", "--dir", "d2", "--known", "x" * 5000],
    ["screen", "FILE", "--dir", "FOLDER/" + "y" * 300],
    ["screen", "/dev/null", "--dir", "d3"],
    ["relax", "FILE", "--potential", "toy", "--workers", "0", "--out", "FOLDER"],
    ["relax", "FOLDER", "--potential", "toy", "--workers", "0"],
    ["hull", "FOLDER"],
    ["hull", "FILE"],
    ["query", "FOLDER", "SELECT 1"],
    ["query", "DIR", "SELECT 1", "--out", "FOLDER"],
    ["query", "DIR", "SELECT 1", "--format", "parquet", "--out", "FOLDER"],
    ["query", "DIR", "SELECT 1", "--format", "parquet", "--out", "no/such/file"],
    ["query", "DIR", "SELECT 1\0"],
    ["query", "DIR", "SELECT '\udcff'"],
    ["query", "DIR", "(" * 5000 + "SELECT 1"],
    ["export", "DIR", "--which", "relaxed", "--out", "FILE"],
    ["export", "DIR", "--which", "relaxed", "--out", "FILE/inside"],
    ["reference", "show", "file:FOLDER"],
    ["reference", "show", "file:FILE"],
    ["reference", "show", "file:"],
    ["rejudge", "DIR", "--reference", "file:FOLDER"],
    ["resume", "DIR", "--workers", "99999999999999999999"],
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda a: ascii(" ".join(a))[:60])
def test_no_argument_gives_a_traceback(
    arguments: list[str], sound: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"\x80 not UTF-8\n")
    (tmp_path / "a.yaml").write_text("name: a\nsystems: [Li-O]\n")
    shutil.copytree(sound, tmp_path / "dir")
    for word in ("FOLDER", "FILE", "DIR"):
        arguments = [a.replace(word, word.lower()) for a in arguments]
    code, _, err = shell(*arguments)
    assert code in CODES, err
    assert "fault of the program" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("a: b"), "a: b", 2),
        (OSError(errno.ENOENT, "No such file or directory", "x"), "x: there is no such file", 2),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "free some space", 75),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full", 75),
        (sqlite3.DatabaseError("file is not a database"), "cannot be used", 75),
        (duckdb.IOException("IO Error: No space left on device"), "the disk is full", 75),
        (duckdb.InterruptException("INTERRUPT Error: Interrupted!"), "interrupted", 75),
        (KeyboardInterrupt(), "interrupted", 75),
        (MemoryError(), "not enough memory", 75),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "rename it", 2),
    ],
)
def test_known_errors_are_explained(error: BaseException, line: str, code: int) -> None:
    found, exit_code = explain(error)
    assert line in found
    assert exit_code == code


def test_a_fault_of_the_program_leaves_its_traceback_in_a_file(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(inbox, "send", lambda *_: {}["gone"])
    monkeypatch.setattr("hullward.tools.store.lock.holder", lambda _: {}["\x1bgone"])
    (tmp_path / "lock").touch()
    code, _, err = shell("stop", tmp_path)
    (report,) = tmp_path.glob("hullward-fault-*.txt")
    assert (code, err.count("\n")) == (1, 1)
    assert str(report) in err
    assert "\x1b" not in err
    assert "Traceback" in report.read_text()


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ("| head -1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        (">&-", 0),
        (">&- 2>&-", 0),
        ("2>&-", 0),
        (">/dev/full", StorageError.exit_code),
        (">/dev/full 2>/dev/full", StorageError.exit_code),
        ("<&-", 0),
    ],
)
def test_streams_that_are_closed_or_full(sound: Path, after: str, code: int) -> None:
    rows = "SELECT repeat('x', 100) FROM range(5000)"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m hullward.agents.cli.app query "$1" "$2" {after}',
         sys.executable, str(sound), rows],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


LIMITED = """
import sys
from hullward.tools.store import query
seconds, more_bytes = float(sys.argv.pop(1)), int(sys.argv.pop(1))
query.hard_limits.__wrapped__.__kwdefaults__ |= {"seconds": seconds, "more_bytes": more_bytes}
from hullward.agents.cli.app import main
main()
"""


@pytest.mark.parametrize(
    ("sql", "seconds", "more_bytes", "line"),
    [
        ("SELECT repeat('x', 1500000000)", 60, 600 << 20, "memory|alloc"),
        ("SELECT * FROM range(100000000)", 60, 600 << 20, "memory|alloc"),
        ("SELECT count(*) FROM range(100000000000) a, range(1000) b", 2, 8 << 30, "in time"),
    ],
)
def test_a_query_that_heeds_no_limit_is_ended(
    sql: str, seconds: float, more_bytes: int, line: str, sound: Path
) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(seconds), str(more_bytes), "query", str(sound), sql],
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == InputError.exit_code, done.stderr
    assert re.search(line, done.stderr, re.IGNORECASE), done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert time.monotonic() - began < 60
