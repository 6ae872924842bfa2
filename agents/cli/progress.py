"""Progress on stderr: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

PLAIN_EVERY_S = 10.0


class Reporter:
    """Told (step, done, total) as work goes on; a context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.quiet = quiet
        self._bars: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._bars = Progress(
                TextColumn("{task.description:>12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
        self._task: TaskID | None = None
        self._step = ""
        self._last = 0.0

    def __enter__(self) -> Reporter:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()

    def note(self, line: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self.console.print(line, markup=False, highlight=False)

    def __call__(self, step: str, done: int, total: int) -> None:
        if self._bars:
            if step != self._step or self._task is None:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(step, total=total)
            self._bars.update(self._task, completed=done, total=total)
        elif not self.quiet:
            now = time.monotonic()
            if done == total or now - self._last > PLAIN_EVERY_S:
                print(f"{step}: {done} of {total}", file=sys.stderr, flush=True)
                self._last = now
        self._step = step
