"""Open a journal whatever happened to it or to its database; nothing is given up in silence.

A line counts when its checksum fits, wherever it stands. The database notes the last line that it
holds, and the journal's head the last one written, and so prove that there were such lines:

- An end that does not read is an unfinished write where no line follows it and both prove that
  none is missing. It is cut off.
- Lines out of order, repeated, joined or with other line breaks are put in order.
- Lost lines whose records the database still holds are written back, if the result is provably
  the table that was there.
- Everything else is refused and stays as it is. `rebuild` then keeps whatever is left.

The original of every file that is changed or replaced is kept beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from hullward.tools.records import Record
from hullward.tools.store.database import (
    DATABASE,
    SNAPSHOT,
    attached,
    build_file,
    mark_in,
    put_database,
    remove,
    set_aside,
)
from hullward.tools.store.files import put_in_place, timestamp, write_whole
from hullward.tools.store.journal import (
    NAME,
    Journal,
    JournalError,
    Mark,
    Pieces,
    entry_of,
    line_of,
    renumbered,
)
from hullward.tools.store.projection import (
    REFERENCES,
    Place,
    held_records,
    json_of,
    key_of,
    problem_of,
)
from hullward.tools.store.tables import RANK, TABLES

Note = Callable[[str], None]
# A power cut leaves unwritten blocks as zeros; a damaged bit is one zero byte at most.
_UNWRITTEN = re.compile(rb"\0{512}")


class _UnprovenError(Exception):
    """Why what is left is not provably everything."""


def open_journal(
    directory: Path, note: Note, *, create: bool = False, rescue: bool = False
) -> Journal:
    """The journal of a directory, repaired where that loses nothing that was acknowledged.

    rescue: where something is lost, keep all that is left. Without it that is refused, and the
    files stay as they are. Raises JournalError for that, LockedError while another program has the
    database open.
    """
    path = directory / NAME
    journal = Journal(path, create=create)
    try:
        held, published = mark_in(directory / DATABASE), mark_in(directory / SNAPSHOT)
        # the snapshot is a copy of an earlier database
        proofs = [mark for mark in (held or published, journal.head()) if mark]
        if journal.problem or not all(mark.follows_from(journal) for mark in proofs):
            _repair(directory, journal, held, note, rescue)
            journal.close()
            journal = Journal(path)
        if journal.head() != Mark(journal.last_seq, journal.last_checksum):
            journal.write_head()
        if (directory / SNAPSHOT).exists() and not (published and published.follows_from(journal)):
            set_aside(directory, SNAPSHOT, "it does not follow from the journal", note)
    except BaseException:
        journal.close()
        raise
    return journal


def _repair(directory: Path, journal: Journal, mark: Mark | None, note: Note, rescue: bool) -> None:
    """Make a whole journal from what is left."""
    pieces = journal.pieces()
    try:
        if _is_unfinished_write(journal, pieces, mark):
            _cut_off(journal, pieces, note)
        else:
            _restore(directory, journal, pieces, mark, note)
    except (_UnprovenError, duckdb.Error) as error:
        if not rescue:
            raise JournalError(
                f"{journal.path}: {journal.problem or 'lines are missing at its end'}; {error}. "
                f"Nothing was changed; `hullward rebuild {directory}` keeps every undamaged line "
                "and what the database still holds, and moves the originals aside"
            ) from error
        _rescue(directory, journal, pieces, note)


def _is_unfinished_write(journal: Journal, pieces: Pieces, mark: Mark | None) -> bool:
    """Whether the file is a whole journal and then one write that was not acknowledged."""
    whole = journal.last_seq == pieces.top and not pieces.others
    proofs = [proof for proof in (mark, journal.head()) if proof]
    if not (journal.problem and whole and proofs):
        return False
    if not all(proof.follows_from(journal) for proof in proofs):
        return False
    return not _lines_in(_rest(journal.path, pieces))


def _rest(path: Path, pieces: Pieces) -> bytes:
    """What follows the last whole line."""
    with path.open("rb") as file:
        file.seek(pieces.end)
        return file.read()


def _lines_in(rest: bytes) -> int:
    """How many finished lines a damaged end may have been."""
    *finished, _ = rest.split(b"\n")
    return sum(1 for line in finished if line.strip(b"\0\r ") and not _UNWRITTEN.search(line))


def _cut_off(journal: Journal, pieces: Pieces, note: Note) -> None:
    rest = _rest(journal.path, pieces)
    aside = _name_aside(journal.path, "unfinished")
    write_whole(aside, rest)
    os.truncate(journal.path, pieces.end)
    note(
        f"{NAME}: cut off {len(rest)} bytes of an unfinished write after line {pieces.top}, which "
        f"was not acknowledged; they are kept as {aside.name}"
    )


def _name_aside(path: Path, why: str) -> Path:
    return path.with_name(f"{path.name}.{why}-{timestamp().replace(':', '')}")


@dataclass
class _Left:
    """What journal and database still hold together."""

    expected: dict[Place, Record]  # what the tables held, with the lines that they lacked
    lost: dict[Place, Record] = field(default_factory=dict)  # records without a line
    shared: int = 0  # lines that the database holds, as it should
    strange: list[int] = field(default_factory=list)  # lines that it should hold


def _compare(journal: Journal, pieces: Pieces, mark: Mark, held: dict[Place, Record]) -> _Left:
    """Set the lines of a journal against the records of a database, each first as it is."""
    left = _Left(dict(held))
    lines: dict[Place, Record] = {}
    for seq in sorted(pieces.places):
        entry = entry_of(journal.piece(pieces.places[seq]))
        if problem_of(entry.kind, entry.data):  # in no table
            continue
        table = TABLES[entry.kind]
        place = entry.kind, key_of(table, entry.data)
        record = table.record.model_validate(entry.data)
        if seq > mark.seq:
            if table.latest or place not in left.expected:
                left.expected[place] = record
        elif place in held and (table.latest or _same(place, record, held[place])):
            left.shared += 1
        else:
            left.strange.append(seq)
        if table.latest or place not in lines:
            lines[place] = record
    for place, record in left.expected.items():
        if place not in lines or not _same(place, record, lines[place]):
            left.lost[place] = record
    return left


def _same(place: Place, one: Record, other: Record) -> bool:
    """Whether two records give the same rows; candidates of one crystal do."""
    if place[0] == "Candidate":
        return _crystal_of(one) == _crystal_of(other)
    return one == other


def _crystal_of(candidate: Record) -> str:
    return str(candidate.model_dump(include={"candidate_id"})["candidate_id"])


def _firsts(held: dict[Place, Record]) -> dict[str, Place]:
    """The first candidate of each crystal."""
    found: dict[str, Place] = {}
    for place, record in held.items():
        if place[0] == "Candidate":
            found.setdefault(_crystal_of(record), place)
    return found


def _restore(
    directory: Path, journal: Journal, pieces: Pieces, mark: Mark | None, note: Note
) -> None:
    """Write the journal that is provably complete; raises _UnprovenError where none is."""
    head = journal.head()
    written = max(pieces.top, head.seq if head else 0)
    missing = pieces.missing(max(written, mark.seq if mark else 0))
    rest = _lines_in(_rest(journal.path, pieces))
    if pieces.others:
        raise _UnprovenError("it holds different lines of one number")
    if mark is None:
        if not journal.problem:
            raise _UnprovenError("more lines were written, and the database cannot be read")
        if missing or rest or not pieces.top or pieces.end != pieces.size:
            raise _UnprovenError("no database shows what was acknowledged")
        _replace(directory, journal, pieces, {}, {}, note)
        return
    with attached(directory / DATABASE) as connection:
        left = _compare(journal, pieces, mark, held_records(connection))
    alike = left.shared or not pieces.top
    if not (journal.problem or pieces.missing(written) or (left.lost and alike)):
        return  # all there is; opening the database sets it aside and builds it again
    if left.strange:
        raise _UnprovenError(f"the database does not hold its line {left.strange[0]}")
    if beyond := [seq for seq in missing if seq > mark.seq]:
        raise _UnprovenError(f"the database does not hold the lost line {beyond[0]} either")
    if len(left.lost) > len(missing) or rest > max(0, mark.seq - pieces.top):
        raise _UnprovenError("what the database holds does not explain what is damaged")
    _replace(directory, journal, pieces, left.lost, left.expected, note)


def _replace(
    directory: Path,
    journal: Journal,
    pieces: Pieces,
    lost: dict[Place, Record],
    expected: dict[Place, Record],
    note: Note,
) -> None:
    """Put a journal in place that holds the lost records too, if its tables are those expected.

    expected: nothing where no database shows it.
    """
    fresh = _write(journal, pieces, lost, _firsts(expected))
    database: Path | None = None
    try:
        if expected:
            with closing(Journal(fresh)) as made:
                database = build_file(directory, made, lambda _: None)
            with attached(database) as connection:
                held = held_records(connection)
            same = held.keys() == expected.keys() and _firsts(held) == _firsts(expected)
            if not same or not all(_same(p, record, held[p]) for p, record in expected.items()):
                raise _UnprovenError("the database and the journal contradict each other")
        _swap(journal.path, fresh, f"wrote {len(lost)} lost lines back from {DATABASE}", note)
        if database:
            set_aside(directory, DATABASE, "it followed from the damaged journal", note)
            put_database(database, directory)
    finally:
        fresh.unlink(missing_ok=True)
        remove(directory / f"{DATABASE}.new")


def _swap(path: Path, fresh: Path, done: str, note: Note) -> None:
    aside = _name_aside(path, "damaged")
    os.link(path, aside)
    put_in_place(fresh, path)
    note(f"{NAME} was damaged: {done}; the original is {aside.name}")


def _write(
    journal: Journal, pieces: Pieces, lost: dict[Place, Record], firsts: dict[str, Place]
) -> Path:
    """A new journal of all whole lines and the lost records, each after those it refers to."""
    fresh, now = journal.path.with_name(f"{NAME}.new"), timestamp()
    pending = dict(lost)
    seq = 0

    def lines(place: Place, data: dict[str, Any]) -> Iterator[bytes]:
        """The lost records that a record needs before it, as lines."""
        nonlocal seq
        for needed in _needs(place, data, firsts):
            if needed in pending and not TABLES[needed[0]].latest:
                text, own = json_of(pending.pop(needed))
                yield from lines(needed, own)
                seq += 1
                yield line_of(seq, now, needed[0], text)

    with fresh.open("wb") as out:
        for piece in [*(pieces.places[n] for n in sorted(pieces.places)), *pieces.others]:
            line = journal.piece(piece)
            entry = entry_of(line)
            if not problem_of(entry.kind, entry.data):
                out.writelines(
                    lines((entry.kind, key_of(TABLES[entry.kind], entry.data)), entry.data)
                )
            seq += 1
            out.write(renumbered(line, seq))
        for place in sorted(pending, key=lambda place: RANK[place[0]]):
            if place in pending:
                text, data = json_of(pending.pop(place))
                out.writelines(lines(place, data))
                seq += 1
                out.write(line_of(seq, now, place[0], text))
    return fresh


def _needs(place: Place, data: dict[str, Any], firsts: dict[str, Place]) -> Iterator[Place]:
    kind = place[0]
    for needed, column in REFERENCES.get(kind, ()):
        if (needed, column) == ("Candidate", "candidate_id"):
            if data[column] in firsts:
                yield firsts[data[column]]
        else:
            yield needed, (data[column],)
    if kind == "Candidate" and firsts.get(data["candidate_id"], place) != place:
        yield firsts[data["candidate_id"]]


def _rescue(directory: Path, journal: Journal, pieces: Pieces, note: Note) -> None:
    """Keep every whole line, and every record of the first file that is of the same campaign."""
    left, source = _Left({}), ""
    for name in (DATABASE, SNAPSHOT):
        mark = mark_in(directory / name)
        if mark is None:
            continue
        try:
            with attached(directory / name) as connection:
                found = _compare(journal, pieces, mark, held_records(connection))
        except duckdb.Error:
            continue
        if found.shared or not pieces.top:
            left, source = found, name
            break
    else:
        mark = None
    fresh = _write(journal, pieces, left.lost, _firsts(left.expected))
    marks = [proof for proof in (mark, journal.head()) if proof]
    last = max(pieces.top, *(proof.seq for proof in marks)) if marks else pieces.top
    gone = len(pieces.missing(last)) - len(left.lost)
    back = f", wrote {len(left.lost)} back from {source}" if left.lost else ""
    kept = len(pieces.places) + len(pieces.others)
    _swap(journal.path, fresh, f"kept {kept} lines{back}, lost {max(0, gone)}", note)
