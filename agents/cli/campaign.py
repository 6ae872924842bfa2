"""Commands that run or screen, and follow what runs: run, resume, status, stop, report, rejudge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hullward.agents.cli.output import Directory, Json, Workers, tell
from hullward.agents.cli.progress import Reporter


class StopAfter(StrEnum):
    """Where a screening ends."""

    PARSE = "parse"
    VALID = "valid"
    NOVEL = "novel"
    RELAXED = "relaxed"
    JUDGED = "judged"


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


def resume(directory: Directory, workers: Workers = None, as_json: Json = False) -> None:
    """Go on with the campaign or screening of a directory where it stopped."""
    _run(directory, None, workers, as_json)


def _run(directory: Path, settings: Any, workers: int | None, as_json: bool) -> None:
    from hullward.agents import campaign
    from hullward.agents.campaign import screen_file
    from hullward.agents.workspace import kind_of

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
    from hullward.tools.report import count_requests, requests_line
    from hullward.tools.store import funnel, open_snapshot

    with open_snapshot(directory) as connection:
        counting = funnel.count(connection)
        requests = count_requests(connection)
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
    stop_after: Annotated[StopAfter, typer.Option(help="the last step")] = StopAfter.JUDGED,
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


def status(directory: Directory, as_json: Json = False) -> None:
    """Say where a campaign stands, from its last published snapshot."""
    from hullward.tools.store import lock

    holder = lock.holder(directory)
    if not as_json:
        typer.echo(f"{'writer:':<10} {holder.describe() if holder else 'none'}")
    _show_counts(directory, None, as_json)


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


def report(directory: Directory, as_json: Json = False) -> None:
    """Write the report again, from the last published snapshot."""
    from hullward.tools.report import write_report

    _show_counts(directory, write_report(directory), as_json)


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


def rebuild(directory: Directory, as_json: Json = False) -> None:
    """Build the database again from the journal alone."""
    from hullward.tools.store import rebuild as rebuild_store

    notes: list[str] = []
    path = rebuild_store(directory, notes=notes)
    tell({"database": str(path), "notes": notes}, [f"rebuilt {path}"], as_json)
