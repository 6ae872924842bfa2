"""Build a reference for whole chemical systems with the project's own recipe.

    python -m hullward.tools.build_reference Li-Mn-O Li-Fe-O --out data/reference_embedded

Writes OUT.parquet (phases) and OUT.json (how they were made). Every finished computation is
appended to OUT.partial.jsonl first: run the same command again after a stop and it goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.recipe import (
    FINAL_PROTOCOL,
    RECIPE,
    Bench,
    Trial,
    by_formula,
    candidates,
    expected_formulas,
    finish,
    first_look,
)
from hullward.tools.reference import split_chemsys
from hullward.tools.reference_built import Manifest, SystemTried

log = logging.getLogger(__name__)


def build(systems: Sequence[str], out: Path, potential: str, workers: int) -> Manifest:
    """Relax the systems with all their subsystems and write OUT.parquet and OUT.json.

    Raises InputError for an element the potential does not support.
    """
    wanted = [tuple(sorted(split_chemsys(system))) for system in systems]
    bench = Bench(potential, out.with_suffix(".partial.jsonl"), workers)
    if unknown := {el for elements in wanted for el in elements} - bench.card.elements:
        raise InputError(f"{potential} does not support {', '.join(sorted(unknown))}")
    parts = sorted(
        {p for els in wanted for n in range(1, len(els) + 1) for p in combinations(els, n)},
        key=lambda part: (len(part), part),
    )
    tried: Counter[str] = Counter()
    coarse: dict[tuple[str, ...], list[Trial]] = {}
    for part in parts:
        trials = candidates(part)
        tried.update(trial.crystal.formula for trial in trials)
        below = [t for done in coarse if set(done) < set(part) for t in coarse[done]]
        coarse[part] = first_look(bench, trials, below)
        log.info("%s: %d tried, %d coarse", "-".join(part), len(trials), len(coarse[part]))
    final: dict[str, Trial] = {}
    for elements in wanted:
        inside = [t for part in parts if set(part) <= set(elements) for t in coarse[part]]
        found = finish(bench, inside)
        final |= {trial.crystal.content_id: trial for trial in found}
        log.info("%s: %d phases, %.0f CPU s so far", "-".join(elements), len(found), bench.cpu_s)
    manifest = _manifest(parts, tried, bench, len(final))
    _write_phases(out.with_suffix(".parquet"), list(final.values()))
    out.with_suffix(".json").write_text(
        json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n",
        encoding="utf-8",
    )
    return manifest


def _manifest(
    parts: Sequence[tuple[str, ...]], tried: Counter[str], bench: Bench, n_phases: int
) -> Manifest:
    systems = {}
    for part in parts:
        if len(part) > 1:
            expected = expected_formulas(part)
            reached = sum(1 for formula in expected if tried[formula])
            systems["-".join(part)] = SystemTried(expected=len(expected), tried=reached)
    names = ", ".join(system for system in systems if system.count("-") > 1) or ", ".join(systems)
    return Manifest(
        recipe=RECIPE,
        statement=(
            f"{n_phases} phases of {names} and their subsystems, elements and known structure "
            f"types relaxed with {bench.name} by recipe {RECIPE}. Covers charge-balanced compounds "
            "of one anion; not alloys, peroxides, metal-rich or high-valent compounds."
        ),
        potential=bench.name,
        potential_sha256=bench.card.weights_sha256,
        energy_scheme=bench.card.energy_scheme,
        protocol=FINAL_PROTOCOL,
        systems=systems,
        tried=dict(sorted(tried.items())),
        force_calls=bench.force_calls,
        cpu_s=round(bench.cpu_s, 1),
    )


def _write_phases(path: Path, trials: Sequence[Trial]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for formula, group in sorted(by_formula(trials).items()):
        for number, trial in enumerate(group, start=1):
            relaxation, crystal = trial.relaxation, trial.crystal
            assert relaxation is not None
            rows.append(
                {
                    "phase_id": f"{formula}#{number}",  # 1 is the lowest
                    "formula": formula,
                    "chemsys": crystal.chemsys,
                    "energy_ev_per_atom": relaxation.energy_ev_per_atom,
                    "prototype": trial.prototype,
                    "rattle_a": relaxation.protocol.rattle_a,
                    "residual_force_ev_per_a": relaxation.residual_force_ev_per_a,
                    "residual_stress_gpa": relaxation.residual_stress_gpa,
                    "steps": relaxation.steps,
                    "force_calls": relaxation.force_calls,
                    "space_group": relaxation.space_group_loose,
                    "lattice": np.round(np.ravel(crystal.lattice), 6).tolist(),
                    "species": " ".join(crystal.species),
                    "frac_coords": np.round(np.ravel(crystal.frac_coords), 6).tolist(),
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help="e.g. Li-Mn-O")
    parser.add_argument("--out", type=Path, required=True, help="path without ending")
    parser.add_argument("--potential", default="chgnet-0.3.0")
    parser.add_argument("--workers", type=int, default=1, help="processes; 0: in this one")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    manifest = build(arguments.systems, arguments.out, arguments.potential, arguments.workers)
    print(manifest.statement)


if __name__ == "__main__":
    main()
