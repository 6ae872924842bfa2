"""A worker process as its parent sees it: what it holds, what it sends, whether it hangs.

Two threads read and write its pipe, so that the parent never waits for a worker that was stopped
in the middle of a message.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from hullward.tools.relax.state import PausedRelaxation
from hullward.tools.relax.stream import Job
from hullward.tools.relax.waiting import Silence

END_LIMIT_S = 5.0  # for a process that has closed its pipe, or was killed, to be gone


class Ended:
    """The last message of a worker: its end of the pipe is closed."""


@dataclass
class WorkItem:
    """One structure to relax, and how often it was sent to a worker."""

    job: Job
    tries: int = 0

    @property
    def n_atoms(self) -> int:
        start = self.job.job.start if isinstance(self.job, PausedRelaxation) else self.job[1]
        return start.n_atoms


@dataclass(eq=False)
class WorkerProcess:
    """A started worker. Its messages arrive in `inbox`, as (worker, message)."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    inbox: SimpleQueue[tuple[WorkerProcess, Any]]
    device: str
    capacity: int = 0  # structures it may hold; 0 until it is ready
    held: dict[int, WorkItem] = field(default_factory=dict)
    ended_because: str = ""  # why this process killed it
    silence: Silence = field(default_factory=Silence)
    outbox: SimpleQueue[Any] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        try:
            while True:
                self.inbox.put((self, self.pipe.recv()))
        except (EOFError, OSError):
            self.inbox.put((self, Ended()))

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # dead already: the reader notices
            while (message := self.outbox.get()) is not None:
                self.pipe.send(message)

    def has_room(self, alone: bool) -> bool:
        """Whether it takes another. A second try runs alone: it may have ended the first worker."""
        if alone or any(item.tries > 1 for item in self.held.values()):
            return not self.held
        return len(self.held) < max(1, self.capacity)

    def send(self, key: int, item: WorkItem) -> None:
        if not self.held:
            self.silence.broken()  # it had nothing to report
        self.held[key] = item
        item.tries += 1
        self.outbox.put((key, item.job))

    def end_if_hanging(self, waited_s: float) -> None:
        """Kill it after too long a silence, while it has something to do."""
        if not self.held or self.ended_because:
            return
        atoms = max(item.n_atoms for item in self.held.values()) if self.capacity else None
        self.ended_because = self.silence.reason_to_end(waited_s, self.process.pid, atoms)
        if self.ended_because:
            self.process.kill()

    def close(self) -> int | None:
        """End the process and the threads; its exit code, None where the kernel keeps it."""
        code = None
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(END_LIMIT_S)
                break
            self.process.kill()
        self.outbox.put(None)
        for thread in self._threads:
            thread.join(END_LIMIT_S)
        self.pipe.close()
        return code
