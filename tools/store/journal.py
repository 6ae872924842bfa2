"""The append-only journal, from which everything else is built.

One record a line:

    {"seq":1,"v":1,"t":"2026-01-31T12:00:00.000Z","kind":"Proposal","data":{…},"sum":"0f1e2d3c4b5a6978"}

`seq` counts from 1 without gaps, `sum` is the checksum of everything before it. A batch is on disk
when `append` returns. What a crash left after the last line break was never acknowledged and is
cut off on opening; damage anywhere else is an error and is never skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullward.models.errors import HullwardError, InputError
from hullward.tools.store.files import flush, put_in_place, timestamp

NAME = "journal.jsonl"
FORMAT = 1
_HEAD = re.compile(rb'\{"seq":(\d+),"v":(\d+),')
_TAIL = re.compile(rb',"sum":"([0-9a-f]{16})"\}\n')
_TAIL_LENGTH = len(',"sum":"0123456789abcdef"}\n')


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


class Journal:
    """An open journal; its owner holds the lock of the directory."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open, check every line and cut off a torn end.

        Raises JournalError for a damaged line, with its number and the remedy.
        """
        self.path = path
        self.notes: list[str] = []
        self.last_checksum = ""
        self._ends = array("Q", [0])  # byte after each line, by its number; line 0 is nothing
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
        self._handle = os.open(path, flags, 0o644)
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
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def append(self, items: Sequence[tuple[str, str]]) -> None:
        """Write (kind, data as JSON) lines and wait until they are on the disk.

        Raises StorageError when that fails; the journal is then as it was before.
        """
        if not items:
            return
        if self._handle < 0:
            raise StorageError(f"{self.path} is closed after a failed write; open it again")
        now, lines, digest = timestamp(), [], ""
        for seq, (kind, data) in enumerate(items, start=self.last_seq + 1):
            body = f'{{"seq":{seq},"v":{FORMAT},"t":"{now}","kind":"{kind}","data":{data}'.encode()
            digest = checksum(body)
            lines.append(body + f',"sum":"{digest}"}}\n'.encode())
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

    def read(self, after: int = 0) -> Iterator[JournalLine]:
        """Entries with seq > after, in order."""
        after = min(after, self.last_seq)
        with self.path.open("rb") as lines:
            lines.seek(self._ends[after])
            for seq, line in enumerate(lines, start=after + 1):
                if seq > self.last_seq:
                    return
                fields = json.loads(line)
                yield JournalLine(seq, fields["kind"], fields["data"], fields["sum"])

    def checksum_of(self, seq: int) -> str | None:
        """The checksum of one line; '' for seq 0, None where there is no such line."""
        if not 0 < seq <= self.last_seq:
            return "" if seq == 0 else None
        tail = os.pread(self._handle, _TAIL_LENGTH, self._ends[seq] - _TAIL_LENGTH)
        return _checksum_in(tail)

    def _check(self) -> None:
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                problem = _problem(number, line)
                if problem is None:
                    self._ends.append(self._ends[-1] + len(line))
                    self.last_checksum = _checksum_in(line)
                    continue
                # A power cut can leave a block of zeros; JSON never holds a zero byte.
                rest = line + lines.read()
                if b"\n" in rest and b"\0" not in rest:
                    raise JournalError(
                        f"{self.path}, line {number}: {problem}. The file is unchanged; "
                        f"`hullward rebuild {self.path.parent}` keeps every undamaged line and "
                        "moves the original aside"
                    )
                os.ftruncate(self._handle, self._ends[-1])
                os.fsync(self._handle)
                self.notes.append(
                    f"{self.path.name}: cut off {len(rest)} bytes of an unfinished write after "
                    f"line {number - 1}; which was not acknowledged"
                )
                return

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


def _problem(number: int, line: bytes) -> str | None:
    head, tail = _HEAD.match(line), _TAIL.fullmatch(line[-_TAIL_LENGTH:])
    if head is None or tail is None:
        return "not a journal line"
    if tail[1].decode() != checksum(line[:-_TAIL_LENGTH]):
        return "the checksum differs: the line was changed after it was written"
    if int(head[2]) > FORMAT:
        return f"format {int(head[2])} is newer than this program reads ({FORMAT})"
    if int(head[1]) != number:
        return f"line {int(head[1])} was expected to be line {number}: lines are missing"
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


def salvage(path: Path) -> str:
    """Keep the undamaged lines of a damaged journal, renumbered; the original is kept aside.

    Returns a sentence on what was done. Raises JournalError for lines of a newer format, which are
    not damaged.
    """
    aside = path.with_name(f"{path.name}.damaged-{timestamp().replace(':', '')}")
    fresh = path.with_name(f"{path.name}.new")
    kept = damaged = 0
    with path.open("rb") as lines, fresh.open("wb") as out:
        for number, line in enumerate(lines, start=1):
            head = _HEAD.match(line)
            problem = _problem(int(head[1]) if head else number, line)
            if problem and "newer" in problem:
                raise JournalError(f"{path}, line {number}: {problem}")
            if head is None or problem:
                damaged += 1
                continue
            kept += 1
            body = b'{"seq":' + str(kept).encode() + line[head.end(1) : -_TAIL_LENGTH]
            out.write(body + f',"sum":"{checksum(body)}"}}\n'.encode())
    os.link(path, aside)
    put_in_place(fresh, path)
    return (
        f"{path.name}: kept {kept} lines, left out {damaged} damaged ones; "
        f"the original is {aside.name}"
    )
