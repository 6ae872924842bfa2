"""Carry out commands from the inbox, and judge a directory again."""

from __future__ import annotations

from pathlib import Path

from hullward.agents.followup import assess_candidates
from hullward.agents.settings import Machine, read_machine
from hullward.agents.workspace import basis_fields, make_screen, open_reference, stored_settings
from hullward.models.errors import HullwardError, LockedError, PreflightError
from hullward.tools.hull import check_compatible
from hullward.tools.records import Proposal
from hullward.tools.reference import load_reference
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import Screen, judge_proposals, judge_union, over_reference
from hullward.tools.store import Store, inbox


def apply_waiting(screen: Screen, machine: Machine) -> tuple[Screen, list[str]]:
    """Carry out the commands left in the inbox.

    Returns the screen to go on with, which judges by the last reference asked for, and a line
    about each command.
    """
    done = []
    for command in inbox.drain(screen.store.directory):
        if command.kind == "rejudge":
            spec = str(command.payload.get("reference", ""))
            try:
                screen = by_reference(screen, spec, machine)
                judge_again(screen, machine)
            except HullwardError as error:  # the command is at fault, not this campaign
                inbox.refuse(command.path, str(error))
                done.append(f"not judged again: {error}")
                continue
            done.append(f"judged again by {spec}")
            inbox.acknowledge(command)
    return screen, done


def rejudge_directory(
    directory: Path, spec: str, workers: int | None, machine: Machine | None = None
) -> ReportPaths | None:
    """Judge a directory again and report; None where its writer will do it, asked by the inbox.

    machine: None for the one that the environment describes.
    """
    machine = machine or read_machine()
    load_reference(spec, machine.home_folder)
    try:
        store = Store.open(directory, command="rejudge")
    except LockedError:
        inbox.send(directory, "rejudge", {"reference": spec})
        return None
    with store:
        settings = stored_settings(store, None)
        screen = make_screen(store, settings, machine, workers, reference_spec=spec)
        screen, _ = apply_waiting(screen, machine)
        judge_again(by_reference(screen, spec, machine), machine)
        store.publish()
        return write_report(directory)


def by_reference(screen: Screen, spec: str, machine: Machine) -> Screen:
    """The same campaign on another reference; raises PreflightError where that does not fit."""
    rows = screen.store.rows("SELECT DISTINCT chemsys FROM candidates ORDER BY chemsys")
    reference = open_reference(spec, machine, [row["chemsys"] for row in rows])
    if reference.absent is not None and not reference.elements:
        raise PreflightError(
            f"nothing was fetched from the Materials Project yet, so {spec!r} can judge nothing; "
            "`hullward reference fetch SYSTEM` first"
        )
    check_compatible(reference, screen.card, screen.basis.protocol)
    basis = screen.basis.model_copy(update=basis_fields(spec, reference))
    return over_reference(screen, basis, reference)


def judge_again(screen: Screen, machine: Machine) -> None:
    """Judge every stored relaxation; nothing is relaxed but suspects."""
    judge_proposals(screen, screen.store.load(Proposal))
    judge_union(screen)
    assess_candidates(screen, machine.home_folder)
