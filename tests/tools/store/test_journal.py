"""The journal keeps what it acknowledged and reports what was changed behind its back."""

import errno
import json
import os
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.tools.store import StorageError, timestamp
from hullward.tools.store import journal as journal_module
from hullward.tools.store.journal import Journal, JournalError, salvage


def words(number):
    return [("Note", json.dumps({"text": f"word {i}"})) for i in range(number)]


def data_of(path):
    with closing(Journal(path)) as journal:
        return [entry.data["text"] for entry in journal.read()]


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "journal.jsonl"
    with closing(Journal(target, create=True)) as journal:
        journal.append(words(3))
        journal.append([("Note", '{"text":"last"}')])
    return target


def test_lines_carry_sequence_time_kind_data_and_checksum(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert {line["v"] for line in lines} == {1}
    assert all(line["t"].endswith("Z") and line["t"] <= timestamp() for line in lines)
    assert list(lines[0]) == ["seq", "v", "t", "kind", "data", "sum"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_text_comes_back_exactly(tmp_path_factory, texts):
    target = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with closing(Journal(target, create=True)) as journal:
        journal.append([("Note", json.dumps({"text": t}, ensure_ascii=False)) for t in texts])
    assert data_of(target) == texts


def test_every_cut_of_the_last_line_is_an_unfinished_write(path):
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        with closing(Journal(path)) as journal:
            assert journal.last_seq == 3
            assert bool(journal.notes) == (end > start)
            journal.append([("Note", '{"text":"again"}')])
        assert data_of(path)[-1] == "again"


def test_a_block_of_zeros_after_a_power_cut_is_an_unfinished_write(path):
    path.write_bytes(path.read_bytes() + b"\0" * 4096 + b"tail\n")
    assert data_of(path)[-1] == "last"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"word", b"wOrd"), *lines[2:]], "checksum"),
        (lambda lines: [lines[0], b"nonsense\n", *lines[2:]], "not a journal line"),
        (lambda lines: [lines[0], *lines[2:]], "lines are missing"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "lines are missing"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "expected to be line 2"),
    ],
)
def test_damage_in_the_middle_is_named_and_left_alone(path, damage, message):
    damaged = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match="line 2") as caught:
        Journal(path)
    assert message in str(caught.value)
    assert "hullward rebuild" in str(caught.value)
    assert path.read_bytes() == damaged


def test_salvage_keeps_every_undamaged_line_and_the_original(path):
    damaged = path.read_bytes().replace(b"word 1", b"w0rd 1")
    path.write_bytes(damaged)
    assert "kept 3 lines, left out 1" in salvage(path)
    assert data_of(path) == ["word 0", "word 2", "last"]
    (aside,) = path.parent.glob("journal.jsonl.damaged-*")
    assert aside.read_bytes() == damaged


def test_a_newer_format_is_refused_and_not_taken_for_damage(path, monkeypatch):
    monkeypatch.setattr(journal_module, "FORMAT", 2)
    with closing(Journal(path)) as journal:
        journal.append(words(1))
    monkeypatch.undo()
    with pytest.raises(JournalError, match="format 2 is newer"):
        Journal(path)
    with pytest.raises(JournalError, match="format 2 is newer"):
        salvage(path)


@pytest.mark.parametrize("written", [0, 1, 60, 100_000])
@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_leaves_the_journal_as_it_was(path, monkeypatch, written, step):
    before = path.read_bytes()
    real = os.write

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def short_write(handle, view):
        monkeypatch.setattr(os, "write", no_space)
        return real(handle, view[:written]) if written else no_space()

    def failing_fsync(handle):
        monkeypatch.undo()  # the disk has room again for what follows
        no_space()

    with closing(Journal(path)) as journal:
        if step == "write":
            monkeypatch.setattr(os, "write", short_write)
        else:
            monkeypatch.setattr(os, "fsync", failing_fsync)
        if step == "fsync" or written < 100_000:
            with pytest.raises(StorageError, match="No space left") as caught:
                journal.append(words(2))
            assert caught.value.exit_code == 75
            monkeypatch.undo()
            assert path.read_bytes() == before
        else:
            monkeypatch.undo()
        journal.append([("Note", '{"text":"later"}')])
    assert data_of(path) == ["word 0", "word 1", "word 2", "last", "later"]


def test_a_missing_journal_is_not_created_by_reading(tmp_path):
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "journal.jsonl")
    assert list(tmp_path.iterdir()) == []
