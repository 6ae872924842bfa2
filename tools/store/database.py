"""The DuckDB file of a campaign: open it, bring it up to the journal, build it anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import duckdb

from hullward.models.errors import LockedError
from hullward.tools.store import schema
from hullward.tools.store.files import put_in_place, timestamp
from hullward.tools.store.journal import Journal, StorageError
from hullward.tools.store.projection import CountingError, Index, Projector

DATABASE = "hullward.duckdb"
SNAPSHOT = "snapshot.duckdb"
# Extensions are never fetched and variables of the calling program never read. One thread is enough
# for a campaign and leaves the cores to the relaxations.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "threads": 1,
}
_REPLAYED_AT_ONCE = 20_000  # journal lines a transaction: some ten megabytes


class _UnusableError(Exception):
    """A database that opens but does not match the journal."""


class _OutdatedError(Exception):
    """A database that another version of Hullward laid out."""


class Database:
    """An open database, up to the last line of the journal."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.projector = Projector(connection)
        self.index = Index.of(connection)

    def close(self) -> None:
        self.connection.close()

    def replay(self, journal: Journal, note: Callable[[str], None]) -> None:
        """Apply the journal lines that are not in the tables yet."""
        orphans = 0
        after, _ = applied(self.connection)
        lines = journal.read(after)
        while entries := list(islice(lines, _REPLAYED_AT_ONCE)):
            new = []
            for entry in entries:
                try:
                    if self.index.stage(entry.kind, entry.data):
                        new.append((entry.kind, entry.data))
                except CountingError:  # it refers to a damaged line that a rebuild left out
                    orphans += 1
            self.projector.apply(new, entries[-1].seq, entries[-1].checksum)
            self.index.commit()
        if orphans:
            note(f"{orphans} journal lines refer to lost ones and are not in the database")


def open_database(directory: Path, journal: Journal, note: Callable[[str], None]) -> Database:
    """The database of a directory, built from the journal if it is missing or cannot be used.

    Raises LockedError while another program has the file open, StorageError on a full disk.
    """
    path = directory / DATABASE
    if path.exists():
        try:
            return _open_current(path, journal, note)
        except _OutdatedError:
            note(f"{DATABASE} is of another version; it is built again from the journal")
        except (duckdb.Error, _UnusableError) as error:
            if is_in_use(error):
                raise LockedError(f"{path} is open in another program: {error}") from error
            if is_full(error):
                raise StorageError(f"{path} cannot grow: {error}") from error
            return replace(directory, journal, error, note)
    elif journal.last_seq:
        note(f"{DATABASE} was missing; it was built again from the journal")
    build_database(directory, journal, note)
    return _open_current(path, journal, note)


def replace(
    directory: Path, journal: Journal, reason: Exception, note: Callable[[str], None]
) -> Database:
    """Build another database for one that cannot be used."""
    set_aside(directory, reason, note)
    build_database(directory, journal, note)
    return _open_current(directory / DATABASE, journal, note)


def build_database(directory: Path, journal: Journal, note: Callable[[str], None]) -> None:
    """Lay the database out anew and replay the whole journal; replaces the file in one step."""
    path, fresh = directory / DATABASE, directory / f"{DATABASE}.new"
    remove(fresh)
    try:
        connection = duckdb.connect(fresh, config=SETTINGS)
        try:
            schema.create(connection)
            Database(connection).replay(journal, note)
        finally:
            connection.close()
    except duckdb.Error as error:
        remove(fresh)
        raise StorageError(
            f"{path} cannot be built ({error}); the journal is complete, and the next command "
            "tries again"
        ) from error
    path.with_name(f"{DATABASE}.wal").unlink(missing_ok=True)
    put_in_place(fresh, path)


def set_aside(directory: Path, reason: object, note: Callable[[str], None]) -> None:
    """Rename an unusable database and its WAL."""
    stamp = timestamp().replace(":", "")
    for name in (DATABASE, f"{DATABASE}.wal"):
        if (directory / name).exists():
            os.replace(directory / name, directory / f"{name}.corrupt-{stamp}")
    first_line = str(reason).splitlines()[0]
    note(
        f"{DATABASE} could not be used ({first_line}); it was kept as {DATABASE}.corrupt-{stamp} "
        "and built again from the journal"
    )


def remove(path: Path) -> None:
    """Remove a database file and its WAL."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)


def applied(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """The last journal line in the tables and its checksum."""
    rows = connection.execute("SELECT seq, checksum FROM bookkeeping.applied").fetchall()
    if len(rows) != 1:
        raise _UnusableError("it does not show how much of the journal it holds")
    return rows[0][0], rows[0][1]


def is_full(error: Exception) -> bool:
    return any(words in str(error) for words in ("No space left", "Disk quota", "File too large"))


def is_in_use(error: Exception) -> bool:
    return any(words in str(error) for words in ("Could not set lock", "file handle conflict"))


def _open_current(path: Path, journal: Journal, note: Callable[[str], None]) -> Database:
    connection = duckdb.connect(path, config=SETTINGS)
    try:
        if not schema.is_current(connection):
            raise _OutdatedError
        seq, digest = applied(connection)
        if journal.checksum_of(seq) != digest:
            raise _UnusableError("it does not follow from the journal")
        database = Database(connection)
        database.replay(journal, note)
    except BaseException:
        connection.close()
        raise
    return database
