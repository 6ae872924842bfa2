"""Build a reference for whole chemical systems with the project's own recipe.

`python -m hullward.tools.reference.recipe` runs it. Systems are worked on in parallel, smaller ones
first. Every finished computation is appended to a file in OUT.work, so that the same call continues
after a stop. `extend` takes over the systems of an earlier build.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import combinations, cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, RunInterruptedError
from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.models.potential import potential_card
from hullward.tools.crystal import is_alloy
from hullward.tools.hull import split_chemsys
from hullward.tools.prototypes import require_encyclopedia
from hullward.tools.reference.recipe.assembly import assemble
from hullward.tools.reference.recipe.system_results import (
    SystemResult,
    build_system,
    results_of_build,
    stored_result,
    with_earlier,
)
from hullward.tools.reference.sources import Manifest, read_manifest
from hullward.tools.relax import Executor, one_thread_each

log = logging.getLogger(__name__)

Parts = list[tuple[str, ...]]
Job = tuple[Any, ...]  # arguments of `build_system`, but for the device
ONE_PROCESS = Executor(workers=1)


def build_systems(
    systems: Sequence[str],
    out: Path,
    potential: str = "chgnet-0.3.0",
    executor: Executor = ONE_PROCESS,
    formulas: Iterable[str] = (),
    structures: Sequence[tuple[str, Crystal]] = (),
    extend: Path | None = None,
    redo: Sequence[str] = (),
    add: Sequence[str] = (),
) -> Manifest:
    """Relax the systems with all their subsystems and write OUT.parquet and OUT.json.

    executor: its cache is not used.  formulas: to try besides those of the rule.
    structures: (name, crystal) to try besides the types.  extend: OUT of an earlier build; its
    systems are kept, except that those of new `structures` or named in `redo` are computed again,
    and of these the lowest phases of both builds stay.  add: systems of that build to which only
    the types that nano wrote are added.
    Raises InputError for an element the potential does not support or a formula that is none,
    PreflightError where the structure types or the potential are missing, and RunInterruptedError
    where a worker was killed.
    """
    types = require_encyclopedia()
    card = potential_card(potential)
    parts = _with_subsystems([*systems, *redo, *add])
    if unknown := {el for part in parts for el in part} - card.elements:
        raise InputError(f"{potential} does not support {', '.join(sorted(unknown))}")
    by_system = _by_system(formulas)
    work = out.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    results = results_of_build(extend, card) if extend is not None else {}
    reviewed = _reviewed(extend, results)
    given = {tuple(sorted(set(crystal.species))) for _, crystal in structures}
    anew = given.intersection(parts) | {tuple(sorted(split_chemsys(system))) for system in redo}
    replaced = {part: results.pop(part) for part in anew & results.keys()}
    adding = {tuple(sorted(split_chemsys(system))) for system in add}
    if strange := sorted("-".join(part) for part in adding - results.keys()):
        raise InputError(f"nothing to add to: {', '.join(strange)} not in {extend}")
    earlier = {part: results.pop(part) for part in adding}
    for size in range(1, 1 + max(map(len, parts))):
        todo = [part for part in parts if len(part) == size and part not in results]
        jobs: list[Job] = []
        for part in todo:
            named = by_system.get(frozenset(part), ())
            below = {sub: r for sub, r in results.items() if set(sub) < set(part)}
            own = [(n, c) for n, c in structures if frozenset(c.species) == frozenset(part)]
            jobs.append((potential, work, part, named, own, below, earlier.get(part)))
        for done, result in enumerate(_each(jobs, executor, potential), start=1):
            results[result.elements] = with_earlier(result, replaced.get(result.elements))
            _log_result(result, done, len(todo))
    expected = {formula for found in by_system.values() for formula in found}
    return assemble(results, out, card, types, expected | reviewed)


def _log_result(result: SystemResult, done: int, of_size: int) -> None:
    log.info(
        "%s: %d structures of %d formulas, %d phases, %.0f CPU s (%d of %d of its size)",
        result.system,
        sum(result.tried.values()),
        len(result.tried),
        len(result.phases),
        result.cpu_s,
        done,
        of_size,
    )


def build_stored(
    out: Path,
    potential: str = "chgnet-0.3.0",
    formulas: Iterable[str] = (),
    extend: Path | None = None,
) -> Manifest:
    """Write OUT from the systems that are finished in OUT.work, though others are missing."""
    card = potential_card(potential)
    results = results_of_build(extend, card) if extend is not None else {}
    named = {f for found in _by_system(formulas).values() for f in found}
    named |= _reviewed(extend, results)
    for path in sorted(out.with_suffix(".work").glob("*.result.json")):
        if (result := stored_result(path)) is not None:
            results[result.elements] = with_earlier(result, results.get(result.elements))
    return assemble(results, out, card, require_encyclopedia(), named)


def _reviewed(extend: Path | None, results: Mapping[tuple[str, ...], SystemResult]) -> set[str]:
    """Formulas of an earlier build that it did not list as deep."""
    if extend is None:
        return set()
    deep = read_manifest(extend.with_suffix(".json")).deep
    return {f.phase.formula for r in results.values() for f in r.phases} - deep.keys()


def _with_subsystems(systems: Sequence[str]) -> Parts:
    """The systems and their subsystems, smallest first.

    Alloys inside a system that has an anion are left out: see `BuiltPhases.coverage`.
    """
    wanted = [tuple(sorted(split_chemsys(system))) for system in systems]
    found = {
        part
        for elements in wanted
        for size in range(1, len(elements) + 1)
        for part in combinations(elements, size)
        if size == 1 or is_alloy(elements) or not is_alloy(part)
    }
    return sorted(found, key=lambda part: (len(part), part))


def _by_system(formulas: Iterable[str]) -> Mapping[frozenset[str], list[str]]:
    found: dict[frozenset[str], list[str]] = {}
    for formula in dict.fromkeys(formulas):
        amounts = formula_amounts(formula)
        found.setdefault(frozenset(amounts), []).append(reduced_spelling(amounts))
    return found


def _each(jobs: Sequence[Job], executor: Executor, potential: str) -> Iterator[SystemResult]:
    devices = executor.devices(potential)
    if executor.in_this_process:
        for job in jobs:
            yield build_system(*(*job, devices[0]))
        return
    workers = executor.processes(potential)
    with (
        one_thread_each(),
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        futures = [
            pool.submit(build_system, *(*job, device))
            for job, device in zip(jobs, cycle(devices), strict=False)
        ]
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                raise RunInterruptedError(
                    "a worker of the build was killed, perhaps because memory ran out; the same "
                    "command with fewer --workers goes on where it was"
                ) from None


def log_progress() -> None:
    """Print the progress of a build on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
