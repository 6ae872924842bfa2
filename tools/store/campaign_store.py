"""One campaign directory: journal first, DuckDB as its projection, snapshots for readers.

Opening takes the directory's lock, so an open store is the only writer. Adding is idempotent: what
may have been stored already can be added again.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as Connection

from hullward.models.errors import HullwardError, InputError, system_reason
from hullward.tools.records import Record
from hullward.tools.store import funnel, schema
from hullward.tools.store.database import (
    DATABASE,
    SNAPSHOT,
    attach,
    build_database,
    is_full,
    mark_in,
    open_database,
    remove,
    replace,
    require_usable_name,
    set_aside,
)
from hullward.tools.store.files import put_in_place, sweep
from hullward.tools.store.journal import NAME as JOURNAL
from hullward.tools.store.journal import Journal, StorageError, first_of_kind
from hullward.tools.store.lock import Lock
from hullward.tools.store.projection import (
    AnyRecord,
    Place,
    decode,
    fetch_rows,
    json_of,
    key_of,
)
from hullward.tools.store.recovery import open_journal
from hullward.tools.store.tables import KIND_OF, RANK, TABLES

# Files that a campaign may have in its directory before its first record.
OURS = ("lock", "inbox", "campaign", "checkpoint", "report", "log", "cells")

_FILES = ("journal", "hullward.duckdb", SNAPSHOT)  # what opening makes
FEW_IDS = 2000

Parameters = Sequence[Any] | dict[str, Any]
logger = logging.getLogger(__name__)


class Store(AbstractContextManager["Store"]):
    """The writer of one campaign directory. Use as a context manager or close it."""

    def __init__(
        self, directory: Path, lock: Lock, journal: Journal, notes: Iterable[str] = ()
    ) -> None:
        """Internal: see `open`."""
        self.directory = directory
        self.notes = list(notes)
        self._note = _noted(self.notes)
        self._lock, self._journal = lock, journal
        self._mutex = threading.RLock()  # graph nodes may run in threads
        self._database = open_database(directory, journal, self._note)
        self._place = os.open(directory, os.O_RDONLY)
        self._behind = False  # the journal holds more than the database
        self._made: list[Path] = []  # folders that opening created, the outermost first

    @classmethod
    def open(cls, directory: Path, *, command: str, create: bool = False) -> Store:
        """Become the writer: lock, repair the journal, bring the database up to it.

        `notes` then lists the repairs. Raises LockedError when another process is
        writing, InputError for a directory that holds no campaign (or, with create, something
        else), JournalError for a journal of which something is lost, StorageError on a full disk.
        """
        directory = Path(directory).absolute()
        notes: list[str] = []
        with ExitStack() as undo:
            undo.enter_context(_writing(directory))
            made = [d for d in (*reversed(directory.parents), directory) if not d.exists()]
            _examine(directory, create)
            lock = undo.enter_context(closing(Lock(directory, command)))
            _tidy(directory)
            published = (directory / SNAPSHOT).exists()
            journal = open_journal(directory, _noted(notes), create=create)
            undo.enter_context(closing(journal))
            store = cls(directory, lock, journal, notes)
            if published and not (directory / SNAPSHOT).exists():
                store.publish()  # a damaged one was set aside
            undo.pop_all()  # from here on `close` does it
        store._made = made
        return store

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Release the lock, and remove what opening created if nothing was stored in it."""
        with self._mutex:
            unused = self._made if self._place >= 0 and self._journal.last_seq == 0 else []
            self.close()
            for path in self.directory.iterdir() if unused else ():
                if path.is_file() and path.name.startswith((*OURS, *_FILES)):
                    path.unlink()
            with suppress(OSError):  # something else is in it by now
                if unused and (self.directory / "inbox").is_dir():
                    (self.directory / "inbox").rmdir()
                for folder in reversed(unused):
                    folder.rmdir()

    def close(self) -> None:
        """Release the lock; closing twice is fine."""
        with self._mutex:
            self._database.close()
            self._journal.close()
            self._lock.close()
            if self._place >= 0:
                os.close(self._place)
                self._place = -1

    @property
    def last_seq(self) -> int:
        """The number of the last line of the journal: a measure of what is stored."""
        return self._journal.last_seq

    def is_busy(self) -> bool:
        """Whether this thread is inside a method of the store, where nothing may interrupt it."""
        return bool(self._mutex._is_owned())  # type: ignore[attr-defined]

    def add(self, records: Iterable[Record]) -> int:
        """Store the records that are not stored yet, and return how many those were.

        When this returns they survive a power cut. Raises CountingError for records that refer to
        nothing or contradict what is stored, StorageError when a write fails: then either none of
        them is stored, or all are and the next call finds them.
        """
        with self._mutex:
            self._catch_up()
            index = self._database.index
            try:
                fresh = self._fresh(sorted(records, key=lambda record: RANK[KIND_OF[type(record)]]))
                self._journal.append([(kind, text) for kind, text, _ in fresh])
            except BaseException:
                index.discard()
                raise
            index.commit()
            if fresh:
                self._project([(kind, data) for kind, _, data in fresh])
            return len(fresh)

    def execute(self, query: str, parameters: Parameters = ()) -> Connection:
        """Run a reading query on the live database, with parameters for `?` or `$name`."""
        return self._database.connection.execute(query, parameters)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """The rows of a query on the live database, as dictionaries by column."""
        with self._mutex:
            return fetch_rows(self._database.connection, sql, parameters)

    def load(
        self, kind: type[AnyRecord], ids: Iterable[str] | None = None, *, by: str = ""
    ) -> list[AnyRecord]:
        """Records of one kind, in an order that does not depend on when they were stored.

        ids are values of the column `by`, by default of the first column of the key. Of each
        crystal there is one Candidate, that of its first proposal.
        """
        table = TABLES[KIND_OF[kind]]
        order = ", ".join(f'"{column}"' for column in table.order or table.key)
        where, parameters = "", []
        if ids is not None:
            wanted = list(ids)
            few = "list_contains(?::VARCHAR[], {})"  # reads what matches only, but slow for many
            among = few if len(wanted) <= FEW_IDS else "{} IN (SELECT unnest(?::VARCHAR[]))"
            where = "WHERE " + among.format(f'"{by or table.primary_key[0]}"')
            parameters = [wanted]
        rows = self.rows(f"SELECT * FROM {table.name} {where} ORDER BY {order}", parameters)
        return [decode(kind, row) for row in rows]

    def count(self) -> funnel.Counting:
        """How far the proposals came; see `funnel.count`."""
        with self._mutex:
            return funnel.count(self)

    def publish(self, *, verify: bool = True) -> Path:
        """Give readers a new snapshot; returns its path.

        verify: check the counting first, and raise CountingError where the counts do not add up;
        the old snapshot then remains.
        """
        with self._mutex:
            self._catch_up()
            try:
                return self._copy(verify)
            except duckdb.ProgrammingError:
                raise
            except duckdb.Error as error:
                if is_full(error):
                    raise StorageError(
                        f"no room for a snapshot in {self.directory}; free some space and try again"
                    ) from error
                # A damaged page that had not been read before.
                self._database.close()
                self._database = replace(self.directory, self._journal, error, self._note)
            return self._copy(verify)

    def _catch_up(self) -> None:
        there = None
        with suppress(FileNotFoundError):
            there = os.stat(self.directory)
        if there is None or not os.path.samestat(there, os.fstat(self._place)):
            raise StorageError(
                f"{self.directory} was moved or removed while it was written to; what is stored "
                "is in the directory where it is now: go on with `hullward resume` there"
            )
        if self._behind:
            self._database.close()
            self._database = open_database(self.directory, self._journal, self._note)
            self._behind = False

    def _fresh(self, records: Iterable[Record]) -> list[tuple[str, str, dict[str, Any]]]:
        """(kind, JSON text, JSON data) of the records that are not stored with this content."""
        fresh: dict[Place, tuple[Record, str, dict[str, Any]]] = {}
        for record in records:
            kind, (text, data) = KIND_OF[type(record)], json_of(record)
            if self._database.index.stage(kind, data):
                fresh[kind, key_of(TABLES[kind], data)] = (record, text, data)
        for kind, table in TABLES.items():
            changed = [key for key in fresh if key[0] == kind] if table.latest else []
            stored = self.load(table.record, {key[1][0] for key in changed}) if changed else []
            for old in stored:
                place = kind, key_of(table, old.model_dump(include=set(table.key)))
                if place in fresh and fresh[place][0] == old:
                    del fresh[place]
        return [(kind, text, data) for (kind, _), (_, text, data) in fresh.items()]

    def _project(self, entries: list[tuple[str, dict[str, Any]]]) -> None:
        journal = self._journal
        try:
            self._database.projector.apply(entries, journal.last_seq, journal.last_checksum)
        except BaseException as error:
            self._behind = True
            if isinstance(error, duckdb.Error):
                raise StorageError(
                    f"a write to {self.directory / DATABASE} failed ({error}); the journal is "
                    "complete, and the next command brings the database up to it"
                ) from error
            raise

    def _copy(self, verify: bool) -> Path:
        if verify:
            funnel.verify(self)
        snapshot, fresh = self.directory / SNAPSHOT, self.directory / f"{SNAPSHOT}.new"
        remove(fresh)
        try:
            self._database.copy_to(fresh)
            put_in_place(fresh, snapshot)
        except OSError as error:
            remove(fresh)
            raise StorageError(
                f"no snapshot could be written in {self.directory} ({system_reason(error)}); "
                "nothing is lost: free some space and try again"
            ) from error
        return snapshot


