"""Commands on campaigns: init, run, resume, screen, status, stop, report, rejudge, rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.options import (
    Device,
    Directory,
    ForceConvergence,
    Json,
    PotentialName,
    ReferenceName,
    Structures,
    Workers,
)
from hullward.agents.cli.output import Reporter, print_result

if TYPE_CHECKING:
    from hullward.agents.settings import Campaign
    from hullward.tools.report import ReportPaths


class StopAfter(StrEnum):
    """The last step of a screening."""

    PARSE = "parse"
    VALID = "valid"
    NOVEL = "novel"
    RELAXED = "relaxed"
    JUDGED = "judged"


def run(
    campaign: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN.yaml|SYSTEM", help="a campaign file, or a system such as Li-Mn-O"
        ),
    ],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="campaign directory; default: campaigns/NAME")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be tried first, and start nothing")
    ] = False,
    workers: Workers = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Run a campaign to its end; run again, it continues where it stopped."""
    from dataclasses import asdict

    from hullward.agents.settings import find_campaign, read_machine

    settings = find_campaign(campaign)
    if dry_run:
        from hullward.agents.campaign import preview

        found = preview(settings, read_machine(device))
        print_result(asdict(found), [*found.lines(), "nothing was started"], as_json)
        return
    _run(directory or Path("campaigns") / settings.name, settings, workers, device, as_json)


def init(
    system: Annotated[str, typer.Argument(help="a chemical system, such as Na-Fe-P-O")],
    out: Annotated[
        Path | None, typer.Option(help="the file to write; default: the system's name")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a campaign file for a chemical system, with every default and its meaning."""
    from hullward.agents.settings import campaign_of, campaign_template
    from hullward.models.errors import InputError

    campaign = campaign_of(system)
    path = out or Path(f"{campaign.name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(campaign_template(campaign, str(path)))
    except FileExistsError:
        raise InputError(f"{path} exists and stays as it is; choose another --out") from None
    print_result({"campaign": str(path)}, [f"wrote {path}: `hullward run {path}` runs it"], as_json)


def resume(
    directory: Directory, workers: Workers = None, device: Device = None, as_json: Json = False
) -> None:
    """Continue the campaign or screening of a directory where it stopped."""
    _run(directory, None, workers, device, as_json)


def _run(
    directory: Path,
    settings: Campaign | None,
    workers: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    from hullward.agents import campaign
    from hullward.agents.campaign import screen_file
    from hullward.agents.settings import read_machine
    from hullward.agents.workspace import kind_of

    given: dict[str, Any] = {"machine": read_machine(device), "workers": workers}
    screened = settings is None and kind_of(directory) == "screen"
    with Reporter(quiet=as_json) as reporter:
        reporter.note(f"campaign directory: {directory}")
        if screened:
            paths = screen_file.screen_file(
                directory, None, None, **given, progress=reporter, notes=reporter.note
            )
        else:
            paths = campaign.run(
                directory, settings, **given, progress=reporter, notes=reporter.note
            )
    _show_counts(directory, paths, as_json)


def _show_counts(
    directory: Path, paths: ReportPaths | None, as_json: bool, first: Sequence[str] = ()
) -> None:
    """Print the counts of the last snapshot, and where the report is."""
    from hullward.tools.report import count_requests, gather_identities, new_words, requests_line
    from hullward.tools.store import funnel, open_snapshot, stage_words

    with open_snapshot(directory) as connection:
        counting = funnel.count(connection)
        requests = count_requests(connection)
        identities = gather_identities(connection)
    document: dict[str, Any] = {"directory": str(directory), **counting.as_dict()}
    lines = [*first]
    for name, counts in (
        ("states", counting.states),
        ("funnel", counting.funnel),
        ("rejected", counting.rejections),
    ):
        found = ", ".join(f"{n} {stage_words(what)}" for what, n in counts.items() if n)
        lines.append(f"{name + ':':<10} {found or 'none'}")
    document["standings"] = {one.standing: one.judged for one in identities.standings}
    if new := new_words(identities):
        lines.append(f"{'standing:':<10} {new}")
    if requests:
        document["requests"] = requests
        lines.append(f"{'requests:':<10} {requests_line(requests)}")
    if paths is not None:
        document["report"] = str(paths.html)
        lines.append(f"{'report:':<10} {paths.html}")
    print_result(document, lines, as_json)


def screen(
    source: Structures,
    directory: Annotated[Path, typer.Option("--dir", help="directory for the results")],
    reference: ReferenceName = "embedded",
    second_reference: Annotated[
        str | None, typer.Option(help="another reference, to show its heights as well")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="known structures: a folder of CIFs, or a table of them")
    ] = None,
    stop_after: Annotated[StopAfter, typer.Option(help="the last step")] = StopAfter.JUDGED,
    relax_known: Annotated[
        bool, typer.Option("--relax-known", help="also relax what matches a known phase")
    ] = False,
    potential: PotentialName = "chgnet-0.3.0",
    fmax: ForceConvergence = 0.05,
    max_steps: Annotated[int, typer.Option(help="most steps of a relaxation")] = 500,
    workers: Workers = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Judge the structures of a file with the steps of a campaign, without the agent."""
    from hullward.agents.campaign import screen_file
    from hullward.agents.settings import absolute_reference, read_machine

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
            directory,
            source,
            settings,
            machine=read_machine(device),
            workers=workers,
            progress=reporter,
            notes=reporter.note,
        )
    _show_counts(directory, paths, as_json)


def status(directory: Directory, as_json: Json = False) -> None:
    """Show the counts of a campaign, from its last published snapshot."""
    from hullward.tools.store import lock

    holder = lock.holder(directory)
    writer = f"{'writer:':<10} {holder.describe() if holder else 'none'}"
    _show_counts(directory, None, as_json, [writer])


def stop(directory: Directory, as_json: Json = False) -> None:
    """Ask a running campaign to finish what is in flight and stop."""
    from hullward.tools.store import inbox, lock, open_snapshot

    if not (directory / "lock").is_file():
        open_snapshot(directory).close()  # which names what is missing
    running = lock.holder(directory)
    if running:
        inbox.send(directory, "stop", {"since": running.since})
        line = "stop requested; the run ends within seconds, and what it has done is kept"
    else:
        line = f"nothing is running in {directory}"
    print_result({"asked": running is not None}, [line], as_json)


def report(directory: Directory, as_json: Json = False) -> None:
    """Write the report again, from the last published snapshot."""
    from hullward.tools.report import write_report

    _show_counts(directory, write_report(directory), as_json)


def rejudge(
    directory: Directory,
    reference: ReferenceName,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Judge the stored relaxations by another reference; nothing is relaxed again."""
    from hullward.agents.campaign import rejudge_directory
    from hullward.agents.settings import absolute_reference

    paths = rejudge_directory(directory, absolute_reference(reference, Path.cwd()), workers)
    if paths is None:
        print_result(
            {"queued": True},
            ["a run is active in this directory; it will judge again soon"],
            as_json,
        )
    else:
        _show_counts(directory, paths, as_json)


def rebuild(directory: Directory, as_json: Json = False) -> None:
    """Rebuild the database from the journal."""
    from hullward.tools.store import rebuild as rebuild_store

    notes: list[str] = []
    path = rebuild_store(directory, notes=notes)
    print_result({"database": str(path), "notes": notes}, [f"rebuilt {path}"], as_json)
