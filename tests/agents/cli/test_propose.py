"""Proposals for one wish: raw text, structure and checks, for a model and for known types."""

import json
import sys

import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app, main


def proposals(*arguments):
    result = CliRunner().invoke(app, ["propose", *arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "elements"),
    [
        (("--operator", "formula", "--formula", "MgAl2O4"), {"Mg", "Al", "O"}),
        (("--operator", "space_group", "--formula", "SrTiO3", "--space-group", "221"), None),
        (("--operator", "elements", "--elements", "Na-Cl"), {"Na", "Cl"}),
    ],
)
def test_nano_writes_what_is_asked(arguments, elements):
    said = proposals(*arguments, "-n", "6")
    assert said["proposed"] == len(said["proposals"]) == 6
    assert said["valid"] == sum(row["valid"] for row in said["proposals"])
    asked = [row for row in said["proposals"] if row.get("as_asked")]
    assert len(asked) >= 2
    for row in asked:
        assert elements is None or set(row["structure"]["species"]) == elements
    assert all(row["raw"] and row["prompt"] and row["checks"] for row in said["proposals"])


def test_with_the_grammar_every_text_parses_and_keeps_to_the_formula():
    for form in ("cell", "asymmetric"):
        said = proposals(
            "--operator", "formula", "--formula", "NaCl", "--grammar", "--form", form, "-n", "4",
            "--max-atoms", "8",
        )  # fmt: skip
        assert all(row["as_asked"] for row in said["proposals"])


def test_the_same_seed_says_the_same_and_another_does_not():
    wish = ("--operator", "de_novo", "-n", "3")
    first, again, other = (
        [row["raw"] for row in proposals(*wish, "--seed", seed)["proposals"]]
        for seed in ("1", "1", "2")
    )
    assert first == again != other


def test_substitution_needs_no_model():
    said = proposals("--operator", "substitution", "--formula", "NaCl", "-n", "3")
    assert [row["as_asked"] for row in said["proposals"]] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operator", "formula"], "needs --formula"),
        (["--operator", "de_novo", "--formula", "NaCl"], "takes no --formula"),
        (["--operator", "formula", "--formula", "Xx2"], "Xx"),
        (["--operator", "elements", "--elements", "Na-cl"], "'cl' is no element; did you mean Cl?"),
        (["--operator", "formula", "--formula", "NaCl", "--model", "nowhere"], "nowhere"),
    ],
)
def test_a_wish_that_cannot_be_asked_is_said_in_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["hullward", "propose", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code in (2, 3)
    assert message in said
    assert said.count("\n") == 1