def rebuild(directory: Path, *, notes: list[str] | None = None) -> Path:
    """Build the database from the journal alone and publish it; returns its path.

    A damaged journal loses only what neither it nor the database still holds, and what refers to
    that. The originals of all that is damaged are kept aside. notes gets a line for each repair.
    """
    directory = Path(directory).absolute()
    notes = [] if notes is None else notes
    note = _noted(notes)
    with ExitStack() as undo:
        undo.enter_context(_writing(directory))
        _examine(directory, create=False, journal=False)
        lock = undo.enter_context(closing(Lock(directory, "rebuild")))
        journal = open_journal(directory, note, create=True, rescue=True)
        undo.enter_context(closing(journal))
        held = mark_in(directory / DATABASE)
        sound = held is not None and held.follows_from(journal) and not notes
        if (directory / DATABASE).exists() and not sound:
            set_aside(directory, DATABASE, "it does not follow from the journal", note)
        build_database(directory, journal, note)
        store = Store(directory, lock, journal)
        undo.pop_all()
        with store:
            store.publish()
            notes.extend(store.notes)
    return directory / DATABASE


def _tidy(directory: Path) -> None:
    """Remove what a killed writer left unfinished; the lock is held."""
    for name in (DATABASE, SNAPSHOT, JOURNAL):
        remove(directory / f"{name}.new")
    for folder in (directory, directory / "inbox", directory / "report"):
        sweep(folder)


