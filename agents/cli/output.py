"""What a command prints: its result on stdout, its progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 10.0


def print_result(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print one JSON document, or lines for people."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in lines:
            typer.echo(line)


class Reporter:
    """Shows progress on stderr: a live bar on a terminal, elsewhere a line every 10 s.

    A context manager; called with (step, done, total).
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, soft_wrap=True)
        self.quiet = quiet
        self._bars = _bars(self.console) if self.console.is_terminal and not quiet else None
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
        """Print one line that stays."""
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


def _bars(console: Any) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
