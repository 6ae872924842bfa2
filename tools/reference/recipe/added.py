"""More structure types for a system that was built before: what they give is added to it.

A rebuild would compute everything again. Here only the types that nano wrote are tried, against the
hull of what the system holds, and by the same recipe. A system computed again may miss a phase that
it held, where more types crowd one out or a symmetry breaks otherwise: the lowest of both stay.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hullward.tools.prototypes import PREFIX
from hullward.tools.reference.recipe.low_phases import (
    KEPT,
    SAME_EV_PER_ATOM,
    EnergyCache,
    low_phases,
)
from hullward.tools.reference.recipe.result import (
    Found,
    SystemResult,
    found_of,
    result_key,
    stored_result,
)
from hullward.tools.reference.recipe.trials import trials
from hullward.tools.store import write_whole


def add_types(
    potential: str,
    work: Path,
    elements: tuple[str, ...],
    more_formulas: Sequence[str],
    below: Mapping[tuple[str, ...], SystemResult],
    earlier: SystemResult,
) -> SystemResult:
    """An earlier result with nano's types tried as well, or what was added to it before.

    below: the results of its subsystems.
    """
    path = work / f"{earlier.system}.result.json"
    made_by = f"{result_key(potential, more_formulas, ())}+{PREFIX}"
    stored = stored_result(path)
    if stored is not None and stored.made_by == made_by:
        return stored
    bench = EnergyCache(potential, work / f"{earlier.system}.jsonl")
    tried = [t for t in trials(elements, more_formulas) if t.prototype.startswith(PREFIX)]
    phases = [f.phase for r in (*below.values(), earlier) for f in r.phases]
    found = map(found_of, low_phases(bench, tried, phases))
    structures = Counter(earlier.tried) + Counter(t.crystal.formula for t in tried)
    result = earlier.model_copy(
        update={
            "made_by": made_by,
            "tried": dict(sorted(structures.items())),
            "phases": tuple(lowest([*earlier.phases, *found])),
            "force_calls": earlier.force_calls + bench.force_calls,
            "cpu_s": round(earlier.cpu_s + bench.cpu_s, 2),
        }
    )
    write_whole(path, result.model_dump_json().encode())
    return result


def with_earlier(result: SystemResult, earlier: SystemResult | None) -> SystemResult:
    """A result with what an earlier build found in the system, each formula's lowest kept."""
    if earlier is None:
        return result
    return result.model_copy(update={"phases": tuple(lowest([*earlier.phases, *result.phases]))})


def lowest(found: Iterable[Found]) -> list[Found]:
    """The lowest phases of each formula, without repeats of one energy."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for one in sorted(found, key=lambda f: (f.phase.formula, f.phase.energy_ev_per_atom)):
        kept = groups[one.phase.formula]
        last = kept[-1].phase.energy_ev_per_atom if kept else float("-inf")
        if len(kept) < KEPT and one.phase.energy_ev_per_atom - last > SAME_EV_PER_ATOM:
            kept.append(one)
    return [one for kept in groups.values() for one in kept]
