"""Update a campaign's calibrator with DFT results, without the data that it was fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hullward.agents.settings import Machine, read_machine
from hullward.agents.workspace import make_screen, stored_settings
from hullward.models.errors import InputError
from hullward.tools.report import write_report
from hullward.tools.screening import Screen
from hullward.tools.store import Store, sealed, write_whole
from hullward.tools.uncertainty import (
    DFT_COLUMNS,
    CalibrationCase,
    Calibrator,
    calibrators_folder,
    case_of,
    fitting_calibrator,
    known_calibrators,
    pick,
    read_table,
    second_energies_for,
    store_probabilities,
    updated,
    why_no_probability,
    why_no_second_energy,
)

SEEN = "seen already"


@dataclass(frozen=True)
class Learnt:
    """What came of DFT results."""

    calibrator: str  # its file
    calibrator_id: str
    before: str  # the id of the one it came from
    used: int
    left_out: dict[str, str]  # candidate id: why
    mean_gap_ev_per_atom: float  # DFT minus the potential's height, of these
    rows: int  # DFT results seen in all

    def lines(self) -> list[str]:
        gap = 1000 * self.mean_gap_ev_per_atom
        left_out = "; ".join(f"{i}: {why}" for i, why in self.left_out.items())
        return [
            f"learnt from {self.used} DFT results; on average DFT is {gap:+.0f} meV/atom off",
            f"calibrator {self.before} → {self.calibrator_id} ({self.rows:,} results in all)",
            f"kept as {self.calibrator}",
            *([f"left out: {left_out}"] if left_out else []),
        ]


def learn(
    source: Path,
    directory: Path,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    machine: Machine | None = None,
) -> Learnt:
    """Update the calibrator that fits a campaign with DFT heights of its candidates.

    source: a table with `candidate_id` and DFT heights above the hull, eV/atom.  machine: None for
    the one that the environment describes. The campaign's own probabilities and report are made
    again. Raises InputError for a table without them, or where no calibrator fits; one result
    counts once, however often it is handed in. Handed in again after an interruption, they bring
    probabilities and report up to date.
    """
    table = read_table(source)
    if "candidate_id" not in table:
        raise InputError(f"{source.name} needs a column candidate_id; has {list(table)[:12]}")
    energies = pick(table, DFT_COLUMNS, source, "the DFT height above the hull, eV/atom")
    heights = dict(zip(table["candidate_id"].astype(str), energies.astype(float), strict=True))
    machine = machine or read_machine()
    home = machine.home_folder
    with Store.open(directory, command="calibrate") as store:
        settings = stored_settings(store, None)
        screen = make_screen(store, settings, machine, None, progress=progress)
        fitting, why = fitting_calibrator(screen.basis, known_calibrators(home))
        if fitting is None:
            raise InputError(f"{directory}: {why}, so there is nothing to update")
        cases, found, left_out = _cases(screen, heights, fitting)
        if not cases:
            if SEEN in left_out.values():
                _bring_up_to_date(screen, home)
            reasons = "; ".join(f"{i}: {w}" for i, w in list(left_out.items())[:3])
            raise InputError(
                f"{source.name}: no result can be used ({reasons or 'it has no rows'})"
            )
        after = updated(fitting, list(cases.values()), np.array(found))
        after = after.changed(seen=(*fitting.seen, *cases), **_named(fitting))
        path = calibrators_folder(home) / f"{after.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, sealed(after.model_dump_json()))
        _bring_up_to_date(screen, home)
    gap = np.array(found) - np.array([c.height_ev_per_atom for c in cases.values()])
    return Learnt(
        calibrator=str(path),
        calibrator_id=after.calibrator_id,
        before=fitting.calibrator_id,
        used=len(cases),
        left_out=left_out,
        mean_gap_ev_per_atom=float(gap.mean()),
        rows=after.rows,
    )


def _bring_up_to_date(screen: Screen, home: Path) -> None:
    """Store probabilities by the newest calibrator, and write the report again."""
    store_probabilities(screen, home)
    screen.store.publish()
    write_report(screen.store.directory)


def _named(fitting: Calibrator) -> dict[str, Any]:
    name = fitting.name.removesuffix("-own") + "-own"
    statement = fitting.statement.split(" Moved on by")[0]
    return {"name": name, "statement": f"{statement} Moved on by DFT results of your own."}


def _cases(
    screen: Screen, heights: dict[str, float], fitting: Calibrator
) -> tuple[dict[str, CalibrationCase], list[float], dict[str, str]]:
    """Usable cases by candidate id; their DFT heights in order; the rest and why."""
    relaxed = {c.candidate_id: (c, r) for c, r in screen.relaxed(heights)}
    new = {i for i, height in heights.items() if np.isfinite(height)} - set(fitting.seen)
    second_energies = second_energies_for(
        screen, fitting, [pair for i, pair in relaxed.items() if i in new]
    )
    cases: dict[str, CalibrationCase] = {}
    found: list[float] = []
    left_out: dict[str, str] = {}
    for candidate_id, height in heights.items():
        if candidate_id not in relaxed:
            left_out[candidate_id] = "no converged relaxation of it is stored here"
        elif not np.isfinite(height):
            left_out[candidate_id] = "its DFT height is no number"
        elif candidate_id in fitting.seen:
            left_out[candidate_id] = SEEN
        else:
            candidate, relaxation = relaxed[candidate_id]
            second_energy = second_energies.get(relaxation.relaxation_id)
            why = why_no_probability(candidate, screen.reference, fitting) or why_no_second_energy(
                second_energy, fitting
            )
            if why:
                left_out[candidate_id] = why
            else:
                cases[candidate_id] = case_of(relaxation, screen.reference, second_energy)
                found.append(height)
    return cases, found, left_out
