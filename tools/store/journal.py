"""The append-only journal, from which everything else is built.

One record a line:

    {"seq":1,"v":1,"t":"2026-01-31T12:00:00.000Z","kind":"Proposal","data":{…},"sum":"0f1e2d3c4b5a6978"}

`seq` counts from 1 without gaps, `sum` is the checksum of everything before it. A batch is on disk
when `append` returns. Nothing is skipped and nothing is cut off here: what does not read is a
`problem` of the open journal, and `hullward.tools.store.recovery` decides what it is.

Beside it, `journal.head` holds the number and checksum of its last line, so that a journal cut
short at the end of a line is known to be.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hullward.models.errors import HullwardError, InputError
from hullward.tools.store.files import flush, timestamp

NAME = "journal.jsonl"
HEAD = "journal.head"
FORMAT = 1
_HEAD = re.compile(rb'\{"seq":(\d+),"v":(\d+),')
_TAIL = re.compile(rb',"sum":"([0-9a-f]{16})"\}\n')
_TAIL_LENGTH = len(',"sum":"0123456789abcdef"}\n')
_START, _END = re.compile(rb'\{"seq":\d+,"v":\d+,'), re.compile(rb',"sum":"[0-9a-f]{16}"\}')
_HEAD_LENGTH = 20 + 1 + 16 + 1 + 16
_JOINED = 8  # ends tried for each start, where line breaks are lost


logger = logging.getLogger(__name__)


class JournalError(InputError):
    """A journal that cannot be read as it is."""


class StorageError(HullwardError):
    """A write to the disk failed. Nothing acknowledged is lost; the work can be resumed."""

    exit_code = 75


@dataclass(frozen=True)
class JournalLine:
    """One line of the journal."""

    seq: int
    kind: str
    data: dict[str, Any]
    checksum: str


def checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Mark:
    """The number and the checksum of a journal line that was written."""

    seq: int
    checksum: str

    def follows_from(self, journal: Journal) -> bool:
        """Whether the journal has that very line."""
        return journal.checksum_of(self.seq) == self.checksum


class Journal:
    """An open journal; its owner holds the lock of the directory.

    problem: why the file does not read to its end, '' where it does. Only a journal without a
    problem can be appended to.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open and check every line; raises JournalError for a format newer than this program."""
        self.path = path
        self.problem = ""
        self.last_checksum = ""
        self._ends = array("Q", [0])  # byte after each line, by its number; line 0 is nothing
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
        self._handle, self._head = os.open(path, flags, 0o644), -1
        try:
            flush(path.parent)
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def last_seq(self) -> int:
        """The number of the last line; 0 without any."""
        return len(self._ends) - 1

    def close(self) -> None:
        for handle in (self._handle, self._head):
            if handle >= 0:
                os.close(handle)
        self._handle = self._head = -1

    def append(self, items: Sequence[tuple[str, str]]) -> None:
        """Write (kind, data as JSON) lines and wait until they are on the disk.

        Raises StorageError when that fails; the journal is then as it was before.
        """
        if not items:
            return
        if self._handle < 0:
            raise StorageError(f"{self.path} is closed after a failed write; open it again")
        if self.problem:
            raise JournalError(f"{self.path}: {self.problem}")
        now, lines = timestamp(), []
        for seq, (kind, data) in enumerate(items, start=self.last_seq + 1):
            lines.append(line_of(seq, now, kind, data))
        digest = _checksum_in(lines[-1])
        try:
            _write_all(self._handle, b"".join(lines))
            os.fsync(self._handle)
        except OSError as error:
            self._take_back()
            raise StorageError(
                f"{self.path} could not be written ({error.strerror}); nothing of this step was "
                f"kept. Free some space, then `hullward resume {self.path.parent}`"
            ) from error
        for line in lines:
            self._ends.append(self._ends[-1] + len(line))
        self.last_checksum = digest
        self.write_head()

    def head(self) -> Mark | None:
        """The last line that was written, as the file beside the journal has it; None without."""
        try:
            text = self.path.with_name(HEAD).read_bytes()[:_HEAD_LENGTH].decode("ascii", "replace")
        except FileNotFoundError:
            return None
        words = text.split(" ")
        if len(words) != 3 or checksum(" ".join(words[:2]).encode()) != words[2]:
            return None
        seq = int(words[0])
        return Mark(seq, words[1] if seq else "")

    def write_head(self) -> None:
        """Note the last line; not flushed, for a head that is behind proves only less."""
        text = f"{self.last_seq:020} {self.last_checksum or '0' * 16}"
        try:
            if self._head < 0:
                self._head = os.open(self.path.with_name(HEAD), os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(self._head, f"{text} {checksum(text.encode())}\n".encode(), 0)
        except OSError as error:  # the line itself is on the disk
            logger.warning("%s could not be written: %s", HEAD, error)

    def read(self, after: int = 0) -> Iterator[JournalLine]:
        """Entries with seq > after, in order."""
        after = min(after, self.last_seq)
        with self.path.open("rb") as lines:
            lines.seek(self._ends[after])
            for seq, line in enumerate(lines, start=after + 1):
                if seq > self.last_seq:
                    return
                yield entry_of(line)

    def checksum_of(self, seq: int) -> str | None:
        """The checksum of one line; '' for seq 0, None where there is no such line."""
        if not 0 < seq <= self.last_seq:
            return "" if seq == 0 else None
        tail = os.pread(self._handle, _TAIL_LENGTH, self._ends[seq] - _TAIL_LENGTH)
        return _checksum_in(tail)

    def pieces(self) -> Pieces:
        """Every line whose checksum fits, out of place or joined to others as it may be."""
        found = Pieces()
        with self.path.open("rb") as chunks:
            for chunk in chunks:
                for start, end in _whole_lines(chunk):
                    line = chunk[start:end] + b"\n"
                    seq = seq_of(line) or 0  # never 0: a whole line
                    place = found.size + start, end - start
                    if self.piece(found.places.setdefault(seq, place)) != line:
                        found.others.append(place)
                    found.end = found.size + end
                found.size += len(chunk)
                if found.end == found.size - 1 and chunk.endswith(b"\n"):
                    found.end = found.size
        return found

    def piece(self, place: tuple[int, int]) -> bytes:
        """The line at (offset, length), with its line break."""
        return os.pread(self._handle, place[1], place[0]) + b"\n"

    def _check(self) -> None:
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if problem := _problem(number, line):
                    self.problem = f"line {number}: {problem}"
                    return
                self._ends.append(self._ends[-1] + len(line))
                self.last_checksum = _checksum_in(line)

    def _take_back(self) -> None:
        """Cut off what failed; a journal that cannot be cut is closed and cut on opening."""
        try:
            os.ftruncate(self._handle, self._ends[-1])
            os.fsync(self._handle)
        except OSError:
            self.close()


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def line_of(seq: int, when: str, kind: str, data: str) -> bytes:
    """A whole line; data is JSON."""
    return sealed(f'{{"seq":{seq},"v":{FORMAT},"t":"{when}","kind":"{kind}","data":{data}'.encode())


def sealed(body: bytes) -> bytes:
    """A line with its checksum, from everything before that."""
    return body + f',"sum":"{checksum(body)}"}}\n'.encode()


def seq_of(line: bytes) -> int | None:
    """The number of a whole undamaged line, wherever it stands; None for anything else.

    Raises JournalError for a line of a newer format, which is not damaged.
    """
    head, tail = _HEAD.match(line), _TAIL.fullmatch(line[-_TAIL_LENGTH:])
    if head is None or tail is None or tail[1].decode() != checksum(line[:-_TAIL_LENGTH]):
        return None
    if int(head[2]) > FORMAT:
        raise JournalError(
            f"line {int(head[1])} of the journal has format {int(head[2])}, which is newer than "
            f"this program reads ({FORMAT}); use the version of Hullward that wrote it"
        )
    return int(head[1])


def renumbered(line: bytes, seq: int) -> bytes:
    """An undamaged line under another number."""
    head = _HEAD.match(line)
    assert head is not None  # undamaged
    return sealed(b'{"seq":' + str(seq).encode() + line[head.end(1) : -_TAIL_LENGTH])


def _problem(number: int, line: bytes) -> str | None:
    seq = seq_of(line)
    if seq is None:
        if _HEAD.match(line) and _TAIL.fullmatch(line[-_TAIL_LENGTH:]):
            return "the checksum differs: the line was changed after it was written"
        return "not a journal line"
    if seq != number:
        return f"line {seq} was expected to be line {number}: lines are missing"
    return None


def _checksum_in(line: bytes) -> str:
    """The checksum at the end of an undamaged line."""
    return line[-_TAIL_LENGTH + 8 : -3].decode()


def first_of_kind(path: Path, kind: str) -> dict[str, Any] | None:
    """The data of the first record of one kind, read beside a writer; None where there is none."""
    with path.open("rb") as lines:
        for line in lines:
            if f',"kind":"{kind}","data":'.encode() in line[:160]:
                try:
                    return dict(json.loads(line)["data"])
                except ValueError:  # damaged or unfinished: opening reports it
                    return None
    return None


@dataclass
class Pieces:
    """The whole lines of a file that does not read as a journal, wherever they stand."""

    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # number: offset, length
    others: list[tuple[int, int]] = field(default_factory=list)  # second lines of one number
    end: int = 0  # byte after the last whole line
    size: int = 0

    @property
    def top(self) -> int:
        """The highest number."""
        return max(self.places, default=0)

    def missing(self, last: int) -> list[int]:
        """The numbers up to `last` without a line."""
        return [seq for seq in range(1, last + 1) if seq not in self.places]


def entry_of(line: bytes) -> JournalLine:
    """What an undamaged line holds."""
    fields = json.loads(line)
    return JournalLine(fields["seq"], fields["kind"], fields["data"], fields["sum"])


def _whole_lines(chunk: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of the undamaged lines in what lies between two line breaks."""
    length = len(chunk.rstrip(b"\r\n"))
    if seq_of(chunk[:length] + b"\n") is not None:
        yield 0, length
        return
    ends = [match.end() for match in _END.finditer(chunk)]
    done = 0
    for match in _START.finditer(chunk):
        start = match.start()
        after = [end for end in ends if end > start][:_JOINED]
        for end in after if start >= done else ():
            if seq_of(chunk[start:end] + b"\n") is not None:
                yield start, end
                done = end
                break
