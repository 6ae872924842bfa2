"""The errors that a user can meet, each with the exit code of the command line.

Exit codes: 0 finished, 2 usage or configuration, 3 something needed is missing before the start,
4 too many failures in a row, 5 locked by another process, 75 interrupted and resumable.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: where, if it is a part, and what."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


_REASONS = {
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of this path is a file, not a folder; name another path",
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "something with this name is there already; choose another name",
    errno.EACCES: "permission denied; choose a place that you may use",
    errno.EPERM: "permission denied; choose a place that you may use",
    errno.EROFS: "this place is read-only; choose another one",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; name the file itself",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EMFILE: "too many files are open; raise `ulimit -n`",
    errno.EIO: "the disk failed while it was read or written; check it, or use another one",
}


def system_reason(error: OSError, *, writing: bool = False) -> str:
    """Why the system refused, as a sentence without a path.

    writing: the path was to be written, so what is missing is the folder around it.
    """
    if writing and error.errno == errno.ENOENT:
        return "its folder does not exist, and cannot be made; create it, or name another one"
    said = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return _REASONS.get(error.errno or 0, said)


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
