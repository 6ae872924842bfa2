"""What a command prints: its result on stdout, its progress on stderr.

All text goes through `neutral`: names of files, texts of models and keys of settings may hold
control characters, which would otherwise steer the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from hullward.models.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 10.0


class ClosedOutputError(Exception):
    """Nobody reads stdout any more, as after `| head`."""


def neutral(text: str, *, lines: bool = True, as_json: bool = False) -> str:
    r"""The text with control characters written out: no terminal obeys it.

    lines: keep line ends; else they are written out too, so that the text stays one line.
    as_json: the text is JSON, and stays the same JSON.

    >>> print(neutral("red: \x1b[31m\nend", lines=False))
    red: \x1b[31m\nend
    """
    if text.isprintable():
        return text

    def written(character: str) -> str:
        if character.isprintable() or (lines and character == "\n"):
            return character
        if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return character
        if as_json:
            return json.dumps(character)[1:-1]
        return character.encode("unicode_escape").decode()

    return "".join(map(written, text))


def show(text: str, *, err: bool = False, as_json: bool = False) -> None:
    """Print text, which may have several lines, on stdout or stderr."""
    _write(sys.stderr if err else sys.stdout, neutral(text, as_json=as_json))


def show_line(line: str, *, err: bool = False) -> None:
    """Print one line on stdout or stderr."""
    _write(sys.stderr if err else sys.stdout, neutral(line, lines=False))


def _write(stream: IO[str] | None, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError as error:
        if stream is sys.stdout:
            raise ClosedOutputError from error
        discard(stream)  # what would be said there is lost, and the work goes on


def discard(stream: IO[str] | None) -> None:
    """Let a stream that cannot be written swallow what it still holds and what follows."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]  # None: AttributeError
        os.close(nowhere)


def print_result(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print one JSON document, or lines for people."""
    if as_json:
        show(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in lines:
            show_line(line)


def require_writable(*files: Path | None) -> None:
    """Raise InputError now, not after the work, for a file that could not be written then."""
    for path in files:
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it, such as {path / 'out'}")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise InputError(f"{path} cannot be written; choose a place that you may write to")


class _NeutralHandler(logging.Handler):
    """Prints warnings on stderr, control characters written out."""

    def emit(self, record: logging.LogRecord) -> None:
        show(self.format(record), err=True)


@contextmanager
def neutral_warnings() -> Iterator[None]:
    """Print the warnings of libraries, which may quote any input, through `neutral`."""
    handler = _NeutralHandler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)


def open_streams() -> None:
    """Make every standard stream usable: closed ones lead nowhere, and no letter is refused."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened, a database perhaps, would be stdout
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


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
            text = neutral(line, lines=False)
            try:
                self.console.print(text, markup=False, highlight=False, emoji=False)
            except BrokenPipeError:
                self._give_up()

    def __call__(self, step: str, done: int, total: int) -> None:
        if self._bars:
            try:
                self._move(self._bars, step, done, total)
            except BrokenPipeError:
                self._give_up()
        elif not self.quiet:
            now = time.monotonic()
            if done == total or now - self._last > PLAIN_EVERY_S:
                show_line(f"{step}: {done} of {total}", err=True)
                self._last = now
        self._step = step

    def _move(self, bars: Progress, step: str, done: int, total: int) -> None:
        if step != self._step or self._task is None:
            if self._task is not None:
                bars.remove_task(self._task)
            self._task = bars.add_task(step, total=total)
        bars.update(self._task, completed=done, total=total)

    def _give_up(self) -> None:
        """Go on without progress: nobody reads stderr any more."""
        self.quiet, self._bars = True, None
        discard(sys.stderr)


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
