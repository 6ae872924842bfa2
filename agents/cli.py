"""The command line. Heavy imports wait until a command needs them.

Exit codes: 0 finished or budget reached, 2 usage or configuration, 3 something needed is missing,
4 too many failures in a row, 5 locked by another process, 75 interrupted and resumable; 1 is a
fault of the program itself.
"""

from __future__ import annotations

import errno
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hullward.agents.cli_answers import export_, query
from hullward.agents.cli_checks import audit, phonons
from hullward.agents.cli_evaluate import evaluate
from hullward.agents.cli_files import relax
from hullward.agents.cli_hull import hull
from hullward.agents.cli_probe import probe
from hullward.agents.cli_propose import propose
from hullward.agents.cli_reference import app as reference_app
from hullward.agents.cli_reference import tell
from hullward.agents.cli_serve import serve
from hullward.agents.cli_trust import calibrate, calibration, opinion
from hullward.agents.progress import Reporter
from hullward.models.errors import HullwardError, InputError, RunInterruptedError
from hullward.tools.store import StorageError

app = typer.Typer(
    name="hullward",
    help="Propose crystals, relax them, measure their distance to the hull, keep every step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CTRL_C = 130  # what typer ends with

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="a campaign directory")]
Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="worker processes; 0 relaxes in this process")
]


class Stop(StrEnum):
    """Where a screening ends."""

    PARSE = "parse"
    VALID = "valid"
    NOVEL = "novel"
    RELAXED = "relaxed"
    JUDGED = "judged"


def main() -> None:
    """Entry point: turns our errors into one line and their exit code."""
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        _fail(str(error), StorageError.exit_code if full else InputError.exit_code)
    except SystemExit as ended:
        if ended.code == CTRL_C:
            _fail("interrupted; what was stored stays", RunInterruptedError.exit_code)
        if ended.code == InputError.exit_code and "--json" in sys.argv:  # typer has said it
            print(json.dumps({"error": "no such usage; see stderr", "exit_code": ended.code}))
        raise


