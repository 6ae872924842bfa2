"""Names of references: what is found under a home, what is refused, and that nothing changes."""

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from hullward.models.errors import InputError
from hullward.tools.reference import built_folder, import_file, load_reference
from hullward.tools.reference.names import known_names

LI = {"entry_id": "li", "composition": {"Li": 1}, "energy": -1.9}
O2 = {"entry_id": "o2", "composition": {"O": 2}, "energy": -9.8}
LI2O = {
    "entry_id": "li2o",
    "composition": {"Li": 2, "O": 1},
    "energy": -14.0,
    "correction": -0.687,
    "energy_adjustments": [{"name": "MP2020 anion correction (oxide)"}],
}


def entry_file(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps(list(entries)))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_an_imported_file_is_used_by_its_name_after_the_original_is_gone(
    home: Path, tmp_path: Path
) -> None:
    path = entry_file(tmp_path / "mine.json", LI, O2, LI2O)
    path.with_name("mine.reference.json").write_text('{"complete": true, "citation": "Mine."}')
    first = import_file(path, "my-hull", home)
    path.unlink()
    again = load_reference("my-hull", home)
    assert (again.reference_id, again.kind) == ("my-hull", "file")
    assert again.version == first.version
    assert again.statement.endswith("Mine.")  # the sidecar came along
    assert again.hull("Li-O").distance({"Li": 2, "O": 1}, -14.687 / 3)[0] == pytest.approx(0)
    assert known_names(home) == ["embedded", "mp", "my-hull"]


def test_importing_the_same_again_adds_nothing_and_other_content_is_refused(
    home: Path, tmp_path: Path
) -> None:
    path = entry_file(tmp_path / "mine.json", LI, O2, LI2O)
    import_file(path, "mine", home)
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*.json") if p.parent.name == "imported"}
    import_file(path, "mine", home)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    entry_file(path, LI, O2)
    with pytest.raises(InputError, match=r"already the name of mine\.json"):
        import_file(path, "mine", home)
    assert len(load_reference("mine", home).phases("Li-O")) == 3


@pytest.mark.parametrize("name", ["mp", "embedded", "Mine", "a/b", "../a", "", "-x"])
def test_a_name_that_would_be_mistaken_is_refused(name: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name for a reference"):
        import_file(entry_file(tmp_path / "m.json", LI), name, home)
    assert not home.exists()


def test_what_is_no_reference_is_not_imported(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("nonsense")
    with pytest.raises(InputError, match=r"m\.json is not JSON"):
        import_file(path, "mine", home)
    assert not home.exists()


def test_a_changed_copy_is_noticed(home: Path, tmp_path: Path) -> None:
    import_file(entry_file(tmp_path / "m.json", LI, O2, LI2O), "mine", home)
    [copy] = home.rglob("m.json")
    entry_file(copy, LI, O2)
    with pytest.raises(InputError, match=r"is damaged; delete it and import m\.json again"):
        load_reference("mine", home)


def test_a_built_reference_is_found_by_its_name(home: Path) -> None:
    folder = built_folder(home)
    folder.mkdir(parents=True)
    for suffix in (".parquet", ".json"):
        with as_file(files("hullward.data") / f"reference_embedded{suffix}") as shipped:
            shutil.copy(shipped, folder / f"li-mn-o{suffix}")
    reference = load_reference("built:li-mn-o", home)
    assert (reference.reference_id, reference.kind) == ("built:li-mn-o", "built")
    assert reference.phases("Li-O")
    assert "built:li-mn-o" in known_names(home)
    (folder / "li-mn-o.json").unlink()  # half of it is none of it
    with pytest.raises(InputError, match="unknown reference 'built:li-mn-o'"):
        load_reference("built:li-mn-o", home)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("min", "did you mean 'mine'"),
        ("mp-stabel", "did you mean 'mp-stable'"),
        ("built:nothing", "known: 'embedded', 'mp', 'mine', 'file:PATH', 'mp:VERSION'"),
        ("mp-stable", "mp-stable was not fetched yet: `hullward reference fetch --stable`"),
        ("mp:2020.1.1", "nothing was fetched from database version '2020.1.1'.*fetched: none"),
        ("", "unknown reference ''"),
    ],
)
def test_an_unknown_name_says_what_there_is(
    spec: str, message: str, home: Path, tmp_path: Path
) -> None:
    import_file(entry_file(tmp_path / "m.json", LI), "mine", home)
    with pytest.raises(InputError, match=message) as caught:
        load_reference(spec, home)
    assert "\n" not in str(caught.value)


def test_without_a_home_there_are_only_what_is_shipped_and_files() -> None:
    with pytest.raises(InputError, match=r"known: 'embedded', 'file:PATH'$"):
        load_reference("mp")


def test_before_anything_is_fetched_every_system_is_pending(home: Path) -> None:
    reference = load_reference("mp", home)
    assert reference.version == "not-fetched"
    assert not reference.elements
    assert reference.lacking(frozenset({"Li", "O"})) == (
        "Li-O was not fetched from the Materials Project"
    )
    with pytest.raises(InputError, match="hullward reference fetch Li-O"):
        reference.hull("Li-O")
    assert not home.exists()
