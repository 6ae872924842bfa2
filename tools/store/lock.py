"""One writer a directory, with its name for others.

The lock is the kernel's (flock on the file `lock`), so it ends with its process; the content of the
file only names the holder. The file is never removed: otherwise two processes could hold two files
of the same name.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hullward.models.errors import LockedError
from hullward.tools.store.files import timestamp

NAME = "lock"


@dataclass(frozen=True)
class Holder:
    """The holder of a lock: process id, host, command and start (UTC)."""

    pid: int
    host: str
    command: str
    since: str

    def describe(self) -> str:
        """The holder in a few words, for messages."""
        return f"process {self.pid} on {self.host} ({self.command}, since {self.since})"

    def is_alive(self) -> bool:
        """False when the process is known to be gone; on other hosts it is taken to be alive."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            pass
        return True


class Lock:
    """The right to write to a directory, from construction to `close`."""

    def __init__(self, directory: Path, command: str) -> None:
        """Take the lock at once; raises LockedError with the name of the holder."""
        self._handle = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            if isinstance(error, BlockingIOError):
                raise LockedError(_refusal(directory)) from error
            raise
        self.holder = Holder(os.getpid(), socket.gethostname(), command, timestamp())
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(asdict(self.holder)).encode(), 0)

    def close(self) -> None:
        """Release the lock; releasing twice is fine."""
        if self._handle >= 0:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = -1


def holder(directory: Path) -> Holder | None:
    """The process that is writing to a directory, if the lock file names a living one."""
    try:
        text = (directory / NAME).read_text()
        found = Holder(**json.loads(text))
    except (OSError, ValueError, TypeError):  # no lock file, not yet written, or not ours
        return None
    return found if found.is_alive() else None


def _refusal(directory: Path) -> str:
    # The holder writes its name just after it gets the lock: wait a moment for it.
    for _ in range(20):
        found = holder(directory)
        if found:
            return (
                f"{directory} is being written by {found.describe()}. Wait for it or stop it with "
                f"`hullward stop {directory}`"
            )
        time.sleep(0.01)
    return f"{directory} is being written by another process, whose name is not known yet"
