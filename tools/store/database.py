"""The DuckDB file of a campaign: open it, bring it up to the journal, build it anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from hullward.models.errors import InputError, LockedError
from hullward.tools.store import schema
from hullward.tools.store.files import copy_open_file, put_in_place, timestamp
from hullward.tools.store.journal import Journal, Mark, StorageError
from hullward.tools.store.keys import Index
from hullward.tools.store.projection import CountingError, Projector, problem_of
from hullward.tools.store.tables import TABLES

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
_PAGES_KEPT = "32MB"
_REPLAYED_AT_ONCE = 20_000  # journal lines a transaction: some ten megabytes


class _UnusableError(Exception):
    """A database that opens but does not match the journal."""


class _OutdatedError(Exception):
    """A database that another version of Hullward laid out."""


class Database:
    """An open database, up to the last line of the journal."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.connection = connection
        self.projector = Projector(connection)
        self.index = Index(connection)
        self._path, self._file = path, -1

    def close(self) -> None:
        self.connection.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def copy_to(self, path: Path) -> None:
        """Copy the file as it stands; a fraction of the time that copying its rows takes."""
        self.connection.execute("CHECKPOINT")  # nothing is left in the WAL
        if self._file < 0:
            # Kept open as long as the connection: closing any handle of a file gives up the locks
            # that this process, and so DuckDB, has on it.
            self._file = os.open(self._path, os.O_RDONLY)
        copy_open_file(self._file, path)
        release_pages(self.connection)

    def replay(self, journal: Journal, note: Callable[[str], None]) -> None:
        """Apply the journal lines that are not in the tables yet.

        Lines that no table can hold, which earlier versions accepted, stay in the journal only;
        so do those that refer to lost ones. Raises JournalError for a line of a newer version.
        """
        orphans = 0
        lines = journal.read(applied(self.connection).seq)
        while entries := list(islice(lines, _REPLAYED_AT_ONCE)):
            new = []
            for entry in entries:
                if problem := problem_of(entry.kind, entry.data):
                    note(f"line {entry.seq} of the journal is not in the database: {problem}")
                    continue
                try:
                    if self.index.stage(entry.kind, entry.data):
                        new.append((entry.kind, entry.data))
                except CountingError:
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
            if is_refused(error):
                raise StorageError(
                    f"{path} cannot be opened, though it may be sound: {error}"
                ) from error
            return replace(directory, journal, error, note)
    elif journal.last_seq:
        note(f"{DATABASE} was missing; it was built again from the journal")
    build_database(directory, journal, note)
    return _open_current(path, journal, note)


def replace(
    directory: Path, journal: Journal, reason: Exception, note: Callable[[str], None]
) -> Database:
    """Build another database for one that cannot be used."""
    fresh = build_file(directory, journal, note)
    set_aside(directory, DATABASE, reason, note)
    put_database(fresh, directory)
    return _open_current(directory / DATABASE, journal, note)


def build_database(directory: Path, journal: Journal, note: Callable[[str], None]) -> None:
    """Lay the database out anew and replay the whole journal; replaces the file in one step."""
    put_database(build_file(directory, journal, note), directory)


def build_file(directory: Path, journal: Journal, note: Callable[[str], None]) -> Path:
    """The database of a whole journal, beside the one that is there."""
    fresh = directory / f"{DATABASE}.new"
    remove(fresh)
    try:
        connection = duckdb.connect(fresh, config=SETTINGS)
        try:
            schema.create(connection)
            Database(connection, fresh).replay(journal, note)
        finally:
            connection.close()
    except duckdb.Error as error:
        remove(fresh)
        raise StorageError(
            f"{directory / DATABASE} cannot be built ({error}); the journal is complete, and the "
            "next command tries again"
        ) from error
    except BaseException:
        remove(fresh)
        raise
    return fresh


def put_database(fresh: Path, directory: Path) -> None:
    """Put a finished database in its place."""
    (directory / f"{DATABASE}.wal").unlink(missing_ok=True)
    put_in_place(fresh, directory / DATABASE)


def require_usable_name(directory: Path) -> None:
    """Raise InputError for a path that DuckDB cuts or cannot read, wherever links lead to."""
    name = str(directory.resolve())
    try:
        name.encode()
    except UnicodeEncodeError:
        problem = "is not UTF-8"
    else:
        if not set(name) & set("?\\"):
            return
        problem = "has a '?' or a backslash, at which DuckDB would cut it"
    raise InputError(f"the path {name!r} {problem}; rename the folder, or choose another")


