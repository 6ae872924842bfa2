"""The source hash of a campaign's provenance covers every module of the packages."""

from pathlib import Path

import pytest

from hullward.agents.workspace import provenance

MODULES = ("agents/cli/app.py", "tools/crystal/text/cell.py", "models/errors.py")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in MODULES:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("x = 1\n")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_a_change_in_any_package_changes_the_source_hash(source: Path, name: str) -> None:
    before = provenance.versions()["source"]
    (source / name).write_text("x = 2\n")
    assert provenance.versions()["source"] != before


def test_a_module_that_moves_changes_the_source_hash(source: Path) -> None:
    before = provenance.versions()["source"]
    (source / "models/errors.py").rename(source / "models/faults.py")
    assert provenance.versions()["source"] != before
