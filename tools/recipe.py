"""How a reference is made: what to try in a system, and the funnel that finds its low phases.

In each formula: an energy at the predicted volume → the best again at the volume their pressure
asks for → fifteen steps for the best few and for every type of our own list → a full relaxation
of the best three → near the hull, once more from a rattle, so that no symmetric saddle point holds
it up. No structure of any database of computed materials enters it.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import Evaluation, Potential
from hullward.models.registry import load_potential, potential_card
from hullward.tools.chemistry import charge_balance
from hullward.tools.hull import Hull, Phase
from hullward.tools.orderings import PARENTS, orderings
from hullward.tools.pool import relax_many
from hullward.tools.prototypes import Decorated, decorate, element_structures, library
from hullward.tools.radii import bond_length
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.reference_built import common_states_of, served_class

RECIPE = "1"
MAX_ATOMS, MAX_ATOMS_ALLOY, MAX_ATOMS_OWN = 20, 4, 40
EXPECTED_ATOMS = 8  # formula units up to this size are expected to have been tried
ORDERED_ATOMS = 12  # formula units up to this size get orderings of parent structures
BULK_MODULUS_EV_PER_A3 = 0.6  # about 100 GPa: turns a pressure into a better volume
LARGEST_STRAIN = 0.2  # of volume, in one correction
CORRECTED, COARSE, FULL, OWN = 8, 5, 3, 4  # kept a formula by each stage, and of our own types
WINDOW_EV_PER_ATOM = 0.06  # above a formula's best after the coarse steps: not relaxed further
HOPELESS_EV_PER_ATOM = 0.2  # above the hull of the subsystems: not even relaxed coarsely
TOO_HIGH_EV_PER_ATOM = 0.1  # above the coarse hull: not relaxed further
NEAR_HULL_EV_PER_ATOM = 0.05
SAME_EV_PER_ATOM = 5e-4  # closer energies at one formula are the same structure

MACHINE_FAILURES = (Reason.WORKER_DIED, Reason.OUT_OF_MEMORY)

COARSE_PROTOCOL = Protocol(max_steps=15)
FULL_PROTOCOL = Protocol(max_steps=300)
FINAL_PROTOCOL = Protocol(fmax_ev_per_a=0.02, max_steps=500)
RATTLED_PROTOCOL = Protocol(fmax_ev_per_a=0.02, max_steps=500, rattle_a=0.05)


@dataclass(frozen=True)
class Trial:
    """One structure on its way through the funnel."""

    prototype: str
    crystal: Crystal
    energy: float | None = None  # eV/atom, of the last stage
    relaxation: Relaxation | None = None

    @property
    def own(self) -> bool:
        return self.prototype.startswith("own:")


class Bench:
    """Computes energies and relaxations, each once, remembering them in a file."""

    def __init__(self, potential: str, memory: Path, workers: int) -> None:
        self.name, self.workers, self.memory = potential, workers, memory
        self.card = potential_card(potential)
        self._engine: Potential | None = None
        self._known: dict[str, Any] = {}
        if memory.is_file():
            rows = (json.loads(line) for line in memory.read_text(encoding="utf-8").splitlines())
            self._known = {row["key"]: row for row in rows}
        self.force_calls = sum(row["force_calls"] for row in self._known.values())
        self.cpu_s = sum(row["cpu_s"] for row in self._known.values())

    def energies(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """(trial with its energy, volume ratio its pressure asks for); failures are left out."""
        found = []
        for trial in trials:
            key = f"point:{trial.crystal.content_id}"
            if key not in self._known:
                self._engine = self._engine or load_potential(self.name)
                start = time.process_time()
                answer = self._engine.evaluate([trial.crystal])[0]
                energy = strain = None
                if isinstance(answer, Evaluation):
                    energy = answer.energy_ev_per_atom
                    tension = float(np.trace(answer.stress_ev_per_a3)) / 3
                    strain = max(
                        -LARGEST_STRAIN, min(LARGEST_STRAIN, -tension / BULK_MODULUS_EV_PER_A3)
                    )
                self._remember(key, 1, time.process_time() - start, energy=energy, strain=strain)
            row = self._known[key]
            if row["energy"] is not None and np.isfinite(row["energy"]):
                trial = Trial(trial.prototype, trial.crystal, row["energy"])
                found.append((trial, 1.0 + row["strain"]))
        return found

    def relax(self, trials: Sequence[Trial], protocol: Protocol) -> list[Trial]:
        """Relaxed trials in the order given, failures left out, unconverged ones kept."""
        keys = {f"{protocol.protocol_id}:{t.crystal.content_id}": t for t in trials}
        todo = [(key, t.crystal) for key, t in keys.items() if key not in self._known]
        for done in relax_many(todo, self.name, protocol, self.workers):
            self._remember(
                done.candidate_id,
                done.force_calls,
                done.cpu_s,
                relaxation=done.model_dump(mode="json"),
            )
        relaxed = []
        for key, trial in keys.items():
            if key not in self._known:
                continue
            r = Relaxation.model_validate(self._known[key]["relaxation"])
            if r.failure is None and r.crystal is not None:
                relaxed.append(Trial(trial.prototype, r.crystal, r.energy_ev_per_atom, r))
        return relaxed

    def _remember(self, key: str, force_calls: int, cpu_s: float, **answer: Any) -> None:
        row = {"key": key, "force_calls": force_calls, "cpu_s": round(cpu_s, 4), **answer}
        with self.memory.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._known[key] = row
        self.force_calls += force_calls
        self.cpu_s += cpu_s


# -- what to try ------------------------------------------------------------------------------


def expected_formulas(elements: Sequence[str], most_atoms: int = EXPECTED_ATOMS) -> list[str]:
    """Reduced formulas of all these elements that common oxidation states balance."""
    from pymatgen.core import Composition

    found = []
    for total in range(len(elements), most_atoms + 1):
        for cuts in combinations(range(1, total), len(elements) - 1):
            counts = np.diff([0, *cuts, total]).tolist()
            if gcd(*counts) == 1:
                composition = dict(zip(elements, map(float, counts), strict=True))
                if served_class(composition).covered:
                    found.append(Composition(composition).reduced_formula)
    return found


def candidates(elements: Sequence[str]) -> list[Trial]:
    """Every structure to try in the system of exactly these elements."""
    if len(elements) == 1:
        return [Trial(name, crystal) for name, crystal in element_structures(elements[0])]
    states = common_states_of(elements)
    alloy = charge_balance(dict.fromkeys(elements, 1.0), states).note == "metal"
    own = [p for p in library() if p.prototype_id.startswith("own:")]
    placed = [
        *decorate(elements, max_atoms=MAX_ATOMS_ALLOY if alloy else MAX_ATOMS, allowed=states),
        *decorate(elements, max_atoms=MAX_ATOMS_OWN, allowed=states, prototypes=own),
        *decorate(
            elements, ["Li2O2"], prototypes=[p for p in own if p.prototype_id == "own:Li2O2"]
        ),
    ]
    trials = [Trial(_name(d), d.crystal) for d in placed]
    if not alloy:
        trials += _ordered(elements)
    return trials


def _name(decorated: Decorated) -> str:
    """The type's id; one of ours is 'own' only where each of its species stays one element."""
    pairs = {(label.split("-")[0], element) for label, element in decorated.assignment}
    kept = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    name = decorated.prototype_id
    return name if kept else name.replace("own:", "split:")


