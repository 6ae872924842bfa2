"""Relaxing a file: one row an input, numbers where there are any, a reason where there are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.models.errors import HullwardError
from hullward.tools.records import Protocol
from hullward.tools.reference import judge_entries, load_reference
from hullward.tools.reference.sources import read_entries

ROWS = [
    {
        "lengths": [3.1] * 3,
        "angles": [90] * 3,
        "species": ["Li", "Mn"],
        "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
    },
    {"lengths": None, "angles": [90] * 3, "species": ["Li"], "coords": [[0, 0, 0]]},
    {
        "lengths": [20.0] * 3,
        "angles": [90] * 3,
        "species": ["Li"],
        "coords": [[0, 0, 0]],
    },
]


def test_every_row_answers_in_order(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    arguments = ["relax", str(path), "--potential", "toy", "--workers", "0", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    good, unreadable, lonely = json.loads(done.stdout)["results"]
    assert good["source"] == "some.jsonl#0"
    assert good["converged"] is True
    assert isinstance(good["energy_ev_per_atom"], float)
    assert good["steps"] + 1 == good["force_calls"]
    assert good["cpu_s"] > 0
    assert unreadable["converged"] is lonely["converged"] is False
    assert unreadable["failure"] == "malformed_row"
    assert lonely["failure"] == "atom_isolated"
    assert lonely["energy_ev_per_atom"] is None


def test_what_relax_wrote_is_judged_row_by_row(tmp_path: Path) -> None:
    phase = min(load_reference("embedded").phases("Na-Cl"), key=lambda p: p.energy_ev_per_atom)
    assert phase.crystal is not None
    crystal = phase.crystal.model_dump(mode="json")
    good = {"source": "a.cif", "formula": "NaCl", "converged": True, "crystal": crystal}
    good |= {"energy_ev_per_atom": phase.energy_ev_per_atom}
    bad = {"source": "b.cif", "formula": "NaCl", "converged": False, "failure": "isolated_atom"}
    unread = {"source": "c.cif", "converged": False, "failure": "malformed", "detail": "empty"}
    rows = [unread, good, bad, good | {"energy_ev_per_atom": phase.energy_ev_per_atom + 0.1}]
    path = tmp_path / "relaxed.json"
    document = {"potential": "chgnet-0.3.0", "protocol": Protocol().model_dump(mode="json")}
    path.write_text(json.dumps(document | {"results": rows}))
    done = CliRunner().invoke(app, ["hull", str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    first, second, third, fourth = answer["results"]
    assert answer["caution"] == ""  # both sides are the same potential's
    assert second["e_above_hull_ev_per_atom"] == 0.0
    assert abs(fourth["e_above_hull_ev_per_atom"] - 0.1) < 1e-9
    assert (second["id"], fourth["id"]) == ("a.cif", "a.cif#2")
    assert (first["error"], third["error"]) == ("malformed: empty", "isolated_atom")
    assert third["e_above_hull_ev_per_atom"] is None
    assert CliRunner().invoke(app, ["hull", str(path)]).exit_code == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"potential": "toy"}, "energies do not compare"),
        ({"protocol": {"fmax_ev_per_a": 1e-3}}, "relaxed to fmax"),
        ({"protocol": {"fmax": 1}}, "protocol"),
        ({"results": [{"source": "a", "converged": True}]}, "relaxed.json#1"),
    ],
)
def test_a_relaxation_that_does_not_fit_the_reference_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    document = {"potential": "chgnet-0.3.0", "protocol": {}, "results": []}
    path = tmp_path / "relaxed.json"
    path.write_text(json.dumps(document | change))
    with pytest.raises(HullwardError, match=named):
        judge_entries(read_entries(path), load_reference("embedded"))
