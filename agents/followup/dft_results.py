"""Update a campaign's calibrator with DFT results, correct these, and forget them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hullward.agents.settings import Machine, read_machine
from hullward.agents.workspace import make_screen, stored_settings
from hullward.models.errors import InputError
from hullward.tools.report import write_report
from hullward.tools.screening import Screen
from hullward.tools.store import Store, timestamp
from hullward.tools.uncertainty import (
    Calibrator,
    DftHeight,
    OwnDftResult,
    case_of,
    fitting_calibrator,
    forget_every_result,
    forget_results,
    known_calibrators,
    only_writer,
    own_calibrators,
    read_dft_heights,
    relearnt,
    second_energies_for,
    store_probabilities,
    why_no_probability,
    why_no_second_energy,
    write_own,
)

SEEN = "seen already"
SEEN_BEFORE = (
    "seen already, by a version that kept no values; `hullward calibrate --forget all`, then give "
    "all results again"
)


@dataclass(frozen=True)
class Learnt:
    """What came of DFT results."""

    calibrator: str  # its file; '' after a dry run
    calibrator_id: str
    before: str  # the id of the one it came from
    used: int
    replaced: dict[str, float]  # candidate id: the DFT height that no longer counts, eV/atom
    left_out: dict[str, str]  # candidate id: why
    mean_gap_ev_per_atom: float  # DFT minus the potential's height, of these
    rows: int  # DFT results seen in all

    def lines(self) -> list[str]:
        gap = self.mean_gap_ev_per_atom
        side = "above" if gap >= 0 else "below"
        verb = "learnt" if self.calibrator else "would learn"
        lines = [
            f"{verb} from {self.used} DFT results; on average DFT lies {1000 * abs(gap):.0f} "
            f"meV/atom {side} the potential",
            f"calibrator {self.before} → {self.calibrator_id} ({self.rows:,} results in all)",
        ]
        lines += [
            f"replaced: the earlier value {height:+.4f} eV/atom of {candidate_id}"
            for candidate_id, height in self.replaced.items()
        ]
        lines += [f"left out: {candidate_id}: {why}" for candidate_id, why in self.left_out.items()]
        kept = "dry run: nothing was kept"
        return [*lines, f"kept as {self.calibrator}" if self.calibrator else kept]


def learn(
    source: Path,
    directory: Path,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    machine: Machine | None = None,
    *,
    dry_run: bool = False,
) -> Learnt:
    """Update the calibrator that fits a campaign with DFT heights of its candidates.

    source: a table with `candidate_id` and DFT heights above the hull, eV/atom.  machine: None for
    the one that the environment describes.  dry_run: keep nothing, apart from second energies that
    had to be computed. The campaign's own probabilities and report are made again. A later value
    for a candidate replaces the earlier one; the same value handed in again, after an interruption,
    brings probabilities and report up to date. Raises InputError for a table that cannot be used,
    or where no calibrator fits.
    """
    table = read_dft_heights(source)
    machine = machine or read_machine()
    home = machine.home_folder
    with Store.open(directory, command="calibrate") as store, only_writer(home):
        settings = stored_settings(store, None)
        screen = make_screen(store, settings, machine, None, progress=progress)
        fitting, why = fitting_calibrator(screen.basis, known_calibrators(home))
        if fitting is None:
            raise InputError(f"{directory}: {why}, so there is nothing to update")
        new, left_out = _results(screen, table, fitting)
        if not new:
            if SEEN in left_out.values() and not dry_run:
                _bring_up_to_date(screen, home)
            reasons = "; ".join(f"{i}: {w}" for i, w in list(left_out.items())[:3])
            raise InputError(
                f"{source.name}: no result can be used ({reasons or 'it has no rows'})"
            )
        earlier = {one.candidate_id: one for one in fitting.results}
        after = relearnt(fitting, earlier | new)
        path = None
        if not dry_run:
            path = write_own(after, home)
            _bring_up_to_date(screen, home)
    gaps = [one.dft_ev_per_atom - one.height_ev_per_atom for one in new.values()]
    return Learnt(
        calibrator=str(path) if path else "",
        calibrator_id=after.calibrator_id,
        before=fitting.calibrator_id,
        used=len(new),
        replaced={i: earlier[i].dft_ev_per_atom for i in new if i in earlier},
        left_out=left_out,
        mean_gap_ev_per_atom=float(np.mean(gaps)),
        rows=after.rows,
    )


def kept_results(home: Path) -> tuple[list[OwnDftResult], list[str]]:
    """DFT results that calibrators have learnt from, and lines about those without a value."""
    own = own_calibrators(home)
    results = [one for calibrator in own.values() for one in calibrator.results]
    notes = []
    for path, calibrator in own.items():
        if without := len(calibrator.seen) - len(calibrator.results):
            notes.append(
                f"{path}: {without} more, learnt by a version that kept no values; only "
                "`--forget all` takes them out"
            )
    return results, notes


def forget(ids: Sequence[str], directory: Path | None, machine: Machine | None = None) -> list[str]:
    """Take DFT results out of the calibrators; 'all' takes every one. Returns what was done.

    directory: a campaign whose probabilities and report are made again at once. Raises InputError
    for a candidate without a result.
    """
    machine = machine or read_machine()
    home = machine.home_folder
    with only_writer(home):
        lines = forget_every_result(home) if "all" in ids else forget_results(home, ids)
    lines = lines or ["there was nothing to forget"]
    if directory is None:
        return [*lines, "campaigns follow when they are next run or judged again"]
    with Store.open(directory, command="calibrate") as store:
        _bring_up_to_date(make_screen(store, stored_settings(store, None), machine, None), home)
    return [*lines, f"probabilities and report of {directory} are up to date"]


def _bring_up_to_date(screen: Screen, home: Path) -> None:
    """Store probabilities by the newest calibrator, and write the report again."""
    store_probabilities(screen, home)
    screen.store.publish()
    write_report(screen.store.directory)


def _results(
    screen: Screen, table: Sequence[DftHeight], fitting: Calibrator
) -> tuple[dict[str, OwnDftResult], dict[str, str]]:
    """Results that are new or corrected, by candidate id; the other rows and why."""
    relaxed = {c.candidate_id: (c, r) for c, r in screen.relaxed([r.candidate_id for r in table])}
    left_out: dict[str, str] = {}
    usable = []
    for row in table:
        if why := _why_not(row, relaxed.keys(), fitting):
            left_out[row.candidate_id] = why
        else:
            usable.append(row)
    energies = second_energies_for(screen, fitting, [relaxed[r.candidate_id] for r in usable])
    found: dict[str, OwnDftResult] = {}
    for row in usable:
        candidate, relaxation = relaxed[row.candidate_id]
        energy = energies.get(relaxation.relaxation_id)
        if why := why_no_probability(candidate, screen.reference, fitting) or why_no_second_energy(
            energy, fitting
        ):
            left_out[row.candidate_id] = why
            continue
        case = case_of(relaxation, screen.reference, energy)
        found[row.candidate_id] = OwnDftResult(
            candidate_id=row.candidate_id,
            formula=candidate.crystal.formula,
            dft_ev_per_atom=row.dft_ev_per_atom,
            height_ev_per_atom=case.height_ev_per_atom,
            state=case.state,
            amounts=case.amounts,
            source=row.source,
            campaign=str(screen.store.directory.absolute()),
            since=timestamp(),
        )
    return found, left_out


def _why_not(row: DftHeight, relaxed: Collection[str], fitting: Calibrator) -> str:
    """Why a row teaches nothing, as far as it can be seen without computing; '' where it may."""
    earlier = {one.candidate_id: one.dft_ev_per_atom for one in fitting.results}
    if row.candidate_id not in relaxed:
        return "no converged relaxation of it is stored here"
    if not np.isfinite(row.dft_ev_per_atom):
        return "its DFT height is no number"
    if earlier.get(row.candidate_id) == row.dft_ev_per_atom:
        return SEEN
    if row.candidate_id in fitting.seen and row.candidate_id not in earlier:
        return SEEN_BEFORE
    return ""
