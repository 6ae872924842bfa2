"""The funnel that finds the low phases of one chemical system.

In each formula: energies at the predicted volume → energies of the best at volumes corrected for
their pressure → fifteen steps for the best few and for every type of our own list → a full
relaxation of the best three → near the hull, a second one from a rattled start, which leaves a
symmetric saddle point. No structure of a database of computed materials enters it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import Evaluation, Potential, load_potential
from hullward.tools.hull import Hull, Phase
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.reference.recipe.trials import Trial
from hullward.tools.relax import relax_stream
from hullward.tools.store import sealed, unsealed

log = logging.getLogger(__name__)

RECIPE = "2"
BATCH = 16  # structures of one energy call
BULK_MODULUS_EV_PER_A3 = 0.6  # about 100 GPa: turns a pressure into a better volume
LARGEST_STRAIN = 0.2  # of volume, in one correction
CORRECTED, COARSE, FULL, OWN = 8, 4, 3, 4  # kept a formula by each stage, and of our own types
WINDOW_EV_PER_ATOM = 0.06  # above a formula's best after the coarse steps: not relaxed further
HOPELESS_EV_PER_ATOM = 0.2  # above the hull of the subsystems: not even relaxed coarsely
TOO_HIGH_EV_PER_ATOM = 0.08  # above the coarse hull: not relaxed further
NEAR_HULL_EV_PER_ATOM = 0.05
KEPT = 2  # phases of one formula in the result
SAME_EV_PER_ATOM = 5e-4  # closer energies at one formula are the same structure

COARSE_PROTOCOL = Protocol(optimizer="bfgs", max_steps=15)
FINAL_PROTOCOL = Protocol(optimizer="bfgs", fmax_ev_per_a=0.02, max_steps=300)
RATTLED_PROTOCOL = Protocol(optimizer="bfgs", fmax_ev_per_a=0.02, max_steps=300, rattle_a=0.05)


class EnergyCache:
    """Energies and relaxations, each computed once and kept in a file.

    Each line has a checksum. What lines without a right one held is computed again.
    """

    def __init__(self, potential: str, memory: Path, device: str = "cpu") -> None:
        self.name, self._memory, self._device = potential, memory, device
        self._engine: Potential | None = None
        self._known: dict[str, Any] = {}
        ignored = 0
        for line in memory.read_bytes().split(b"\n") if memory.is_file() else ():
            try:
                row = json.loads(unsealed(line)) if line else None
            except ValueError:
                ignored += 1
                continue
            if row:
                self._known[row["key"]] = row
        if ignored:
            log.warning("%s: %d lines without a right checksum are computed again", memory, ignored)
        self.force_calls = sum(row["force_calls"] for row in self._known.values())
        self.cpu_s = sum(row["cpu_s"] for row in self._known.values())

    @property
    def engine(self) -> Potential:
        """The potential, loaded when something has to be computed."""
        self._engine = self._engine or load_potential(self.name, self._device)
        return self._engine

    def energies(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """(trial with its energy, ratio to the volume without pressure), failures left out."""
        keys = [f"point:{trial.crystal.content_id}" for trial in trials]
        todo = {k: t.crystal for k, t in zip(keys, trials, strict=True) if k not in self._known}
        names = sorted(todo, key=lambda key: (todo[key].n_atoms, key))
        for start in range(0, len(names), BATCH):
            self._evaluate({name: todo[name] for name in names[start : start + BATCH]})
        found = []
        for key, trial in zip(keys, trials, strict=True):
            row = self._known[key]
            if row["energy"] is not None and np.isfinite(row["energy"]):
                trial = Trial(trial.prototype, trial.crystal, row["energy"])
                found.append((trial, 1.0 + row["strain"]))
        return found

    def _evaluate(self, crystals: dict[str, Crystal]) -> None:
        start = time.process_time()
        answers = self.engine.evaluate(list(crystals.values()))
        share = (time.process_time() - start) / len(crystals)
        rows = []
        for key, answer in zip(crystals, answers, strict=True):
            energy = strain = None
            if isinstance(answer, Evaluation):
                energy = answer.energy_ev_per_atom
                tension = float(np.trace(answer.stress_ev_per_a3)) / 3
                ideal = -tension / BULK_MODULUS_EV_PER_A3
                strain = max(-LARGEST_STRAIN, min(LARGEST_STRAIN, ideal))
            rows.append(self._row(key, 1, share, energy=energy, strain=strain))
        self._remember(rows)

    def relax(self, trials: Sequence[Trial], protocol: Protocol) -> list[Trial]:
        """Relaxed trials in the order given, failures left out, unconverged ones kept."""
        keys = {f"{protocol.protocol_id}:{t.crystal.content_id}": t for t in trials}
        todo = [(key, t.crystal) for key, t in keys.items() if key not in self._known]
        for done in relax_stream(todo, self.engine, protocol) if todo else ():
            answer = done.model_dump(mode="json")
            self._remember(
                [self._row(done.candidate_id, done.force_calls, done.cpu_s, relaxation=answer)]
            )
        relaxed = []
        for key, trial in keys.items():
            r = Relaxation.model_validate(self._known[key]["relaxation"])
            if r.failure is None and r.crystal is not None:
                relaxed.append(Trial(trial.prototype, r.crystal, r.energy_ev_per_atom, r))
        return relaxed

    @staticmethod
    def _row(key: str, force_calls: int, cpu_s: float, **answer: Any) -> dict[str, Any]:
        return {"key": key, "force_calls": force_calls, "cpu_s": round(cpu_s, 5), **answer}

    def _remember(self, rows: Sequence[dict[str, Any]]) -> None:
        lines = "".join(f"{sealed(json.dumps(row))}\n" for row in rows).encode()
        with self._memory.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill left a line unfinished
                    lines = b"\n" + lines
            file.write(lines)
        for row in rows:
            self._known[row["key"]] = row
            self.force_calls += row["force_calls"]
            self.cpu_s += row["cpu_s"]


def low_phases(cache: EnergyCache, trials: Sequence[Trial], below: Sequence[Phase]) -> list[Trial]:
    """Converged relaxations on the hull of one system or near it, best first in each formula.

    below: the phases of all its subsystems, whose hull the system's own must beat or approach.
    """
    coarse = _coarse_trials(cache, trials, below)
    heights = _heights(coarse, below)
    promising = []
    for group in by_formula(coarse).values():
        best = group[0].energy or 0.0
        promising += [
            t
            for t in _best(group, FULL)
            if (t.energy or 0.0) - best <= WINDOW_EV_PER_ATOM
            and (not below or heights[id(t)] <= TOO_HIGH_EV_PER_ATOM)
        ]
    final = _converged(cache.relax(promising, FINAL_PROTOCOL))
    heights = _heights(final, below)
    near_hull = [
        group[0]
        for group in by_formula(final).values()
        if heights[id(group[0])] <= NEAR_HULL_EV_PER_ATOM
    ]
    again = _converged(cache.relax(near_hull, RATTLED_PROTOCOL))
    kept = by_formula([*final, *again])
    return [trial for formula in sorted(kept) for trial in kept[formula][:KEPT]]


def by_formula(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials by formula, best first, without repeats of one energy."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.crystal.formula].append(trial)
    for formula, group in groups.items():
        group.sort(key=lambda t: (round(t.energy or 0.0, 6), t.prototype))
        distinct: list[Trial] = []
        for trial in group:
            last = distinct[-1].energy if distinct else None
            if last is None or (trial.energy or 0.0) - last > SAME_EV_PER_ATOM:
                distinct.append(trial)
        groups[formula] = distinct
    return groups


def _best(group: Sequence[Trial], count: int) -> list[Trial]:
    """The best of a formula, and the best of our own types whatever their rank."""
    own = [t for t in group if t.own][:OWN]
    return [*group[:count], *(t for t in own if t not in group[:count])]


def _coarse_trials(
    cache: EnergyCache, trials: Sequence[Trial], below: Sequence[Phase]
) -> list[Trial]:
    """The best of each formula after fifteen steps, without formulas far above the hull."""
    rough = by_formula(trial for trial, _ in cache.energies(trials))
    kept = [t for group in rough.values() for t in _best(group, CORRECTED)]
    for _ in range(2):
        resized = [_resized(trial, ratio) for trial, ratio in cache.energies(kept)]
        kept = [trial for trial, _ in cache.energies(resized)]
    chosen = [t for group in by_formula(kept).values() for t in _best(group, COARSE)]
    if below:
        heights = _heights(chosen, below)
        low = {t.crystal.formula for t in chosen if heights[id(t)] <= HOPELESS_EV_PER_ATOM}
        chosen = [t for t in chosen if t.crystal.formula in low]
    return cache.relax(chosen, COARSE_PROTOCOL)


def _resized(trial: Trial, volume_ratio: float) -> Trial:
    lattice = np.array(trial.crystal.lattice) * volume_ratio ** (1 / 3)
    crystal = Crystal.from_arrays(lattice, trial.crystal.species, trial.crystal.frac_coords)
    return Trial(trial.prototype, crystal)


def _converged(trials: Iterable[Trial]) -> list[Trial]:
    return [t for t in trials if t.relaxation is not None and t.relaxation.converged]


def _heights(trials: Sequence[Trial], below: Sequence[Phase]) -> dict[int, float]:
    """Height of each above the hull of them all and of `below`, eV/atom, by id(trial)."""
    if not trials:
        return {}
    phases = [as_phase(t) for t in trials]
    hull = Hull([*below, *phases])
    amounts = np.array([[p.composition.get(el, 0.0) for el in hull.elements] for p in phases])
    energies = np.array([p.energy_ev_per_atom for p in phases])
    gaps = energies - hull.energies(amounts / amounts.sum(axis=1, keepdims=True))
    return {id(t): float(gap) for t, gap in zip(trials, gaps, strict=True)}


def as_phase(trial: Trial) -> Phase:
    """A trial with an energy as a phase; its id is the crystal's content."""
    assert trial.energy is not None
    return Phase(
        phase_id=trial.crystal.content_id,
        formula=trial.crystal.formula,
        composition=trial.crystal.amounts,
        energy_ev_per_atom=trial.energy,
        crystal=trial.crystal,
        source=trial.prototype,
    )