def set_aside(directory: Path, name: str, reason: object, note: Callable[[str], None]) -> None:
    """Rename a database file that cannot be used, and its WAL."""
    stamp = timestamp().replace(":", "")
    for each in (name, f"{name}.wal"):
        if (directory / each).exists():
            os.replace(directory / each, directory / f"{each}.corrupt-{stamp}")
    first_line = str(reason).splitlines()[0]
    note(
        f"{name} could not be used ({first_line}); it was kept as {name}.corrupt-{stamp} "
        "and is built again from the journal"
    )


def remove(path: Path) -> None:
    """Remove a database file and its WAL."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)


def applied(connection: duckdb.DuckDBPyConnection) -> Mark:
    """The last journal line in the tables."""
    rows = connection.execute("SELECT seq, checksum FROM bookkeeping.applied").fetchall()
    if len(rows) != 1:
        raise _UnusableError("it does not show how much of the journal it holds")
    return Mark(*rows[0])


@contextmanager
def attached(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database file as it is on the disk, read-only; raises duckdb.Error where it is damaged."""
    connection = duckdb.connect(":memory:", config=SETTINGS)
    try:
        connection.execute(f"ATTACH {quoted(path)} AS attached (READ_ONLY)")
        connection.execute("USE attached")
        yield connection
    finally:
        connection.close()


def mark_in(path: Path) -> Mark | None:
    """The mark of a database file; None where there is none or it cannot be read.

    Raises LockedError while another program has the file open.
    """
    if not path.exists():
        return None
    try:
        with attached(path) as connection:
            return applied(connection)
    except (duckdb.Error, _UnusableError) as error:
        if is_in_use(error):
            raise LockedError(f"{path} is open in another program: {error}") from error
        return None


def quoted(path: Path) -> str:
    """A path as SQL writes it."""
    return "'" + str(path).replace("'", "''") + "'"


def read_all_pages(connection: duckdb.DuckDBPyConnection) -> None:
    """Read every row, so that a damaged page is found now; raises duckdb.Error for one."""
    for table in TABLES.values():
        connection.execute(f"SELECT bit_xor(hash(t)) FROM {table.name} t").fetchall()
        release_pages(connection)


def release_pages(connection: duckdb.DuckDBPyConnection) -> None:
    """Give back the memory of pages that were read; left alone, all of a file stays there.

    What a query needs while it runs has no bound: below some size it could not end.
    """
    try:
        with suppress(duckdb.OutOfMemoryException):  # what is in use stays
            connection.execute(f"SET memory_limit = '{_PAGES_KEPT}'")
    finally:
        connection.execute("RESET memory_limit")


def is_full(error: Exception) -> bool:
    return any(words in str(error) for words in ("No space left", "Disk quota", "File too large"))


def is_refused(error: Exception) -> bool:
    """Whether the machine, and not the content of a file, is what an error is about."""
    words = ("Permission denied", "Too many open files", "Read-only file system", "Cannot allocate")
    return isinstance(error, duckdb.OutOfMemoryException) or any(w in str(error) for w in words)


def is_in_use(error: Exception) -> bool:
    return any(words in str(error) for words in ("Could not set lock", "file handle conflict"))


def _open_current(path: Path, journal: Journal, note: Callable[[str], None]) -> Database:
    connection = duckdb.connect(path, config=SETTINGS)
    try:
        if not schema.is_current(connection):
            raise _OutdatedError
        if not applied(connection).follows_from(journal):
            raise _UnusableError("it does not follow from the journal")
        read_all_pages(connection)
        database = Database(connection, path)
        database.replay(journal, note)
    except BaseException:
        connection.close()
        raise
    return database


def attach(snapshot: Path, settings: Mapping[str, Any] | None) -> duckdb.DuckDBPyConnection:
    """Open a snapshot read-only: no files, no network, no settings changed afterwards."""
    # Attached to a database in memory: opening the path itself would hand out the previous
    # snapshot as long as any connection of this process still reads that.
    connection = duckdb.connect(":memory:", config={**SETTINGS, **(settings or {})})
    try:
        connection.execute(f"ATTACH {quoted(snapshot)} AS snapshot (READ_ONLY)")
        connection.execute("USE snapshot")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        connection.execute("FROM schema_version").fetchall()
    except duckdb.Error as error:
        connection.close()
        raise InputError(
            f"{snapshot} cannot be read ({error}); `hullward rebuild {snapshot.parent}` makes a "
            "new one"
        ) from error
    return connection
