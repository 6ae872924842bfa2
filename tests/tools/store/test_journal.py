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
from hullward.tools.store.journal import Journal, JournalError, renumbered


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"word", b"wOrd"), *lines[2:]], "checksum"),
        (lambda lines: [lines[0], b"nonsense\n", *lines[2:]], "not a journal line"),
        (lambda lines: [lines[0], *lines[2:]], "lines are missing"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "lines are missing"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "expected to be line 2"),
        (lambda lines: [lines[0], lines[1][:-9]], "not a journal line"),
        (lambda lines: [lines[0], b"\0" * 4096], "not a journal line"),
    ],
)
def test_what_does_not_read_is_named_and_left_alone(path, damage, message):
    damaged = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(damaged)
    with closing(Journal(path)) as journal:
        assert journal.problem.startswith("line 2: ")
        assert message in journal.problem
        assert journal.last_seq == 1
        with pytest.raises(JournalError, match="line 2"):
            journal.append(words(1))
    assert path.read_bytes() == damaged


PIECES = [
    (lambda lines: lines[::-1], [1, 2, 3, 4]),
    (lambda lines: [*lines[:2], lines[0], *lines[1:]], [1, 2, 3, 4]),
    (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], [1, 2, 3, 4]),
    (lambda lines: [line.replace(b"\n", b"*") for line in lines], [1, 2, 3, 4]),
    (lambda lines: [line.replace(b"\n", b"") for line in lines], [1, 2, 3, 4]),
    (lambda lines: [b'{"seq":7,"v":1,', *lines], [1, 2, 3, 4]),
    (lambda lines: [lines[0], b"\0" * 9000, *lines[2:]], [1, 3, 4]),
    (lambda lines: [lines[0][:-30], *lines[1:]], [2, 3, 4]),
    (lambda lines: [lines[0], lines[3][:-1]], [1, 4]),
    (lambda lines: [b"junk\n"], []),
]


@pytest.mark.parametrize(("damage", "numbers"), PIECES)
def test_every_whole_line_is_found_wherever_it_stands(path, damage, numbers):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(damage(lines)))
    with closing(Journal(path)) as journal:
        pieces = journal.pieces()
        assert sorted(pieces.places) == numbers
        assert [journal.piece(pieces.places[n]) for n in numbers] == [lines[n - 1] for n in numbers]
        assert pieces.others == []


def test_two_lines_of_one_number_are_both_found(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, renumbered(lines[3], 2)]))
    with closing(Journal(path)) as journal:
        assert len(journal.pieces().places) == 4
        assert [journal.piece(place) for place in journal.pieces().others] == [
            renumbered(lines[3], 2)
        ]


def test_a_newer_format_is_refused_and_not_taken_for_damage(path, monkeypatch):
    monkeypatch.setattr(journal_module, "FORMAT", 2)
    with closing(Journal(path)) as journal:
        journal.append(words(1))
    monkeypatch.undo()
    with pytest.raises(JournalError, match="format 2, which is newer"):
        Journal(path)


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
