"""Energies and force calls of the default optimizer beside FIRE, on structures it was not tuned on.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
        python -W ignore tests/benchmarks/holdout.py GENERATED.parquet WORKLOAD.jsonl [--skip N]

GENERATED holds crystals that a language model wrote; WORKLOAD is the tuning set, whose formulas are
left out. The valid ones of at most 20 atoms are shuffled by a fixed seed; `--skip` starts further
down, so that two samples share no structure. FIRE stands for the peer: `bench_relax.py` shows that
it takes the peer's steps one by one. Prints one JSON document; `--out` keeps every relaxation.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import options, workload

SEED, MAX_ATOMS = 2026, 20
FMAX_EV_PER_A, MAX_STEPS = 0.1, 500
SAME_MEV_PER_ATOM = 1.0
CHUNK = 20  # structures relaxed by each optimizer before the next takes its turn


def fresh(table: Path, tuned_on: Path) -> Iterator[tuple[str, Any]]:
    """(source, crystal) of the valid ones, shuffled, without the formulas of the workload."""
    from pymatgen.core import Composition

    from hullward.models.crystal import Crystal
    from hullward.models.potential import potential_card
    from hullward.tools.crystal.files import parse_raw, read_inputs
    from hullward.tools.records import Flaw
    from hullward.tools.screening import validate

    used = {structure.composition.reduced_formula for structure in workload(tuned_on)}
    supported = potential_card("chgnet-0.3.0").elements
    rows = list(read_inputs(table))
    random.Random(SEED).shuffle(rows)
    for row in rows:
        crystal = parse_raw(row.raw, row.format)
        if not isinstance(crystal, Crystal):
            continue
        if isinstance(
            validate.check_crystal(crystal, validate.Limits(max_atoms=MAX_ATOMS), supported), Flaw
        ):
            continue
        if Composition(crystal.formula).reduced_formula not in used:
            yield row.source, crystal


def compare(fire: list, other: list) -> dict[str, Any]:
    """One optimizer beside FIRE; a structure it leaves unconverged counts as higher."""
    gap_mev = np.array(
        [
            1e3 * (b.energy_ev_per_atom - a.energy_ev_per_atom)
            if None not in (a.energy_ev_per_atom, b.energy_ev_per_atom)
            else np.nan
            for a, b in zip(fire, other, strict=True)
        ]
    )
    ours = np.array([r.converged for r in other])
    theirs = np.array([r.converged for r in fire])
    lost = ~ours & (theirs | ~(gap_mev <= SAME_MEV_PER_ATOM))
    higher = ours & theirs & (gap_mev > SAME_MEV_PER_ATOM)
    lower = ours & (~theirs | (gap_mev < -SAME_MEV_PER_ATOM))
    worst = sorted(np.flatnonzero(higher), key=lambda i: -gap_mev[i])
    return {
        "not_higher_share": float(1 - (higher | lost).mean()),
        "higher": int(higher.sum()),
        "unconverged_counted_as_higher": int(lost.sum()),
        "lower_share": float(lower.mean()),
        "force_call_ratio": sum(r.force_calls for r in other) / sum(r.force_calls for r in fire),
        "median_gap_mev_per_atom": float(np.nanmedian(gap_mev)),
        "worst": [
            (other[i].candidate_id, other[i].crystal.formula, round(float(gap_mev[i]), 1))
            for i in worst[:12]
        ],
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--optimizers", default="fire,fire-bfgs", help="the first is the measure")
    parser.add_argument("--out", type=Path, help="JSON Lines, one relaxation a line")
    args = parser.parse_args()
    import torch

    from hullward.models.potential import load_potential
    from hullward.tools.records import Protocol
    from hullward.tools.relax import relax_stream

    torch.set_num_threads(1)
    potential = load_potential("chgnet-0.3.0")
    jobs = list(islice(fresh(args.table, args.workload), args.skip, args.skip + args.count))
    names = args.optimizers.split(",")
    done: dict[str, list] = {name: [] for name in names}
    cpu_s = dict.fromkeys(names, 0.0)
    load = os.getloadavg()[0]
    for start in range(0, len(jobs), CHUNK):
        chunk = jobs[start : start + CHUNK]
        for name in names:
            protocol = Protocol(optimizer=name, fmax_ev_per_a=FMAX_EV_PER_A, max_steps=MAX_STEPS)
            started = time.process_time()
            found = {r.candidate_id: r for r in relax_stream(chunk, potential, protocol)}
            cpu_s[name] += time.process_time() - started
            done[name] += [found[source] for source, _ in chunk]
        for name in names[1:]:
            so_far = compare(done[names[0]], done[name])
            shares = {k: so_far[k] for k in ("not_higher_share", "force_call_ratio")}
            print(f"{start + len(chunk)}, {name}: {shares}, CPU s {cpu_s}", file=sys.stderr)
    if args.out:
        lines = (r.model_dump_json() for name in names for r in done[name])
        args.out.write_text("\n".join(lines) + "\n")
    report: dict[str, Any] = {"structures": len(jobs), "load": (load, os.getloadavg()[0])}
    report["cpu_s"] = cpu_s
    for name in names:
        rows = done[name]
        report[name] = {
            "force_calls": sum(r.force_calls for r in rows),
            "unconverged": sum(not r.converged for r in rows),
            "failed": sum(r.failure is not None for r in rows),
        }
        if name != names[0]:
            report[name] |= compare(done[names[0]], rows)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
