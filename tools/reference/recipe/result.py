"""What the recipe found in each system, kept in a file, and the reference put together from it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import PotentialCard
from hullward.tools.hull import Hull, Phase
from hullward.tools.prototypes import encyclopedia_types, prototype_library, table
from hullward.tools.records import Record
from hullward.tools.reference.recipe.low_phases import (
    FINAL_PROTOCOL,
    RECIPE,
    EnergyCache,
    as_phase,
    low_phases,
)
from hullward.tools.reference.recipe.trials import Trial, expected_formulas, given, trials
from hullward.tools.reference.sources import (
    BuiltPhases,
    Manifest,
    SystemTried,
    enough_tried,
    read_built,
)
from hullward.tools.store import write_whole

KEPT_ABOVE_HULL_EV_PER_ATOM = 0.1  # higher phases would match candidates nobody will act on
DEEP_EV_PER_ATOM = 0.05  # a phase nobody named this far below all else is listed for review


class Found(Record):
    """One phase and how it was come by."""

    phase: Phase
    rattle_a: float
    residual_force_ev_per_a: float | None
    residual_stress_gpa: float | None
    steps: int
    force_calls: int
    space_group: int | None


class SystemResult(Record):
    """What came of one system of exactly these elements."""

    elements: tuple[str, ...]
    made_by: str  # recipe, types, formulas and structures: another word means another result
    expected: tuple[str, ...]
    tried: dict[str, int]  # formula: structures evaluated
    phases: tuple[Found, ...]
    force_calls: int
    cpu_s: float

    @property
    def system(self) -> str:
        return "-".join(self.elements)


def build_system(
    potential: str,
    work: Path,
    elements: tuple[str, ...],
    more_formulas: Sequence[str],
    structures: Sequence[tuple[str, Crystal]],
    below: Mapping[tuple[str, ...], SystemResult],
) -> SystemResult:
    """Run the recipe on one system, or read what it found there before."""
    system = "-".join(elements)
    path = work / f"{system}.result.json"
    made_by = result_key(potential, more_formulas, structures)
    stored = stored_result(path)
    if stored is not None and stored.made_by == made_by:
        return stored
    bench = EnergyCache(potential, work / f"{system}.jsonl")
    every = [*trials(elements, more_formulas), *given(structures, frozenset(elements))]
    found = low_phases(bench, every, [f.phase for r in below.values() for f in r.phases])
    result = SystemResult(
        elements=elements,
        made_by=made_by,
        expected=tuple(expected_formulas(elements)) if len(elements) > 1 else elements,
        tried=dict(sorted(Counter(t.crystal.formula for t in every).items())),
        phases=tuple(map(found_of, found)),
        force_calls=bench.force_calls,
        cpu_s=round(bench.cpu_s, 2),
    )
    write_whole(path, result.model_dump_json().encode())
    return result


def stored_result(path: Path) -> SystemResult | None:
    """A result read back; None where there is none that can be read."""
    try:
        return SystemResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def result_key(
    potential: str, formulas: Sequence[str], structures: Sequence[tuple[str, Crystal]]
) -> str:
    """A word for everything that decides what a system's result is."""
    types = [p.prototype_id for p in (*prototype_library(), *encyclopedia_types())]
    types += table().by_id
    said = [RECIPE, potential, types, sorted(formulas), [c.content_id for _, c in structures]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def found_of(trial: Trial) -> Found:
    """A converged trial as a phase, with how it was come by."""
    relaxation = trial.relaxation
    assert relaxation is not None
    return Found(
        phase=as_phase(trial),
        rattle_a=relaxation.protocol.rattle_a,
        residual_force_ev_per_a=relaxation.residual_force_ev_per_a,
        residual_stress_gpa=relaxation.residual_stress_gpa,
        steps=relaxation.steps,
        force_calls=relaxation.force_calls,
        space_group=relaxation.space_group_loose,
    )


def taken_over(stem: Path, card: PotentialCard) -> dict[tuple[str, ...], SystemResult]:
    """The systems of an earlier build as results; raises InputError where it does not fit."""
    source = read_built(stem.parent, stem.name).source
    assert isinstance(source, BuiltPhases)
    manifest = source.manifest
    if manifest.potential_sha256 != card.weights_sha256 or manifest.recipe != RECIPE:
        raise InputError(
            f"{stem} was built with {manifest.potential} by recipe {manifest.recipe}, this build "
            f"uses {card.name} and recipe {RECIPE}: build it anew without --extend"
        )
    found: dict[str, list[Found]] = defaultdict(list)
    phases = {p.phase_id: p for p in source.within(source.elements)}
    for row in source.rows:
        facts = {key: row[key] for key in Found.model_fields if key != "phase"}
        found[row["chemsys"]].append(Found(phase=phases[row["phase_id"]], **facts))
    return {
        tuple(system.split("-")): SystemResult(
            elements=tuple(system.split("-")),
            made_by="taken over",
            expected=tried.expected_formulas,
            tried=tried.tried_formulas,
            phases=tuple(found[system]),
            force_calls=tried.force_calls,
            cpu_s=tried.cpu_s,
        )
        for system, tried in manifest.systems.items()
    }


# -- the reference ----------------------------------------------------------------------------


def assemble(
    results: Mapping[tuple[str, ...], SystemResult],
    out: Path,
    card: PotentialCard,
    types: str,
    named: Collection[str] = (),
) -> Manifest:
    """Write OUT.parquet and OUT.json from what was found in each system.

    named: reduced formulas that the caller has reason to expect; deep phases of others are listed
    for review.
    """
    results = dict(sorted(results.items(), key=lambda pair: (len(pair[0]), pair[0])))
    hulls = _Hulls(results)
    kept = [
        found
        for elements, result in results.items()
        for found in result.phases
        if hulls.height(elements, found.phase) <= KEPT_ABOVE_HULL_EV_PER_ATOM
    ]
    deep = {
        found.phase.formula: round(depth, 4)
        for elements, result in results.items()
        if len(elements) > 1
        for found in result.phases
        if found.phase.formula not in named
        if (depth := hulls.depth(elements, found.phase)) > DEEP_EV_PER_ATOM
    }
    systems = {
        result.system: SystemTried(
            expected_formulas=result.expected,
            tried_formulas=result.tried,
            force_calls=result.force_calls,
            cpu_s=result.cpu_s,
        )
        for result in results.values()
    }
    n_full = sum(enough_tried(facts) for name, facts in systems.items() if name.count("-") > 0)
    elements = sorted(result.system for result in results.values() if len(result.elements) == 1)
    manifest = Manifest(
        recipe=RECIPE,
        types=types,
        statement=(
            f"{len(kept)} phases of {len(elements)} elements and {n_full} systems of them, known "
            f"structure types relaxed with {card.name} by recipe {RECIPE}. Covers charge-balanced "
            "salts of one anion, orthophosphates and the alloys that were tried; not peroxides, "
            "molecules, other complex anions, metal-rich or high-valent compounds."
        ),
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=FINAL_PROTOCOL,
        systems=systems,
        deep=deep,
        force_calls=sum(result.force_calls for result in results.values()),
        cpu_s=round(sum(result.cpu_s for result in results.values()), 1),
    )
    _write_phases(out.with_suffix(".parquet"), kept)
    text = json.dumps(manifest.model_dump(mode="json"), indent=None, sort_keys=True)
    write_whole(out.with_suffix(".json"), (text + "\n").encode())
    return manifest


class _Hulls:
    """Heights and depths of phases among all that was found."""

    def __init__(self, results: Mapping[tuple[str, ...], SystemResult]) -> None:
        self._phases = {part: [f.phase for f in r.phases] for part, r in results.items()}
        self._hulls: dict[tuple[str, ...], Hull] = {}

    def _within(self, elements: tuple[str, ...]) -> list[Phase]:
        inside = set(elements)
        return [p for part, found in self._phases.items() if inside >= set(part) for p in found]

    def height(self, elements: tuple[str, ...], phase: Phase) -> float:
        """Above the hull of everything found in the system, eV/atom."""
        if elements not in self._hulls:
            self._hulls[elements] = Hull(self._within(elements))
        distance = self._hulls[elements].distance(phase.composition, phase.energy_ev_per_atom)
        return distance.e_above_hull_ev_per_atom

    def depth(self, elements: tuple[str, ...], phase: Phase) -> float:
        """Below the hull of all phases of other formulas, eV/atom.

        0 above that hull, and where it holds nothing but bare elements: salts are that deep.
        """
        if self.height(elements, phase) > 1e-9:
            return 0.0
        rest = [p for p in self._within(elements) if p.formula != phase.formula]
        distance = Hull(rest).distance(phase.composition, phase.energy_ev_per_atom)
        compounds = {p.phase_id for p in rest if len(p.elements) > 1}
        if compounds.isdisjoint(part.phase_id for part in distance.decomposition):
            return 0.0
        return -distance.e_above_hull_ev_per_atom


def _write_phases(path: Path, found: Sequence[Found]) -> None:
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    number: Counter[str] = Counter()
    rows = []
    for one in sorted(found, key=lambda f: (f.phase.formula, f.phase.energy_ev_per_atom)):
        phase, crystal = one.phase, one.phase.crystal
        assert crystal is not None
        number[phase.formula] += 1  # 1 is the lowest
        rows.append(
            {
                "phase_id": f"{phase.formula}#{number[phase.formula]}",
                "formula": phase.formula,
                "chemsys": crystal.chemsys,
                "energy_ev_per_atom": phase.energy_ev_per_atom,
                "prototype": phase.source,
                "rattle_a": one.rattle_a,
                "residual_force_ev_per_a": one.residual_force_ev_per_a,
                "residual_stress_gpa": one.residual_stress_gpa,
                "steps": one.steps,
                "force_calls": one.force_calls,
                "space_group": one.space_group,
                "lattice": np.round(np.ravel(crystal.lattice), 5).tolist(),
                "species": " ".join(crystal.species),
                "frac_coords": np.round(np.ravel(crystal.frac_coords), 5).tolist(),
            }
        )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    write_whole(path, buffer.getvalue())
