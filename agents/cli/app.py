"""The command line: puts the commands together and turns errors into exit codes.

What a user can cause ends as one line; anything else is a fault of the program, whose traceback
goes to a file.

Exit codes: 0 finished or budget reached, 2 usage or configuration, 3 something needed is missing,
4 too many failures in a row, 5 locked by another process, 75 interrupted and resumable; 1 is a
fault of the program itself.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
import sys
import tempfile
import traceback
from typing import Annotated, Any, NoReturn, cast

import typer

from hullward.agents.cli.calibration import calibrate, calibration
from hullward.agents.cli.campaign import (
    init,
    rebuild,
    rejudge,
    report,
    resume,
    run,
    screen,
    status,
    stop,
)
from hullward.agents.cli.doctor import doctor
from hullward.agents.cli.evaluate import app as evaluate_app
from hullward.agents.cli.followup import audit, opinion, phonons
from hullward.agents.cli.hull import hull
from hullward.agents.cli.output import (
    ClosedOutputError,
    discard,
    neutral_warnings,
    open_streams,
    show,
    show_line,
)
from hullward.agents.cli.probe import probe
from hullward.agents.cli.propose import propose
from hullward.agents.cli.query import export_, query
from hullward.agents.cli.reference import app as reference_app
from hullward.agents.cli.relax import relax
from hullward.agents.cli.serve import serve
from hullward.models.errors import HullwardError, InputError, RunInterruptedError, system_reason

app = typer.Typer(
    name="hullward",
    help="Propose crystals, relax them, measure their distance to the hull; every step is stored.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show_line(f"hullward {version('hullward')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


INTERRUPTED = "interrupted; what was stored stays"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CTRL_C = 130  # typer's exit code
WRONG_USAGE = cast("type[Exception]", typer.BadParameter.__base__)  # which typer does not export


def main() -> None:
    """Run a command; every error ends as one line and an exit code."""
    open_streams()
    if not all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr)):
        app.rich_markup_mode = None  # no boxes in files and pipes
    try:
        with neutral_warnings():
            code = app(standalone_mode=False)
        if code == CTRL_C:
            _fail(INTERRUPTED, RunInterruptedError.exit_code)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ClosedOutputError:  # `hullward query … | head`
        discard(sys.stdout)
        code = 0
    except WRONG_USAGE as error:
        _fail_usage(error)
    except (Exception, KeyboardInterrupt) as error:
        _fail(*explain(error))
    sys.exit(code or 0)


def _fail_usage(error: Any) -> NoReturn:
    text = io.StringIO()
    error.show(file=text)
    show(text.getvalue().rstrip("\n"), err=True)
    if "--json" in sys.argv:
        show(json.dumps({"error": "no such usage; see stderr", "exit_code": error.exit_code}))
    sys.exit(error.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    try:
        if "--json" in sys.argv:
            show(json.dumps({"error": message, "exit_code": exit_code}))
        show_line(f"hullward: {message}", err=True)
    except (OSError, ClosedOutputError):  # the exit code alone says it
        pass
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)
    sys.exit(exit_code)


def explain(error: BaseException) -> tuple[str, int]:
    """The one line that explains an error, and the exit code it means."""
    if isinstance(error, HullwardError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, RunInterruptedError.exit_code
    if isinstance(error, MemoryError):
        return "not enough memory; free some, then go on", RunInterruptedError.exit_code
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object!r} is not UTF-8; rename it", InputError.exit_code
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, sqlite3.Error) or _is_duckdb(error):
        return _of_database(error)
    return _report(error), HullwardError.exit_code


def _of_system(error: OSError) -> tuple[str, int]:
    """A file to write, or one that went away."""
    from hullward.tools.store import StorageError

    full = error.errno in FULL
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    missing = place and not os.path.lexists(os.path.dirname(os.path.abspath(place)))
    what = system_reason(error, writing=bool(missing))
    line = f"{place}: {what}" if place else what
    return (
        (f"{line}; free some space, then run the same command again", StorageError.exit_code)
        if full
        else (line, InputError.exit_code)
    )


def _is_duckdb(error: BaseException) -> bool:
    duckdb = sys.modules.get("duckdb")
    return duckdb is not None and isinstance(error, duckdb.Error)


def _of_database(error: BaseException) -> tuple[str, int]:
    from hullward.tools.store import StorageError

    first = (str(error).splitlines() or [type(error).__name__])[0]
    if "interrupt" in first.lower():
        return INTERRUPTED, RunInterruptedError.exit_code
    if any(sign in str(error) for sign in ("disk is full", "No space left", "Disk quota")):
        return f"the disk is full ({first}); free some space, then go on", StorageError.exit_code
    return (
        f"a database cannot be used ({first}); `hullward rebuild DIR` makes it again from the "
        "journal",
        StorageError.exit_code,
    )


def _report(error: BaseException) -> str:
    """The line for a fault of the program, after its traceback was written to a file."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="hullward-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        path = f"{frame.filename}, line {frame.lineno}; its traceback could not be written"
    return f"a fault of the program itself ({what}); please report it, with {path}"


# In the order in which `hullward --help` lists them.
for command in (doctor, init, run, resume, screen, status, stop, report, rejudge, rebuild):
    app.command()(command)
app.command()(relax)
app.add_typer(reference_app)
app.command()(hull)
app.add_typer(evaluate_app)
app.command()(calibrate)
app.command()(opinion)
app.command()(serve)
app.command()(probe)
app.command()(propose)
app.command()(phonons)
app.command()(audit)
evaluate_app.command()(calibration)
app.command()(query)
app.command(name="export")(export_)


if __name__ == "__main__":
    main()
