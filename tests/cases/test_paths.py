"""Files and campaigns live in folders of any name; only what DuckDB cannot open is refused."""

import os
import shutil
from pathlib import Path

import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files import CifReader, parse_raw, read_inputs
from hullward.tools.store import Store

FILES = Path(__file__).parent / "files"
EXPECTED = {"paths/one.jsonl": "CsCl"}  # the formula, wherever the file lies
WORK = ["'", "#", "%", ":", ";", '"', "*", "[x]", "ü", " ", "\n", "\t", "~", "$(x)", "|", "\x1b"]
REFUSED = ["?", "\\", "x?y=1", os.fsdecode(b"\xe9")]


@pytest.mark.parametrize("name", [*WORK, *REFUSED])
@pytest.mark.parametrize(("file", "formula"), EXPECTED.items())
def test_structures_are_read_from_a_folder_of_any_name(
    file: str, formula: str, name: str, tmp_path: Path
) -> None:
    copy = tmp_path / f"a{name}b" / f"{name}.jsonl"
    copy.parent.mkdir()
    shutil.copy(FILES / file, copy)
    (item,) = read_inputs(copy)
    with CifReader() as reader:
        found = parse_raw(item.raw, item.format, reader)
    assert isinstance(found, Crystal)
    assert found.formula == formula


@pytest.mark.parametrize("name", WORK)
def test_a_campaign_lives_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    directory = tmp_path / f"a{name}b"
    with Store.open(directory, command="test", create=True) as store:
        assert store.publish().parent == directory
    with Store.open(directory, command="test") as store:
        assert store.notes == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [directory.name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_duckdb_cannot_open_is_refused_before_it_is_made(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="rename the folder"):
        Store.open(tmp_path / f"a{name}b", command="test", create=True)
    assert list(tmp_path.iterdir()) == []
