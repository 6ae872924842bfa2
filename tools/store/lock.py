"""One writer a directory, with its name for others.

The lock is the kernel's (flock on the file `lock`), so it ends with its process; the content of the
file only names the holder. The file is never removed: otherwise two processes could hold two files
of the same name. A name counts only while the lock is held, and on this host only while the process
of that id is the one that wrote it: ids are used again.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hullward.models.errors import LockedError
from hullward.tools.store.files import timestamp

NAME = "lock"
MAX_BYTES = 4096  # of the name
PATIENCE_S = 0.2  # for a holder that writes its name, and for readers that look whether it is held


@dataclass(frozen=True)
class Holder:
    """The holder of a lock: process id, host, command and start (UTC)."""

    pid: int
    host: str
    command: str
    since: str
    birth: str = ""  # of the process, by the kernel: boot id and clock tick; "" where it is unknown

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
        return not self.birth or self.birth == _birth(self.pid)


class Lock:
    """The right to write to a directory, from construction to `close`."""

    def __init__(self, directory: Path, command: str) -> None:
        """Take the lock; raises LockedError with the name of the holder."""
        self._handle = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(self._handle, directory)
        except BaseException:
            os.close(self._handle)
            raise
        pid = os.getpid()
        self.holder = Holder(pid, socket.gethostname(), command, timestamp(), _birth(pid))
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(asdict(self.holder)).encode(), 0)

    def close(self) -> None:
        """Release the lock; releasing twice is fine."""
        if self._handle >= 0:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = -1


def holder(directory: Path) -> Holder | None:
    """The process that is writing to a directory; None where there is none, or none with a name."""
    try:
        handle = os.open(directory / NAME, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # no lock file, or none for our eyes
        return None
    try:
        if not _is_held(handle):
            return None
        found = _named(os.read(handle, MAX_BYTES))
    except OSError:
        return None
    finally:
        os.close(handle)
    return found if found and found.is_alive() else None


def _take(handle: int, directory: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            found = holder(directory)
            if found is None and time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise LockedError(_refusal(directory, found)) from error


def _is_held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _named(content: bytes) -> Holder | None:
    """The holder that a lock file names, in this or an earlier form; None for anything else."""
    try:
        fields: Any = json.loads(content)
        found = Holder(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (found.host, found.command, found.since, found.birth)
    if type(found.pid) is not int or not 0 < found.pid < 2**31:
        return None
    return found if all(isinstance(text, str) for text in texts) else None


def _birth(pid: int) -> str:
    """What no other process has, not even one that gets the same id; "" without Linux's /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (OSError, ValueError):
        return ""
    return f"{boot} {after_name.split()[19]}"


def _refusal(directory: Path, found: Holder | None) -> str:
    if found is None:
        return f"{directory} is being written by another process, whose name is not known yet"
    return (
        f"{directory} is being written by {found.describe()}. Wait for it or stop it with "
        f"`hullward stop {directory}`"
    )
