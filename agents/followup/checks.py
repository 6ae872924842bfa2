"""Check a stored short list: phonons of its cells, and overlap with training data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hullward.agents.followup.after_judging import model_folder
from hullward.agents.settings import Machine, Phonons, read_machine
from hullward.agents.workspace import stored_settings
from hullward.models.potential import potential_card
from hullward.tools.records import TrainingOverlap
from hullward.tools.relax import Executor
from hullward.tools.report import write_report
from hullward.tools.screening import audit
from hullward.tools.screening.shortlist import CheckedCell, check_shortlist
from hullward.tools.store import Store


def check_directory(
    directory: Path,
    potential: str | None,
    top: int,
    max_atoms: int,
    force_calls: int,
    *,
    machine: Machine | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> tuple[list[CheckedCell], Path]:
    """Check the short list of a directory, publish, and write its report again.

    machine: None for the one that the environment describes.
    Raises InputError where there is no campaign, LockedError while another process writes there.
    """
    with Store.open(directory, command="phonons") as store:
        settings = stored_settings(store, None)
        name = potential or settings.potential
        executor = (machine or read_machine()).executor(of=(settings.workers, settings.device))
        limits = Phonons(top=top, max_atoms=max_atoms, force_calls=force_calls)
        checked = run_phonons(store, name, limits, executor, progress=progress)
        store.publish()
        return checked, write_report(directory).html


def audit_directory(directory: Path, model: str | None) -> tuple[list[TrainingOverlap], Path]:
    """Audit a directory's candidates, publish, and write its report again.

    model: what proposed those that name no model. Raises as `check_directory`.
    """
    with Store.open(directory, command="audit") as store:
        stored_settings(store, None)
        found = audit(store, model_folder, model)
        store.publish()
        return found, write_report(directory).html


def run_phonons(
    store: Store,
    potential: str,
    limits: Phonons,
    executor: Executor,
    *,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    stopping: Callable[[], bool] = lambda: False,
) -> list[CheckedCell]:
    """Check as many entries as the settings ask for."""
    if not limits.top:
        return []
    return check_shortlist(
        store,
        lambda: executor.load(potential),
        potential_card(potential).weights_sha256,
        top=limits.top,
        max_atoms=limits.max_atoms,
        force_calls=limits.force_calls,
        progress=progress,
        stopping=stopping,
    )
