"""What the recipe found in one chemical system: computed, added to, or taken over; kept in a file.

A system that is computed again may miss a phase that an earlier build found, where more types
crowd one out or a symmetry breaks otherwise: the lowest of both stay.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import PotentialCard
from hullward.tools.hull import Phase
from hullward.tools.prototypes import NANO_PREFIX, encyclopedia_types, nano_table, prototype_library
from hullward.tools.records import Record
from hullward.tools.reference.recipe.low_phases import (
    KEPT,
    RECIPE,
    SAME_EV_PER_ATOM,
    EnergyCache,
    as_phase,
    low_phases,
)
from hullward.tools.reference.recipe.trials import Trial, all_trials, expected_formulas
from hullward.tools.reference.sources import BuiltPhases, read_built
from hullward.tools.store import sealed, unsealed, write_whole

log = logging.getLogger(__name__)


class FoundPhase(Record):
    """One phase and how it was relaxed."""

    phase: Phase
    rattle_a: float
    residual_force_ev_per_a: float | None
    residual_stress_gpa: float | None
    steps: int
    force_calls: int
    space_group: int | None


class SystemResult(Record):
    """The low phases of one system of exactly these elements, and what was tried for them."""

    elements: tuple[str, ...]
    made_by: str  # hash of recipe, types, formulas and structures; see `result_key`
    expected: tuple[str, ...]
    tried: dict[str, int]  # formula: structures evaluated
    phases: tuple[FoundPhase, ...]
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
    earlier: SystemResult | None = None,
    device: str = "cpu",
) -> SystemResult:
    """Run the recipe on one system, or read the stored result of the same work.

    structures: (name, crystal) of exactly these elements, to try as well.  below: the results of
    its subsystems.  earlier: try only the types that nano wrote, and add what they give to this
    result; a rebuild would compute everything again.
    """
    path = work / f"{'-'.join(elements)}.result.json"
    suffix = f"+{NANO_PREFIX}" if earlier else ""
    made_by = result_key(potential, more_formulas, structures) + suffix
    if (stored := stored_result(path, made_by)) is not None:
        return stored
    cache = EnergyCache(potential, work / f"{'-'.join(elements)}.jsonl", device)
    given = (Trial(f"given:{name}", crystal) for name, crystal in structures)
    tried = [*all_trials(elements, more_formulas), *given]
    if earlier is not None:
        tried = [t for t in tried if t.prototype.startswith(NANO_PREFIX)]
    results = [*below.values(), earlier] if earlier is not None else below.values()
    found = map(found_phase, low_phases(cache, tried, [f.phase for r in results for f in r.phases]))
    start = earlier or SystemResult(
        elements=elements,
        made_by=made_by,
        expected=tuple(expected_formulas(elements)) if len(elements) > 1 else elements,
        tried={},
        phases=(),
        force_calls=0,
        cpu_s=0.0,
    )
    formulas = Counter(start.tried) + Counter(t.crystal.formula for t in tried)
    result = start.model_copy(
        update={
            "made_by": made_by,
            "tried": dict(sorted(formulas.items())),
            "phases": tuple(lowest([*start.phases, *found]) if earlier else found),
            "force_calls": start.force_calls + cache.force_calls,
            "cpu_s": round(start.cpu_s + cache.cpu_s, 2),
        }
    )
    write_whole(path, sealed(result.model_dump_json()))
    return result


def stored_result(path: Path, made_by: str | None = None) -> SystemResult | None:
    """A stored result; None where there is none that is sound, or it was made otherwise."""
    try:
        result = SystemResult.model_validate_json(unsealed(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        log.warning("%s is not used (%s); the system is computed again", path, reason)
        return None
    return result if made_by in (None, result.made_by) else None


def result_key(
    potential: str, formulas: Sequence[str], structures: Sequence[tuple[str, Crystal]]
) -> str:
    """A hash of everything that decides a system's result."""
    types = [p.prototype_id for p in (*prototype_library(), *encyclopedia_types())]
    types += nano_table().by_id
    parts = [RECIPE, potential, types, sorted(formulas), [c.content_id for _, c in structures]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def found_phase(trial: Trial) -> FoundPhase:
    """A converged trial as a phase, with how it was relaxed."""
    relaxation = trial.relaxation
    assert relaxation is not None
    return FoundPhase(
        phase=as_phase(trial),
        rattle_a=relaxation.protocol.rattle_a,
        residual_force_ev_per_a=relaxation.residual_force_ev_per_a,
        residual_stress_gpa=relaxation.residual_stress_gpa,
        steps=relaxation.steps,
        force_calls=relaxation.force_calls,
        space_group=relaxation.space_group_loose,
    )


def results_of_build(stem: Path, card: PotentialCard) -> dict[tuple[str, ...], SystemResult]:
    """The results of an earlier build by system.

    Raises InputError where another potential or recipe made it.
    """
    source = read_built(stem.parent, stem.name).source
    assert isinstance(source, BuiltPhases)
    manifest = source.manifest
    if manifest.potential_sha256 != card.weights_sha256 or manifest.recipe != RECIPE:
        raise InputError(
            f"{stem} was built with {manifest.potential} by recipe {manifest.recipe}, this build "
            f"uses {card.name} and recipe {RECIPE}: build it anew without --extend"
        )
    found: dict[str, list[FoundPhase]] = defaultdict(list)
    phases = {p.phase_id: p for p in source.within(source.elements)}
    for row in source.rows:
        facts = {key: row[key] for key in FoundPhase.model_fields if key != "phase"}
        found[row["chemsys"]].append(FoundPhase(phase=phases[row["phase_id"]], **facts))
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


def with_earlier(result: SystemResult, earlier: SystemResult | None) -> SystemResult:
    """A result and what an earlier build found in the system, the lowest of each formula kept."""
    if earlier is None:
        return result
    return result.model_copy(update={"phases": tuple(lowest([*earlier.phases, *result.phases]))})


def lowest(found: Iterable[FoundPhase]) -> list[FoundPhase]:
    """The lowest phases of each formula, without repeats of one energy."""
    groups: dict[str, list[FoundPhase]] = defaultdict(list)
    for one in sorted(found, key=lambda f: (f.phase.formula, f.phase.energy_ev_per_atom)):
        kept = groups[one.phase.formula]
        last = kept[-1].phase.energy_ev_per_atom if kept else float("-inf")
        if len(kept) < KEPT and one.phase.energy_ev_per_atom - last > SAME_EV_PER_ATOM:
            kept.append(one)
    return [one for kept in groups.values() for one in kept]