def _noted(notes: list[str]) -> Callable[[str], None]:
    """Add a line to notes and to the log."""

    def note(text: str) -> None:
        notes.append(text)
        logger.warning(text)

    return note


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn what the system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        problem = f"{directory} cannot be written: {system_reason(error, writing=True)}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise (StorageError if full else InputError)(problem) from error


def read_first(directory: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """The first record of one kind in a directory, read without becoming its writer."""
    _examine(Path(directory), create=False)
    data = first_of_kind(Path(directory) / JOURNAL, KIND_OF[kind])
    return kind.model_validate(data) if data else None


def open_snapshot(directory: Path, settings: Mapping[str, Any] | None = None) -> Connection:
    """The latest snapshot: read-only, no files, no network, no settings changed afterwards.

    settings: DuckDB's, e.g. memory_limit. A snapshot by another version of Hullward is first made
    again from the journal. Raises InputError where nothing was published yet.
    """
    snapshot = Path(directory).absolute() / SNAPSHOT
    if not snapshot.exists():
        _examine(snapshot.parent, create=False)
        raise InputError(
            f"{snapshot.parent} has no snapshot yet; `hullward rebuild {directory}` makes one"
        )
    connection = attach(snapshot, settings)
    if schema.is_current(connection):
        return connection
    connection.close()
    try:
        with Store.open(snapshot.parent, command="rebuild") as store:
            store.publish()
    except HullwardError as error:
        raise InputError(
            f"{snapshot} is of another version of Hullward and was not made again: {error}. Copy "
            "the directory to where you can write, or try again when the run there has ended"
        ) from error
    return attach(snapshot, settings)


def _examine(directory: Path, create: bool, journal: bool = True) -> None:
    """Raise InputError unless a directory is a campaign's, or can become one.

    journal: False where a database alone is enough.
    """
    require_usable_name(directory)
    if not directory.exists() and create:
        directory.mkdir(parents=True)
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"{directory} {problem}; `hullward run` and `hullward screen` create one")
    if (directory / JOURNAL).exists():
        return
    if (directory / DATABASE).exists():
        if not journal:
            return
        raise InputError(
            f"{directory} has a database but no {JOURNAL}; put the journal back, or "
            f"`hullward rebuild {directory}` writes it again from what the database holds"
        )
    if not create:
        raise InputError(
            f"{directory} holds no campaign; `hullward run` and `hullward screen` start one"
        )
    names = sorted(entry.name for entry in directory.iterdir())
    if foreign := [name for name in names if not name.startswith((".", *OURS))]:
        some = ", ".join(foreign[:3])
        raise InputError(f"{directory} holds something else ({some}); choose an empty directory")
