"""Whether to stop: a signal or a `stop` command asks, and is obeyed within seconds.

The steps of a run look whether they shall stop between two items, and finish what is in flight.
Where none has looked for a while, as in one long computation, the run is interrupted there, but
never while the store is being written.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hullward.tools.store import inbox, lock

LOOK_EVERY_S = 0.2
PATIENCE_S = 2.0  # for a step to look whether it shall stop


class Stopper:
    """Whether to stop: after a signal or a `stop` command in the inbox. A second one is final."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked = ""
        self._asked_s = 0.0
        self._seen = False  # a step knows, and ends
        self._overdue = False
        self._is_writing: Callable[[], bool] = lambda: False

    def __call__(self) -> bool:
        self._look()
        if self.asked and threading.current_thread() is threading.main_thread():
            self._seen = True
        return bool(self.asked)

    def obeyed(self) -> None:
        """The run is ending: what it still has to write is not interrupted."""
        self._seen = True

    def acknowledge(self) -> None:
        """Remove `stop` commands from the inbox: they were meant for this run."""
        for command in self._stops():
            inbox.acknowledge(command)

    @contextmanager
    def listening(self, is_writing: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Treat the first SIGINT or SIGTERM as a request to stop; forget those to earlier runs.

        is_writing: whether the main thread is at work in the store.
        """
        for command in self._stops():
            if not self._is_for_this_run(command):
                inbox.acknowledge(command)
        self._is_writing = is_writing
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), name="stopper", daemon=True)
        before = {s: signal.signal(s, self._signalled) for s in (signal.SIGINT, signal.SIGTERM)}
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self, ended: threading.Event) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not ended.wait(LOOK_EVERY_S):
            self._look()
            waited_s = time.monotonic() - self._asked_s
            if self.asked and not self._seen and waited_s > PATIENCE_S:
                self._overdue = True
                signal.pthread_kill(main, signal.SIGTERM)

    def _look(self) -> None:
        if not self.asked and any(self._is_for_this_run(c) for c in self._stops()):
            self._ask("`hullward stop`")

    def _ask(self, by: str) -> None:
        self._asked_s = time.monotonic()
        self.asked = by

    def _stops(self) -> list[inbox.Command]:
        return [command for command in inbox.drain(self.directory) if command.kind == "stop"]

    def _is_for_this_run(self, command: inbox.Command) -> bool:
        """False for a command to an earlier run, which was killed before it read it."""
        here = lock.holder(self.directory)
        return here is None or str(command.payload.get("since", command.sent)) >= here.since

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._overdue:  # a signal of our own
            self._overdue = False
            if self._seen or self._is_writing():
                return
            self._seen = True
            raise KeyboardInterrupt
        if self.asked:
            raise KeyboardInterrupt
        self._ask(signal.Signals(number).name)
