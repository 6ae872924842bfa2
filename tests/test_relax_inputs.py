"""Relaxing a file: one row an input, numbers where there are any, a reason where there are none."""

import json
from pathlib import Path

from typer.testing import CliRunner

from hullward.agents.cli import app

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
