"""The checkpoints of the graph: a trace of where each run was, ids only.

No run goes on from them: what is done and what is not is found in the store. So a file that is
damaged, lost or older than the store loses nothing, and is set aside.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from hullward.models.errors import LockedError
from hullward.tools.store import StorageError, timestamp

NAME = "checkpoints.sqlite"


def open_checkpoints(directory: Path, notes: Callable[[str], None]) -> sqlite3.Connection:
    """The checkpoint file of a directory, another one where it cannot be used.

    Raises StorageError on a full disk, LockedError while another program has it open.
    """
    path = directory / NAME
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        refuse(directory, error)
        aside = set_aside(directory)
        notes(f"checkpoints were unreadable ({error}): moved to {aside}; going on from the store")
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def refuse(directory: Path, error: sqlite3.Error) -> None:
    """Raise what the user can mend, where an error is not about the content of the file."""
    words = str(error)
    if "full" in words:
        raise StorageError(
            f"{directory / NAME} could not be written ({words}); nothing finished is lost. Free "
            f"some space, then `hullward resume {directory}`"
        ) from error
    if "locked" in words:
        raise LockedError(f"{directory / NAME} is open in another program") from error


def set_aside(directory: Path) -> str:
    """Rename the file and what belongs to it; returns its new name."""
    suffix = f"corrupt-{timestamp().replace(':', '')}"
    for name in (NAME, f"{NAME}-wal", f"{NAME}-shm"):
        if (directory / name).exists():
            os.replace(directory / name, directory / f"{name}.{suffix}")
    return f"{NAME}.{suffix}"


def saver(connection: sqlite3.Connection) -> BaseCheckpointSaver[Any]:
    """What the graph writes its checkpoints with."""
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.checkpoint.sqlite import SqliteSaver

    # ids and numbers only: no class is ever revived from a checkpoint
    return SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=5000")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(str(found[0]).splitlines()[0])
        path.chmod(0o600)
    except BaseException:
        connection.close()
        raise
    return connection
