"""The benchmark scripts start, describe themselves, and are named rightly where figures are kept.

Nothing runs them in a normal test; `make types` checks what they call.
"""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.name != "common.py")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_docstring_gives_the_measure_and_the_command(path):
    first, _, rest = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")
    assert first.endswith("."), "one sentence: what it measures"
    assert re.search(rf"^    .*python .*tests/benchmarks/{path.name}", rest, flags=re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_help_starts_with_the_measure(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr("sys.argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert not stop.value.code
    measure = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")[0]
    assert measure in " ".join(capsys.readouterr().out.split())


def test_files_named_beside_figures_exist():
    words = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"(?<![\w/])(?:agents|data|models|tools|training|tests)/[\w/.-]+", words)
    )
    assert [name for name in sorted(named) if not (ROOT / name.rstrip(".-/")).exists()] == []
