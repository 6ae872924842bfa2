"""Whatever happens to the files of a campaign, the table comes back whole or the files stay."""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hullward.models.errors import HullwardError
from hullward.tools.store import TABLES, Store, open_snapshot, rebuild
from hullward.tools.store.database import DATABASE, SNAPSHOT
from hullward.tools.store.journal import NAME as JOURNAL

EARLIER = Path(__file__).parents[2] / "agents" / "campaign" / "earlier" / "journal.jsonl.zst"
# Stores the records of a file, publishes half way, and dies: the rest is in the WAL.
KILLED = """
import os, sys
from pathlib import Path
from hullward.tools.store import TABLES, Store
lines = Path(sys.argv[2]).read_text().splitlines()
import json
records = [TABLES[e["kind"]].record.model_validate(e["data"]) for e in map(json.loads, lines)]
store = Store.open(Path(sys.argv[1]), command="test", create=True)
for start in range(0, len(records), 20):
    store.add(records[start : start + 20])
    if start == 60:
        store.publish()
os._exit(0)
"""
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


def open_store(directory):
    return Store.open(directory, command="test", create=True)


def tables(source):
    """Every table, the order of rows aside."""
    names = [table.name for table in TABLES.values()]
    return {name: sorted(map(repr, source.execute(f"FROM {name}").fetchall())) for name in names}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A file of the journal lines of a real campaign."""
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    path.write_bytes(unpacker.decompress(EARLIER.read_bytes()))
    return path


@pytest.fixture(scope="module")
def killed(lines, tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed") / "campaign"
    subprocess.run([sys.executable, "-c", KILLED, str(directory), str(lines)], check=True)
    assert (directory / f"{DATABASE}.wal").stat().st_size
    return directory


@pytest.fixture(scope="module")
def closed(killed, tmp_path_factory):
    directory = Path(shutil.copytree(killed, tmp_path_factory.mktemp("closed") / "campaign"))
    with open_store(directory) as store:
        store.publish()
    return directory


@pytest.fixture(scope="module")
def expected(closed):
    with open_snapshot(closed) as connection:
        return tables(connection)


def flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_a_line_break(content: bytearray, rng: random.Random) -> None:
    places = [m.start() for m in re.finditer(b"\n", content)] or [0]
    content[rng.choice(places)] ^= 1 << rng.randrange(8)


def zeros(content: bytearray, rng: random.Random) -> None:
    length = rng.choice((1, 16, 512, 4096))
    start = rng.randrange(len(content)) // length * length
    end = min(len(content), start + length)
    content[start:end] = bytes(end - start)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def cut_at_a_line(content: bytearray, rng: random.Random) -> None:
    places = [0, *(m.end() for m in re.finditer(b"\n", content))]
    del content[rng.choice(places) :]


def cut_out(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, 200, 3000))]


def swap_blocks(content: bytearray, rng: random.Random) -> None:
    length = rng.choice((16, 512, 4096))
    a, b = (rng.randrange(max(1, len(content) - length)) // length * length for _ in range(2))
    first, second = bytes(content[a : a + length]), bytes(content[b : b + length])
    content[a : a + length], content[b : b + length] = second, first


def swap_lines(content: bytearray, rng: random.Random) -> None:
    lines = bytes(content).splitlines(keepends=True)
    a, b = (rng.randrange(len(lines)) for _ in range(2))
    lines[a], lines[b] = lines[b], lines[a]
    content[:] = b"".join(lines)


def repeat(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.choice((1, 300, 5000))]


def insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = rng.choice((b"\n", b"\0", b"{}\n", rng.randbytes(700)))


def other_line_breaks(content: bytearray, rng: random.Random) -> None:
    content[:] = bytes(content).replace(b"\n", b"\r\n")


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip,
    flip_a_line_break,
    zeros,
    cut,
    cut_at_a_line,
    cut_out,
    swap_blocks,
    swap_lines,
    repeat,
    insert,
    other_line_breaks,
)


def damage(path: Path, kind: Callable[[bytearray, random.Random], None], seed: int) -> None:
    content = bytearray(path.read_bytes())
    kind(content, random.Random(seed))
    path.write_bytes(content)


def contents(directory: Path) -> set[bytes]:
    return {path.read_bytes() for path in directory.iterdir() if path.is_file()}


def opened(directory: Path):
    """The tables after opening; None where that is refused, with everything left as it was."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    try:
        with open_store(directory) as store:
            store.publish()
    except HullwardError as error:
        if "hullward rebuild" not in str(error):
            raise
        after = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert after | {"lock": b""} == before | {"lock": b""}
        return None
    assert before[JOURNAL] in contents(directory) or before[JOURNAL].startswith(
        (directory / JOURNAL).read_bytes()
    )
    with open_snapshot(directory) as connection:
        return tables(connection)


@pytest.mark.parametrize("state", ["closed", "killed"])
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_journal_is_restored_from_the_database(
    request, tmp_path, expected, state, kind, seed
):
    directory = Path(shutil.copytree(request.getfixturevalue(state), tmp_path / "c"))
    damage(directory / JOURNAL, kind, seed)
    assert opened(directory) == expected
    (directory / DATABASE).unlink()  # the journal alone has it all again
    assert opened(directory) == expected


@pytest.mark.parametrize("state", ["closed", "killed"])
@pytest.mark.parametrize("kind", [flip, zeros, cut, swap_blocks, repeat])
@pytest.mark.parametrize("name", [DATABASE, SNAPSHOT])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_database_is_built_again(request, tmp_path, expected, state, kind, name, seed):
    directory = Path(shutil.copytree(request.getfixturevalue(state), tmp_path / "c"))
    damage(directory / name, kind, seed)
    assert opened(directory) == expected


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_with_journal_and_database_damaged_nothing_is_lost_in_silence(
    killed, tmp_path, expected, kind, seed
):
    directory = Path(shutil.copytree(killed, tmp_path / "c"))
    damage(directory / JOURNAL, kind, seed)
    damage(directory / DATABASE, flip, seed)
    originals = [(directory / name).read_bytes() for name in (JOURNAL, DATABASE)]
    found = opened(directory)
    if found is None:
        notes = []
        rebuild(directory, notes=notes)
        assert notes
        assert set(originals) <= contents(directory)
        with open_store(directory) as store:
            assert tables(store).keys() == expected.keys()
    else:
        assert found == expected