def _ordered(elements: Sequence[str]) -> Iterable[Trial]:
    from pymatgen.core import Composition, Element

    anion = max(elements, key=lambda el: Element(el).X)
    for formula in expected_formulas(elements, ORDERED_ATOMS):
        counts = {str(el): int(n) for el, n in Composition(formula).get_el_amt_dict().items()}
        states = charge_balance(counts, common_states_of(elements)).states
        filling = sum(n for el, n in counts.items() if el != anion) / counts[anion]
        if not 0.5 <= filling <= 2:
            continue
        parent = PARENTS["antifluorite" if filling > 1 else "rocksalt"]
        bond = float(np.mean([bond_length(el, anion) for el in counts if el != anion]))
        for units in (1, 2):
            if sum(counts.values()) * units <= 24:
                cations = {el: (n * units, states[el]) for el, n in counts.items() if el != anion}
                found = orderings(
                    parent, cations, anion, states[anion], counts[anion] * units, bond
                )
                for name, crystal in found:
                    yield Trial(name, crystal)


# -- the funnel -------------------------------------------------------------------------------


def by_formula(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Grouped, best first, without repeats of one energy."""
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


def first_look(bench: Bench, trials: Sequence[Trial], below: Sequence[Trial]) -> list[Trial]:
    """The best of each formula after fifteen steps.

    below: what came out of this for the subsystems; formulas far above their hull end here.
    """
    rough = by_formula(trial for trial, _ in bench.energies(trials))
    kept = [t for group in rough.values() for t in _best(group, CORRECTED)]
    for _ in range(2):
        resized = [_resized(trial, ratio) for trial, ratio in bench.energies(kept)]
        kept = [trial for trial, _ in bench.energies(resized)]
    chosen = [t for group in by_formula(kept).values() for t in _best(group, COARSE)]
    if below:
        heights = _heights([*below, *chosen])
        low = {t.crystal.formula for t in chosen if heights[id(t)] <= HOPELESS_EV_PER_ATOM}
        chosen = [t for t in chosen if t.crystal.formula in low]
    return bench.relax(chosen, COARSE_PROTOCOL)


def _resized(trial: Trial, volume_ratio: float) -> Trial:
    lattice = np.array(trial.crystal.lattice) * volume_ratio ** (1 / 3)
    crystal = Crystal.from_arrays(lattice, trial.crystal.species, trial.crystal.frac_coords)
    return Trial(trial.prototype, crystal)


def finish(bench: Bench, coarse: Sequence[Trial]) -> list[Trial]:
    """Converged relaxations of whatever may lie on the hull or near it."""
    heights = _heights(coarse)
    promising = []
    for group in by_formula(coarse).values():
        best = group[0].energy or 0.0
        promising += [
            t
            for t in _best(group, COARSE if len(set(group[0].crystal.species)) == 1 else FULL)
            if (t.energy or 0.0) - best <= WINDOW_EV_PER_ATOM
            and (heights[id(t)] <= TOO_HIGH_EV_PER_ATOM or len(set(t.crystal.species)) == 1)
        ]
    full = bench.relax(promising, FULL_PROTOCOL)
    lowest = [t for group in by_formula(full).values() for t in group[:FULL]]
    final = _converged(bench.relax(lowest, FINAL_PROTOCOL))
    heights = _heights(final)
    near_hull = [t for t in final if heights[id(t)] <= NEAR_HULL_EV_PER_ATOM]
    again = _converged(bench.relax(near_hull, RATTLED_PROTOCOL))
    kept = by_formula([*final, *again])
    return [trial for group in kept.values() for trial in group[:FULL]]


def _converged(trials: Iterable[Trial]) -> list[Trial]:
    return [t for t in trials if t.relaxation is not None and t.relaxation.converged]


def _heights(trials: Sequence[Trial]) -> dict[int, float]:
    """Height of each above the hull of them all, eV/atom, by id(trial)."""
    phases = [_phase(t) for t in trials]
    hull = Hull(phases)
    amounts = np.array([[p.composition.get(el, 0.0) for el in hull.elements] for p in phases])
    energies = np.array([p.energy_ev_per_atom for p in phases])
    gaps = energies - hull.energies(amounts / amounts.sum(axis=1, keepdims=True))
    return {id(t): float(gap) for t, gap in zip(trials, gaps, strict=True)}


def _phase(trial: Trial) -> Phase:
    amounts = {str(k): float(v) for k, v in trial.crystal.composition.get_el_amt_dict().items()}
    assert trial.energy is not None
    return Phase(
        phase_id=trial.crystal.content_id,
        formula=trial.crystal.formula,
        composition=amounts,
        energy_ev_per_atom=trial.energy,
        source=trial.prototype,
    )
