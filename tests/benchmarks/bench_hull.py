"""CPU time of heights and decompositions over one system, beside pymatgen's PhaseDiagram.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/bench_hull.py [DATA/hull] [--rounds 3]

Ours: `Hull` from phase records, then signed heights and decompositions (phase and share) of every
candidate; and the same as validated records, which a verdict stores. Theirs: `PhaseDiagram` from
entries, then `get_decomp_and_e_above_hull(allow_negative=True)` of each candidate; and, as a second
figure, a new PhaseDiagram for each candidate, measured on a few and extrapolated. CPU seconds
(`time.process_time`) in one process, the two interleaved; setting up records, entries and the
garbage collector is not timed. Answers are compared before anything is printed.

Synthetic systems have integer formulas of up to 12 atoms of an element, and formation energies of
a smooth well plus an exponential excess; `depth` over `excess` sets how many phases are stable.
With a folder of data, all entries of Li-Fe-P-O are measured too.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import cpu_s, options, phase
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from hullward.tools.hull import Hull, HullDistance, Phase
from hullward.tools.reference import load_reference

ELEMENTS = {"Li": -1.9, "Mn": -9.0, "P": -5.4, "O": -4.9}  # eV/atom
SHAPES = {"few stable": (0.3, 0.4), "many stable": (1.0, 0.4), "most stable": (2.0, 0.15)}
REBUILDS = 3


def synthetic(count: int, seed: int, depth: float, excess: float) -> list[Phase]:
    """Compounds of two to four of the elements, eV/atom."""
    rng = np.random.default_rng(seed)
    symbols, zeros = list(ELEMENTS), np.array(list(ELEMENTS.values()))
    found = []
    for number in range(count):
        size = rng.choice([2, 3, 4], p=[0.15, 0.35, 0.5])
        amounts = np.zeros(4)
        amounts[rng.choice(4, size, replace=False)] = rng.integers(1, 13, size)
        x = amounts / amounts.sum()
        formation = -depth * (1 - (x**2).sum()) + rng.exponential(excess)
        content = {el: float(n) for el, n in zip(symbols, amounts, strict=True) if n}
        found.append(phase(f"p{number}", content, float(x @ zeros + formation)))
    return found


def entries_of(phases: Sequence[Phase]) -> list[ComputedEntry]:
    return [
        ComputedEntry(
            Composition(p.composition),
            p.energy_ev_per_atom * sum(p.composition.values()),
            entry_id=p.phase_id,
        )
        for p in phases
    ]


def ours(phases: Sequence[Phase], asked: Sequence[Phase]) -> tuple[Any, list[Any]]:
    hull = Hull(phases)
    fractions = hull.fractions([p.composition for p in asked])
    return hull.heights(fractions, np.array([p.energy_ev_per_atom for p in asked]))


def as_records(phases: Sequence[Phase], asked: Sequence[Phase]) -> list[HullDistance]:
    hull = Hull(phases)
    fractions = hull.fractions([p.composition for p in asked])
    return hull.distances(fractions, np.array([p.energy_ev_per_atom for p in asked]))


def theirs(entries: Sequence[Any], asked: Sequence[Any]) -> list[Any]:
    diagram = PhaseDiagram(entries)
    return [diagram.get_decomp_and_e_above_hull(e, allow_negative=True) for e in asked]


def measure(phases: list[Phase], asked: list[Phase], rounds: int) -> dict[str, float]:
    """CPU seconds, medians over the rounds, and the largest difference in height, eV/atom."""
    entries, candidates = entries_of(phases), entries_of(asked)
    first, second = ours(phases, asked), theirs(entries, candidates)  # also warms both up
    off = max(abs(a - b[1]) for a, b in zip(first[0].tolist(), second, strict=True))
    for mine, (parts, _) in zip(first[1], second, strict=True):
        assert abs(sum(share for _, share in mine) - sum(parts.values())) < 1e-9
    gc.collect()
    gc.freeze()
    a, b, records = [], [], []
    for _ in range(rounds):
        a.append(cpu_s(lambda: ours(phases, asked))[0])
        b.append(cpu_s(lambda: theirs(entries, candidates))[0])
        a.append(cpu_s(lambda: ours(phases, asked))[0])
        records.append(cpu_s(lambda: as_records(phases, asked))[0])
    each = [cpu_s(partial(theirs, entries, [one]))[0] for one in candidates[:REBUILDS]]
    build = statistics.median(cpu_s(lambda: Hull(phases))[0] for _ in range(2 * rounds))
    gc.unfreeze()
    mine, peer = statistics.median(a), statistics.median(b)
    rebuilt = statistics.median(each) * len(candidates)
    hull = Hull(phases)
    return {
        "entries": len(phases),
        "candidates": len(asked),
        "stable": len(hull.stable_phases),
        "ours_s": mine,
        "ours_build_s": build,
        "ours_as_records_s": statistics.median(records),
        "peer_s": peer,
        "ratio": peer / mine,
        "ratio_as_records": peer / statistics.median(records),
        "ratio_lowest": min(b) / max(a),
        "peer_rebuilt_each_time_s": rebuilt,
        "ratio_rebuilt": rebuilt / mine,
        "largest_difference_ev_per_atom": off,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="the real entries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int, default=5_000)
    parser.add_argument("--candidates", type=int, default=1_000)
    arguments = parser.parse_args()
    found = {}
    for name, (depth, excess) in SHAPES.items():
        phases = [phase(f"zero-{el}", {el: 1.0}, zero) for el, zero in ELEMENTS.items()]
        phases += synthetic(arguments.entries - len(phases), 0, depth, excess)
        asked = synthetic(arguments.candidates, 1, depth, excess)
        found[name] = measure(phases, asked, arguments.rounds)
    if arguments.folder:
        path = arguments.folder / "mp_entries_Li-Fe-P-O.jsonl.zst"
        real = list(load_reference(f"file:{path}").phases("Li-Fe-P-O"))
        rng = np.random.default_rng(2)
        asked = [
            real[i].model_copy(
                update={"energy_ev_per_atom": real[i].energy_ev_per_atom + rng.normal(0, 0.05)}
            )
            for i in rng.choice(len(real), arguments.candidates)
        ]
        found["Li-Fe-P-O, real"] = measure(real, asked, arguments.rounds)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
