"""The command line: puts the commands together and turns errors into exit codes.

Exit codes: 0 finished or budget reached, 2 usage or configuration, 3 something needed is missing,
4 too many failures in a row, 5 locked by another process, 75 interrupted and resumable; 1 is a
fault of the program itself.
"""

from __future__ import annotations

import errno
import json
import sys
from typing import NoReturn

import typer

from hullward.agents.cli.calibration import calibrate, calibration
from hullward.agents.cli.campaign import rebuild, rejudge, report, resume, run, screen, status, stop
from hullward.agents.cli.doctor import doctor
from hullward.agents.cli.evaluate import app as evaluate_app
from hullward.agents.cli.followup import audit, opinion, phonons
from hullward.agents.cli.hull import hull
from hullward.agents.cli.probe import probe
from hullward.agents.cli.propose import propose
from hullward.agents.cli.query import export_, query
from hullward.agents.cli.reference import app as reference_app
from hullward.agents.cli.relax import relax
from hullward.agents.cli.serve import serve
from hullward.models.errors import HullwardError, InputError, RunInterruptedError

app = typer.Typer(
    name="hullward",
    help="Propose crystals, relax them, measure their distance to the hull; every step is stored.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CTRL_C = 130  # typer's exit code


def main() -> None:
    """Run a command; an error of ours ends as one line and its exit code."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        app.rich_markup_mode = None  # no boxes in files and pipes
    try:
        app()
    except HullwardError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:  # `hullward query … | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a file to write, or one that went away
        from hullward.tools.store import StorageError

        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        _fail(str(error), StorageError.exit_code if full else InputError.exit_code)
    except SystemExit as ended:
        if ended.code == CTRL_C:
            _fail("interrupted; what was stored stays", RunInterruptedError.exit_code)
        if ended.code == InputError.exit_code and "--json" in sys.argv:  # typer printed the message
            print(json.dumps({"error": "no such usage; see stderr", "exit_code": ended.code}))
        raise


def _fail(message: str, exit_code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": exit_code}))
    print(f"hullward: {message}", file=sys.stderr)
    sys.exit(exit_code)


# In the order in which `hullward --help` lists them.
for command in (doctor, run, resume, screen, status, stop, report, rejudge, rebuild):
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
