"""The file of reduced cells: what a crystal is compared by, found by the crystal's own text.

It holds nothing that cannot be found again from the crystals, and may be deleted at any time. It is
of one version of the code that reduces: another begins it anew. Each entry carries a checksum, and
what is damaged is found again; without a file that can be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.tools import crystal as comparing
from hullward.tools.crystal import ComparedCrystal, OrderedLattice

CELLS = "cells.sqlite"
_AT_ONCE = 500  # rows a query
_SUM = 8  # bytes of a checksum
_LAYOUT = """
    CREATE TABLE IF NOT EXISTS rule (digest TEXT);
    CREATE TABLE IF NOT EXISTS cells (key BLOB PRIMARY KEY, body BLOB);
"""
logger = logging.getLogger(__name__)


class KeptCells:
    """The file of one campaign, opened on first use; its one writer is the campaign's."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._usable = True

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def compared(self, crystals: Sequence[tuple[str, str]]) -> list[ComparedCrystal]:
        """Crystals, each by name and JSON text, reduced."""
        texts = [text for _, text in crystals]
        bodies = self._bodies(b"c", texts, lambda one: ComparedCrystal("", one).to_bytes())
        return [
            ComparedCrystal.from_bytes(name, body)
            for (name, _), body in zip(crystals, bodies, strict=True)
        ]

    def lattices(self, texts: Sequence[str]) -> list[OrderedLattice]:
        """Crystals, each by its JSON text, with their parent lattices."""
        bodies = self._bodies(b"p", texts, lambda one: OrderedLattice(one).to_bytes())
        return [
            OrderedLattice.from_bytes(text, body) for text, body in zip(texts, bodies, strict=True)
        ]

    def _bodies(
        self, kind: bytes, texts: Sequence[str], reduce: Callable[[Crystal], bytes]
    ) -> list[bytes]:
        keys = [hashlib.blake2b(kind + text.encode(), digest_size=16).digest() for text in texts]
        with self._lock:
            found = self._read(keys)
            missing = {
                key: reduce(Crystal.model_validate_json(text))
                for key, text in zip(keys, texts, strict=True)
                if key not in found
            }
            if missing:
                self._write(missing)
        return [found[key] if key in found else missing[key] for key in keys]

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if not self._path.exists():
            return found
        try:
            connection = self._opened()
            for start in range(0, len(keys) if connection else 0, _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT key, body FROM cells WHERE key IN ({marks})"
                for key, body in connection.execute(query, some) if connection else ():
                    if isinstance(body, bytes) and _checksum(key + body[_SUM:]) == body[:_SUM]:
                        found[key] = body[_SUM:]
        except sqlite3.Error as error:
            self._begin_anew(error)
        return found

    def _write(self, bodies: Mapping[bytes, bytes]) -> None:
        rows = [(key, _checksum(key + body) + body) for key, body in bodies.items()]
        try:
            if connection := self._opened():
                with connection:
                    connection.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            self._begin_anew(error)

    def _opened(self) -> sqlite3.Connection | None:
        if self._connection is None and self._usable:
            # a killed process loses nothing; what a power cut damages is found again
            connection = sqlite3.connect(self._path, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(_LAYOUT)
            if connection.execute("SELECT digest FROM rule").fetchall() != [(_rule(),)]:
                with connection:
                    connection.execute("DELETE FROM cells")
                    connection.execute("DELETE FROM rule")
                    connection.execute("INSERT INTO rule VALUES (?)", [_rule()])
        return self._connection

    def _begin_anew(self, error: sqlite3.Error) -> None:
        """Delete a file that cannot be used; a second one is not tried."""
        logger.warning("%s is begun anew: %s", self._path, error)
        self._close()
        self._usable = False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_SUM).digest()


@cache
def _rule() -> str:
    """Names the code that reduces."""
    code = sorted(Path(comparing.__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(version("spglib").encode(), digest_size=16)
    for path in code:
        digest.update(path.read_bytes())
    return digest.hexdigest()
