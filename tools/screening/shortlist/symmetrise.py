"""Relaxed cells that are a higher space group within a tolerance, at equal energy.

Relaxation ends near a symmetry, not on it: at 0.01 Å a cell may be P1 that within 0.1 Å is cubic.
Whether it is the cubic crystal or a slight distortion of it is a question of energy, so the cell is
moved into the higher group and its energy computed by the campaign's own potential.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import (
    SymmetrisedCrystal,
    nearest_pairs,
    space_group,
    space_group_symbol,
    symmetrised,
)
from hullward.tools.records import Protocol, Relaxation, SymmetrisedCell
from hullward.tools.screening import Limits, Screen, check_geometry

TIGHT_A = 0.01  # the cell as relaxed; exports look for symmetry within it
TOLERANCES_A = (0.1, 0.05, 0.02)
# Two relaxations of one crystal may end so far apart: a perturbation within it is its parent again
# (`returned`). CHGNet's typical error is 63 meV/atom.
MOST_EV_PER_ATOM = 0.002
SAME_VOLUME = 0.01  # relative
REACH_A = 4.0  # longer shortest distances are not compared
NO_STEPS = Protocol(max_steps=0)
FEW = 100  # energies that one worker computes sooner than several have started
BATCH = 200  # candidates whose cells are computed and stored at once

# May stand on a short list: judged over the basis; no known structure; covered; stable or
# metastable over reference and campaign, or over the reference alone while that is all there is;
# no duplicate of a lower one; suspects too, as a second opinion may confirm them; every member of
# a family, as any may come to represent it.
MAY_BE_LISTED = "unmatched AND covered AND label IN ('stable', 'metastable')"
# An energy that could not be computed is tried once more in each run.
_WAITING = f"""
SELECT r.relaxation_id, s.relaxation_id IS NOT NULL AS failed
FROM results r LEFT JOIN symmetrised_cells s USING (relaxation_id)
WHERE {MAY_BE_LISTED} AND space_group_loose IS DISTINCT FROM space_group_tight
    AND (s.relaxation_id IS NULL OR (s.crystal IS NOT NULL AND s.energy_ev_per_atom IS NULL))
