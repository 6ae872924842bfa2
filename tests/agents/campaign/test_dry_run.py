"""A dry run says what would be tried first and what the reference lacks, and starts nothing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hullward.agents.campaign import preview
from hullward.agents.cli.app import app
from hullward.agents.settings import find_campaign, read_machine
from hullward.models.errors import PreflightError


def test_the_first_formulas_come_with_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", "Na-Fe-P-O", "--dry-run", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["systems"] == ["Na-Fe-P-O"]
    first, reason = next(iter(found["formulas"].items()))
    assert first == "NaFePO4"
    assert "charge-balanced Na+ Fe2+ P5+ O2-" in reason
    assert len(found["formulas"]) == 10 < found["fitting"]
    assert list(tmp_path.iterdir()) == []


def test_what_the_reference_was_not_built_for_is_named_with_the_commands() -> None:
    (note,) = preview(find_campaign("Mg-Sb-Bi"), read_machine()).notes
    assert "not built for Bi-Mg, Bi-Mg-Sb, Bi-Sb, Mg-Sb:" in note
    assert "`hullward reference build Mg-Sb-Bi --name mg-sb-bi`" in note
    assert "--reference built:mg-sb-bi" in note
    assert preview(find_campaign("Li-Mn-O"), read_machine()).notes == []


def test_what_a_run_would_refuse_is_refused() -> None:
    with pytest.raises(PreflightError, match="no parameters for Po"):
        preview(find_campaign("Po-O"), read_machine())
