"""Text and lines of files, packed or not, with limits that hold while they are read.

A packed file of kilobytes may unpack to gigabytes, and a line may be as long as its file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hullward.models.errors import InputError

PACKED = (".gz", ".zst")
OVERSIZE = "too large: "  # begins what stands in the place of a row beyond the limits
MAX_CELL_CHARS = 10_000_000
MAX_LINE_CHARS = 16_000_000
MAX_TEXT_BYTES = 100_000_000  # of a document that is read whole
MAX_BYTES = 20_000_000_000  # of a file of lines, unpacked
_CHUNK = 1 << 20
_ZSTD_CHUNK = 1 << 10  # may unpack to 30,000 times as much
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Row = TypeVar("Row")


def plain_name(path: Path) -> str:
    """The name of a file in lower case, without the ending of a packed one."""
    name = path.name.lower()
    return next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)


def unpacked(path: Path, limit: int = MAX_BYTES) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in pieces.

    Raises InputError where a packed file is damaged or holds more than `limit` bytes.
    """
    total = 0
    name = path.name.lower()
    pieces = _gzip(path) if name.endswith(".gz") else _zstd(path) if name.endswith(".zst") else None
    for piece in pieces if pieces is not None else _plain(path):
        total += len(piece)
        if total > limit:
            raise InputError(
                f"{path.name} holds more than {limit // 1_000_000} MB; split it, or write it as "
                "JSON Lines, one structure a line"
            )
        yield piece


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """The whole text of a file; raises InputError for one larger than `limit` bytes."""
    raw = b"".join(unpacked(path, limit))
    return raw.decode(_encoding(raw), errors="backslashreplace")


def read_lines(path: Path, *, cut: bool = False, newline: str | None = None) -> Iterator[str]:
    """The lines of a text file with their line ends.

    cut: of a line beyond MAX_LINE_CHARS give that fact; else it raises InputError.
    """
    pieces = unpacked(path)
    first = next(pieces, b"")
    stream = io.BufferedReader(_Pieces(first, pieces), _CHUNK)
    text = io.TextIOWrapper(stream, _encoding(first), errors="backslashreplace", newline=newline)
    number = 0
    while line := text.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            if not cut:
                raise InputError(
                    f"{path.name}: line {number} has more than {MAX_LINE_CHARS:,} characters"
                )
            rest = line
            while rest and not rest.endswith("\n"):
                rest = text.readline(_CHUNK)
            line = f"{OVERSIZE}a line of more than {MAX_LINE_CHARS:,} characters\n"
        yield line


def csv_rows(path: Path, reader: Callable[[Iterator[str]], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a CSV by csv.reader or csv.DictReader.

    Raises InputError, with the line, where a row cannot be read or the file ends inside quotes.
    """
    csv.field_size_limit(MAX_CELL_CHARS)  # a CIF in a cell exceeds the default
    number, ended = 0, False

    def lines() -> Iterator[str]:
        nonlocal number, ended
        for line in read_lines(path, newline=""):
            number += 1
            yield line
        ended = True

    try:
        for row in reader(lines()):
            if ended:  # the reader looked for the rest of the row
                raise InputError(
                    f"{path.name}: line {number}: the file ends inside quotes: it was cut "
                    "short, or a quotation mark is too many"
                )
            yield row
    except csv.Error as error:
        raise InputError(f"{path.name}: line {number}: {error}") from None


class _Pieces(io.RawIOBase):
    """A stream of the pieces of a file."""

    def __init__(self, first: bytes, pieces: Iterator[bytes]) -> None:
        self._held, self._pieces = memoryview(first), pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


def _encoding(raw: bytes) -> str:
    return "utf-16" if raw.startswith(_UTF16) else "utf-8-sig"


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def _gzip(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) as file:
            while piece := file.read(_CHUNK):
                yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name} is damaged, cut short or not gzip: {error}") from None


def _zstd(path: Path) -> Iterator[bytes]:
    from zstandard import ZstdDecompressor, ZstdError

    frame = ZstdDecompressor().decompressobj()
    begun = False
    with path.open("rb") as file:
        while piece := file.read(_ZSTD_CHUNK):
            while piece:
                try:
                    yield frame.decompress(piece)
                except ZstdError as error:
                    raise InputError(f"{path.name} is damaged or not Zstandard: {error}") from None
                begun, piece = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = ZstdDecompressor().decompressobj()
    if begun:  # the library does not report this
        raise InputError(f"{path.name} is cut short: fetch or copy it again")
