"""The errors that a user can meet, each with the exit code of the command line.

Exit codes: 0 finished, 2 usage or configuration, 3 something needed is missing before the start,
4 too many failures in a row, 5 locked by another process, 75 interrupted and resumable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: where, if it is a part, and what."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


class HullwardError(Exception):
    """One clear message: what, where and how to fix it."""

    exit_code = 1


class InputError(HullwardError):
    """A campaign file, an input file or an argument that cannot be used."""

    exit_code = 2


class PreflightError(HullwardError):
    """Something the work needs is missing or inconsistent; nothing was started."""

    exit_code = 3


class FetchError(PreflightError):
    """A server sent nothing: why, and what to do. Stored data stay as they are."""


class BreakerError(HullwardError):
    """Too many failures in a row to go on."""

    exit_code = 4


class LockedError(HullwardError):
    """Another process is writing to this directory."""

    exit_code = 5


class RunInterruptedError(HullwardError):
    """Stopped on request; `hullward resume` goes on."""

    exit_code = 75
