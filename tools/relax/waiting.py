"""Limits on waiting: how a stop ends relaxations under way, and when a worker counts as hanging."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

GRACE_S = 3.0  # what is under way when a stop is asked for may still end
ASK_EVERY_S = 0.25  # whether to stop
STOPPED_S = 5.0  # a worker that a signal has stopped is replaced
START_LIMIT_S = 600.0  # to load a potential, which may fetch its weights
STEP_LIMIT_S, STEP_LIMIT_S_PER_ATOM = 300.0, 3.0  # without a step; of the largest structure held

Stopping = Callable[[], bool]


def never() -> bool:
    """Do not stop."""
    return False


class StopWatch:
    """Asks now and then whether to stop, and counts the grace from then on."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._asked_at: float | None = None
        self._next = 0.0

    @property
    def asked(self) -> bool:
        """Whether a stop has been asked for: nothing new begins."""
        now = time.monotonic()
        if self._asked_at is None and now >= self._next:
            self._next = now + ASK_EVERY_S
            if self._stopping():
                self._asked_at = now
        return self._asked_at is not None

    @property
    def over(self) -> bool:
        """Whether the grace has passed too: what is under way is dropped."""
        return self.asked and time.monotonic() - (self._asked_at or 0.0) > GRACE_S


class Silence:
    """How long a worker has been silent, by the time its parent spent waiting for it.

    Time in which the parent did something else, or was stopped itself, does not count.
    """

    def __init__(self) -> None:
        self._s = 0.0
        self._stopped_s = 0.0

    def broken(self) -> None:
        """The worker has sent something."""
        self._s = self._stopped_s = 0.0

    def reason_to_end(self, waited_s: float, pid: int, atoms: int | None) -> str:
        """Why the worker counts as hanging after so much more silence; '' while it does not.

        atoms: of the largest structure it holds; None: it has not started yet.
        """
        waited_s = min(waited_s, 2 * ASK_EVERY_S)  # or this process slept, not the worker
        self._s += waited_s
        self._stopped_s = self._stopped_s + waited_s if _is_stopped(pid) else 0.0
        if self._stopped_s > STOPPED_S:
            return f"it was stopped by a signal for {STOPPED_S:g} s"
        if atoms is None:
            return f"it was not ready after {START_LIMIT_S:g} s" if self._s > START_LIMIT_S else ""
        limit_s = STEP_LIMIT_S + STEP_LIMIT_S_PER_ATOM * atoms
        return f"it took no step in {limit_s:g} s" if self._s > limit_s else ""


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process; False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False