ORDER BY r.relaxation_id
"""


class _Trial(NamedTuple):
    """A higher group of a relaxed cell."""

    job: str  # name of its energy
    tolerance_a: float
    made: SymmetrisedCrystal


def symmetrise_candidates(screen: Screen) -> None:
    """Store the symmetrised cell of every candidate that may be listed and lacks one.

    Looked at are those that MAY_BE_LISTED and whose relaxed cells have one space group within
    0.1 Å and another within 0.01 Å. A cell is accepted if its energy per atom is within
    MOST_EV_PER_ATOM of the relaxed one's, on either side. What stopping leaves out is missing, and
    the next call computes it.
    """
    rows = screen.store.rows(_WAITING)
    names = {row["relaxation_id"]: f"symmetrise {row['relaxation_id']}" for row in rows}
    again = {row["relaxation_id"] for row in rows if row["failed"]}
    ids = [i for i, name in names.items() if not (i in again and name in screen.tried)]
    for start in range(0, len(ids), BATCH):
        if screen.hooks.stopping():
            return
        batch = ids[start : start + BATCH]
        screen.tried.update(names[i] for i in batch)
        screen.store.add(_cells(screen, screen.store.load(Relaxation, batch)))
        screen.hooks.progress("symmetrise", start + len(batch), len(ids))


def _cells(screen: Screen, relaxations: Sequence[Relaxation]) -> Iterator[SymmetrisedCell]:
    """The records of some relaxations; the energies of all are computed in one call."""
    trials: dict[str, list[_Trial]] = {}
    flaws: dict[str, str] = {}
    for one in relaxations:
        assert one.crystal is not None  # it was judged
        found = list(_trials(one.relaxation_id, one.crystal, screen.limits))
        trials[one.relaxation_id] = [trial for trial, flaw in found if not flaw]
        flaws[one.relaxation_id] = "; ".join(flaw for _, flaw in found if flaw)
    energies = _energies(screen, [trial for some in trials.values() for trial in some])
    for one in relaxations:
        tried = trials[one.relaxation_id]
        if not tried:
            why = flaws[one.relaxation_id] or "no cell of a higher group can be built"
            yield _record(one, None, None, why)
        elif all(trial.job in energies for trial in tried):  # otherwise it was stopped
            yield _highest(one, tried, energies)


def _trials(name: str, relaxed: Crystal, limits: Limits) -> Iterator[tuple[_Trial, str]]:
    """The higher groups of a cell, each once, the highest first, with its flaw or ''."""
    tight = symmetrised(relaxed, TIGHT_A)
    least = 1 if tight is None else tight.order
    found: dict[int, _Trial] = {}  # by order
    for tolerance_a in TOLERANCES_A:
        made = symmetrised(relaxed, tolerance_a)
        if made is not None and made.order > least:
            trial = _Trial(f"{name} {tolerance_a:g}", tolerance_a, made)
            found.setdefault(made.order, trial)
    for order in sorted(found, reverse=True):
        yield found[order], _flaw(relaxed, found[order], limits)


def _flaw(relaxed: Crystal, trial: _Trial, limits: Limits) -> str:
    """How a symmetrised cell is not the relaxed crystal, or not of its group; '' if it is."""
    made = trial.made
    group = f"{space_group_symbol(made.space_group)} within {trial.tolerance_a:g} Å"
    cells = (relaxed, made.crystal)
    formulas = [f"{c.n_atoms} atoms of {c.formula}" for c in cells]
    near, nearer = (min(REACH_A, float(nearest_pairs(c, REACH_A)[2].min())) for c in cells)
    volume, other = (c.volume_per_atom_a3 for c in cells)
    found = [space_group(made.crystal, symprec_a) for symprec_a in (TIGHT_A, TIGHT_A / 10)]
    if formulas[0] != formulas[1]:
        return f"{group}: {formulas[0]} would become {formulas[1]}"
    if made.max_displacement_a > trial.tolerance_a:
        return f"{group}: an atom would move by {made.max_displacement_a:.3f} Å"
    if abs(volume - other) > SAME_VOLUME * volume:
        return f"{group}: {volume:.3f} Å3 per atom would become {other:.3f}"
    if abs(near - nearer) > trial.tolerance_a:
        return f"{group}: the shortest distance of {near:.3f} Å would become {nearer:.3f} Å"
    if set(found) != {made.space_group}:
        return f"{group}: the symmetrised cell has the space groups {found}"
    flaw = check_geometry(made.crystal, limits)
    return f"{group}: {flaw.reason}, {flaw.detail}" if flaw else ""


def _energies(screen: Screen, trials: Sequence[_Trial]) -> dict[str, Relaxation]:
    """Evaluations without a step, by job; what stopping leaves out is not among them."""
    if not trials:
        return {}
    executor = screen.executor
    if len(trials) <= FEW and not executor.in_this_process:
        executor = replace(executor, workers=1)
    jobs = [(trial.job, trial.made.crystal) for trial in trials]
    done = executor.relax(jobs, screen.checked_card.name, NO_STEPS, screen.hooks.stopping)
    energies = {one.candidate_id: one for one in done}
    if not executor.in_this_process:  # whose time the caller's clock does not see
        screen.hooks.timed.charge("symmetrise", sum(one.cpu_s for one in energies.values()))
    return energies


def _highest(
    relaxed: Relaxation, trials: Sequence[_Trial], energies: dict[str, Relaxation]
) -> SymmetrisedCell:
    """The first trial at equal energy, or the first of all with the reason why not."""
    reasons = [_refusal(relaxed, trial, energies[trial.job]) for trial in trials]
    best = next((n for n, reason in enumerate(reasons) if not reason), 0)
    spent = sum(energies[trial.job].force_calls for trial in trials)
    cpu_s = sum(energies[trial.job].cpu_s for trial in trials)
    record = _record(relaxed, trials[best], energies[trials[best].job], reasons[best])
    return record.model_copy(update={"force_calls": spent, "cpu_s": cpu_s})


def _refusal(relaxed: Relaxation, trial: _Trial, done: Relaxation) -> str:
    """Why a relaxed cell is not of a higher group; '' where it is."""
    higher = _higher(relaxed, done)
    if higher is None:
        return f"its energy could not be computed: {done.detail or done.failure or 'no number'}"
    if abs(higher) <= MOST_EV_PER_ATOM:
        return ""
    group = space_group_symbol(trial.made.space_group)
    limit = 1000 * MOST_EV_PER_ATOM
    side = "above" if higher > 0 else "below"
    return f"{group} is {1000 * abs(higher):.1f} meV/atom {side}, more than {limit:g}"


def _higher(relaxed: Relaxation, done: Relaxation) -> float | None:
    """The energy of a symmetrised cell minus that of the relaxed one, eV/atom."""
    energy, before = done.energy_ev_per_atom, relaxed.energy_ev_per_atom
    if done.failure or energy is None or before is None or not np.isfinite(energy):
        return None
    return energy - before


def _record(
    relaxed: Relaxation, trial: _Trial | None, done: Relaxation | None, reason: str
) -> SymmetrisedCell:
    higher = None if done is None else _higher(relaxed, done)
    known = None if higher is None else done
    made = trial.made if trial else None
    return SymmetrisedCell(
        relaxation_id=relaxed.relaxation_id,
        candidate_id=relaxed.candidate_id,
        tolerance_a=trial.tolerance_a if trial else None,
        space_group=made.space_group if made else None,
        accepted=trial is not None and not reason,
        reason=reason,
        max_displacement_a=made.max_displacement_a if made else None,
        energy_ev_per_atom=known.energy_ev_per_atom if known else None,
        higher_ev_per_atom=higher,
        residual_force_ev_per_a=known.residual_force_ev_per_a if known else None,
        crystal=made.crystal if made else None,
        magmoms_mu_b=known.magmoms_mu_b if known else None,
    )
