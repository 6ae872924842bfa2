"""How a command ends that cannot go on: one line and an exit code for every cause.

What a user can cause is explained here; anything else is a fault of the program, whose traceback
goes to a file.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import tempfile
import traceback

from hullward.models.errors import HullwardError, InputError, RunInterruptedError

INTERRUPTED = "interrupted; what was stored stays"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(error: BaseException) -> tuple[str, int]:
    """The one line that explains an error, and the exit code it means."""
    if isinstance(error, HullwardError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, RunInterruptedError.exit_code
    if isinstance(error, MemoryError):
        return "not enough memory; free some, then go on", RunInterruptedError.exit_code
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object!r} is not UTF-8; rename it", InputError.exit_code
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, sqlite3.Error) or _is_duckdb(error):
        return _of_database(error)
    return _report(error), HullwardError.exit_code


def _of_system(error: OSError) -> tuple[str, int]:
    """A file to write, or one that went away."""
    from hullward.tools.store import StorageError

    full = error.errno in FULL
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    what = error.strerror or str(error) or type(error).__name__
    line = f"{place}: {what}" if place else what
    return (
        (f"{line}; free some space, then run the same command again", StorageError.exit_code)
        if full
        else (line, InputError.exit_code)
    )


def _is_duckdb(error: BaseException) -> bool:
    duckdb = sys.modules.get("duckdb")
    return duckdb is not None and isinstance(error, duckdb.Error)


def _of_database(error: BaseException) -> tuple[str, int]:
    from hullward.tools.store import StorageError

    first = (str(error).splitlines() or [type(error).__name__])[0]
    if "interrupt" in first.lower():
        return INTERRUPTED, RunInterruptedError.exit_code
    if any(sign in str(error) for sign in ("disk is full", "No space left", "Disk quota")):
        return f"the disk is full ({first}); free some space, then go on", StorageError.exit_code
    return (
        f"a database cannot be used ({first}); `hullward rebuild DIR` makes it again from the "
        "journal",
        StorageError.exit_code,
    )


def _report(error: BaseException) -> str:
    """The line for a fault of the program, after its traceback was written to a file."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="hullward-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        path = f"{frame.filename}, line {frame.lineno}; its traceback could not be written"
    return f"a fault of the program itself ({what}); please report it, with {path}"
