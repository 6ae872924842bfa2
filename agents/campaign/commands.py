"""Apply commands from the inbox, and judge a directory again."""

from __future__ import annotations

from pathlib import Path

from hullward.agents.followup import assess_candidates
from hullward.agents.settings import read_machine
from hullward.agents.workspace import basis_fields, make_screen, open_reference, stored_settings
from hullward.models.errors import HullwardError, LockedError, PreflightError
from hullward.tools.hull import check_compatible
from hullward.tools.reference import load_reference
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import Screen
from hullward.tools.store import Store, inbox


def apply_waiting(screen: Screen) -> list[str]:
    """Carry out the commands left in the inbox; returns what was done or refused, a line each."""
    done = []
    for command in inbox.drain(screen.store.directory):
        if command.kind == "rejudge":
            spec = str(command.payload.get("reference", ""))
            try:
                rejudge(screen, spec)
            except HullwardError as error:  # what was asked is at fault, not this campaign
                inbox.refuse(command.path, str(error))
                done.append(f"not judged again: {error}")
                continue
            done.append(f"judged again by {spec}")
            inbox.acknowledge(command)
    return done


def rejudge_directory(directory: Path, spec: str, workers: int | None) -> ReportPaths | None:
    """Judge a directory again and report; None when its writer was asked to do it instead."""
    load_reference(spec, read_machine().home_folder)
    try:
        store = Store.open(directory, command="rejudge")
    except LockedError:
        inbox.send(directory, "rejudge", {"reference": spec})
        return None
    with store:
        screen = make_screen(store, stored_settings(store, None), workers, reference_spec=spec)
        apply_waiting(screen)
        rejudge(screen, spec)
        store.publish()
        return write_report(directory)


def rejudge(screen: Screen, spec: str) -> None:
    """Judge what is stored by another reference; raises PreflightError where it does not fit."""
    rows = screen.store.rows("SELECT DISTINCT chemsys FROM candidates ORDER BY chemsys")
    reference = open_reference(spec, read_machine(), [row["chemsys"] for row in rows])
    if reference.absent is not None and not reference.elements:
        raise PreflightError(
            f"nothing was fetched from the Materials Project yet, so {spec!r} can judge nothing; "
            "`hullward reference fetch SYSTEM` first"
        )
    check_compatible(reference, screen.card, screen.basis.protocol)
    basis = screen.basis.model_copy(update=basis_fields(spec, reference))
    screen.rejudge(basis, reference)
    assess_candidates(screen)