def _fail(message: str, exit_code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": exit_code}))
    print(f"hullward: {message}", file=sys.stderr)
    sys.exit(exit_code)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which backends answer, and the command that mends what is missing."""
    from hullward.agents.doctor import Environment, diagnose
    from hullward.agents.settings import read_machine

    machine = read_machine()
    findings = diagnose(
        Environment(
            mp_api_key_present=machine.mp_api_key is not None,
            thread_variables=machine.thread_variables,
            vllm_python=machine.vllm_python,
        )
    )
    marks = {True: "ok", False: "MISSING", None: "-"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.ok]:>8}  {finding.name}: {finding.says}")
        if finding.fix and finding.ok is not True:
            lines.append(f"{'':>8}  fix: {finding.fix}")
    rows = [{"name": f.name, "ok": f.ok, "says": f.says, "fix": f.fix} for f in findings]
    tell({"findings": rows}, lines, as_json)


@app.command()
def run(
    campaign: Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where it lives; default campaigns/NAME")
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run a campaign to its end; run again, it goes on where it stopped."""
    from hullward.agents.settings import read_campaign

    settings = read_campaign(campaign)
    _run(directory or Path("campaigns") / settings.name, settings, workers, as_json)


@app.command()
def resume(directory: Directory, workers: Workers = None, as_json: Json = False) -> None:
    """Go on with the campaign or screening of a directory where it stopped."""
    _run(directory, None, workers, as_json)


def _run(directory: Path, settings: Any, workers: int | None, as_json: bool) -> None:
    from hullward.agents import campaign
    from hullward.agents.campaign import kind_of, screen_file

    with Reporter(quiet=as_json) as reporter:
        reporter.note(f"campaign directory: {directory}")
        if settings is None and kind_of(directory) == "screen":
            paths = screen_file.screen_file(
                directory, None, None, workers=workers, progress=reporter, notes=reporter.note
            )
        else:
            paths = campaign.run(
                directory, settings, workers=workers, progress=reporter, notes=reporter.note
            )
    _show_counts(directory, paths, as_json)


def _show_counts(directory: Path, paths: Any, as_json: bool) -> None:
    """The counting, and where the report is."""
    from hullward.tools.report import count_requests, requests_line, rows
    from hullward.tools.store import funnel, open_snapshot

    with open_snapshot(directory) as connection:
        counting = funnel.count(connection)
        requests = count_requests(lambda query: rows(connection, query))
    document: dict[str, Any] = {"directory": str(directory), **counting.as_dict()}
    told = (("states", counting.states), ("funnel", counting.funnel))
    lines = []
    for name, counts in (*told, ("rejected", counting.rejections)):
        found = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        lines.append(f"{name + ':':<10} {found or 'none'}")
    if requests:
        document["requests"] = requests
        lines.append(f"{'requests:':<10} {requests_line(requests)}")
    if paths is not None:
        document["report"] = str(paths.html)
        lines.append(f"{'report:':<10} {paths.html}")
    tell(document, lines, as_json)


@app.command()
def screen(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="a file, or a folder of CIFs")],
    directory: Annotated[Path, typer.Option("--dir", help="where results are kept")],
    reference: Annotated[str, typer.Option(help="see `hullward reference list`")] = "embedded",
    second_reference: Annotated[
        str | None, typer.Option(help="another one, whose heights are shown beside")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="known structures: a folder of CIFs, or a table of them")
    ] = None,
    stop_after: Annotated[Stop, typer.Option(help="the last step")] = Stop.JUDGED,
    relax_known: Annotated[
        bool, typer.Option("--relax-known", help="relax what matches a known phase too")
    ] = False,
    potential: Annotated[str, typer.Option(help="interatomic potential")] = "chgnet-0.3.0",
    fmax: Annotated[float, typer.Option(help="force convergence, eV/Å")] = 0.05,
    max_steps: Annotated[int, typer.Option(help="steps of a relaxation")] = 500,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Judge the proposals of a file, by the path a campaign takes, without the agent."""
    from hullward.agents.campaign import screen_file
    from hullward.agents.settings import absolute_reference

    settings = screen_file.describe(
        source,
        reference=absolute_reference(reference, Path.cwd()),
        second_reference=second_reference and absolute_reference(second_reference, Path.cwd()),
        known_phases=known and str(known.absolute()),
        stop_after=stop_after.value,
        relax_known=relax_known,
        potential=potential,
        protocol={"fmax_ev_per_a": fmax, "max_steps": max_steps},
    )
    with Reporter(quiet=as_json) as reporter:
        paths = screen_file.screen_file(
            directory, source, settings, workers=workers, progress=reporter, notes=reporter.note
        )
    _show_counts(directory, paths, as_json)


app.command()(relax)
app.add_typer(reference_app)
app.command()(hull)
app.add_typer(evaluate)
app.command()(calibrate)
app.command()(opinion)


@app.command()
def status(directory: Directory, as_json: Json = False) -> None:
    """Say where a campaign stands, from its last published snapshot."""
    from hullward.tools.store import lock

    holder = lock.holder(directory)
    if not as_json:
        typer.echo(f"{'writer:':<10} {holder.describe() if holder else 'none'}")
    _show_counts(directory, None, as_json)


@app.command()
def stop(directory: Directory, as_json: Json = False) -> None:
    """Ask the process that is writing there to finish what is in flight and stop."""
    from hullward.tools.store import inbox, lock

    running = lock.holder(directory) is not None
    if running:
        inbox.send(directory, "stop", {})
        line = "asked to stop; what is in flight will finish"
    else:
        line = f"nothing is running in {directory}"
    tell({"asked": running}, [line], as_json)


@app.command()
def report(directory: Directory, as_json: Json = False) -> None:
    """Write the report again, from the last published snapshot."""
    from hullward.tools.report import write_report

    _show_counts(directory, write_report(directory), as_json)


@app.command()
def rejudge(
    directory: Directory,
    reference: Annotated[str, typer.Option(help="see `hullward reference list`")],
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Judge what is stored by another reference, without relaxing it again."""
    from hullward.agents.campaign import rejudge_directory
    from hullward.agents.settings import absolute_reference

    paths = rejudge_directory(directory, absolute_reference(reference, Path.cwd()), workers)
    if paths is None:
        tell({"queued": True}, ["a run is going on there; it will judge again soon"], as_json)
    else:
        _show_counts(directory, paths, as_json)


@app.command()
def rebuild(directory: Directory, as_json: Json = False) -> None:
    """Build the database again from the journal alone."""
    from hullward.tools.store import rebuild as rebuild_store

    notes: list[str] = []
    path = rebuild_store(directory, notes=notes)
    tell({"database": str(path), "notes": notes}, [f"rebuilt {path}"], as_json)


app.command()(serve)
app.command()(probe)
app.command()(propose)
app.command()(phonons)
app.command()(audit)
evaluate.command()(calibration)
app.command()(query)
app.command(name="export")(export_)


if __name__ == "__main__":
    main()
