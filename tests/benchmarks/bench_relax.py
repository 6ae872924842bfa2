"""CPU time and agreement of our relaxation beside chgnet's own, in one process and one run.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
        python tests/benchmarks/bench_relax.py WORKLOAD.jsonl [--parts PART,…]

WORKLOAD holds one {"structure": pymatgen's dictionary} a line. Times are CPU seconds of this
process (`time.process_time`), the cases interleaved so that a busy machine slows all equally; the
peer is chgnet as a user would call it, with one thread. Prints one JSON document.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import cpu_s, options, workload

FMAX_EV_PER_A, MAX_STEPS = 0.1, 500
OPTIMISERS = ("fire", "fire-bfgs", "bfgs")
CHUNK = 16  # structures relaxed by each side before the other takes its turn
CHGNET = "hullward.models.potential.chgnet"
GPA = 160.21766208


def rounds(cases: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each case, all of them run in turn `repeats` times."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for work in cases.values():
        work()
    for _ in range(repeats):
        for name, work in cases.items():
            times[name].append(cpu_s(work)[0])
    return {name: statistics.median(t) for name, t in times.items()}


def bench_evaluate(structures: list, crystals: list, model: Any, potential: Any) -> dict:
    """One energy, force and stress of 24 structures: ours by 8, the peer one by one."""
    from chgnet.model.dynamics import CHGNetCalculator
    from pymatgen.io.ase import AseAtomsAdaptor

    from hullward.models.potential import CrystalBatch

    with contextlib.redirect_stdout(io.StringIO()):
        calculator = CHGNetCalculator(model=model, use_device="cpu")
    atoms = [AseAtomsAdaptor.get_atoms(s) for s in structures[:24]]
    batches = {
        b: [CrystalBatch.of(crystals[i : i + b]) for i in range(0, 24, b)] for b in (1, 8, 24)
    }
    times = rounds(
        {"peer": lambda: [calculator.calculate(a) for a in atoms]}
        | {
            f"ours_{b}": lambda b=b: [potential.evaluate_batch(batch) for batch in batches[b]]
            for b in batches
        },
        repeats=7,
    )
    worst: dict[str, float] = defaultdict(float)
    over = []
    for start in range(0, len(crystals), 8):
        group = crystals[start : start + 8]
        ours = potential.evaluate_batch(CrystalBatch.of(group))
        for row, crystal in enumerate(group):
            n, theirs = crystal.n_atoms, model.predict_structure(structures[start + row])
            gaps = {
                "energy_ev_per_atom": ours.energies_ev_per_atom[row] - float(theirs["e"]),
                "forces_ev_per_a": ours.forces_ev_per_a[row, :n] - theirs["f"],
                "stress_gpa": ours.stresses_ev_per_a3[row] * GPA - theirs["s"],
                "magmoms_mu_b": ours.magmoms_mu_b[row, :n] - theirs["m"],
            }
            for name, gap in gaps.items():
                worst[name] = max(worst[name], float(np.abs(gap).max()))
            if np.abs(gaps["forces_ev_per_a"]).max() > 1e-3:
                over.append((crystal.formula, float(np.abs(theirs["f"]).max())))
    return {
        "ms_per_structure": {name: 1e3 * t / 24 for name, t in times.items()},
        "ratio_at_8": times["peer"] / times["ours_8"],
        "largest_difference": dict(worst),
        "forces_over_1e-3 (formula, largest force)": over,
    }


def bench_precision(structures: list, crystals: list, potential: Any) -> dict:
    """Largest force differences from the published network run in float64, ours and its own."""
    import torch
    from chgnet.graph import converter
    from chgnet.model import CHGNet, model

    def forces(network: Any) -> list[np.ndarray]:
        return [network.predict_structure(s)["f"] for s in structures]

    with contextlib.redirect_stdout(io.StringIO()):
        network = CHGNet.load(verbose=False, use_device="cpu")
    single = forces(network)
    network.double().composition_model.float()
    with (
        patch.object(converter, "TORCH_DTYPE", torch.float64),
        patch.object(model, "TORCH_DTYPE", torch.float64),
    ):
        double = forces(network)
    ours = [e.forces_ev_per_a for e in potential.evaluate(crystals)]

    def largest(a: list, b: list) -> float:
        return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))

    return {
        "ours_from_float64": largest(ours, double),
        "published_from_float64": largest(single, double),
        "ours_from_published": largest(ours, single),
    }


def bench_graph(structures: list, crystals: list, model: Any) -> dict:
    """Graphs of 24 structures, by 8; edges and angles compared as sets."""
    from hullward.models.potential import CrystalBatch
    from hullward.models.potential.chgnet_graph import crystal_graph

    batches = [CrystalBatch.of(crystals[i : i + 8]) for i in range(0, 24, 8)]
    times = rounds(
        {
            "peer": lambda: [model.graph_converter(s) for s in structures[:24]],
            "ours": lambda: [crystal_graph(b) for b in batches],
        },
        repeats=7,
    )
    same = sum(
        graph_sets_peer(model.graph_converter(s))
        == graph_sets(crystal_graph(CrystalBatch.of([c])), s)
        for s, c in zip(structures, crystals, strict=True)
    )
    return {
        "ms_per_structure": {name: 1e3 * t / 24 for name, t in times.items()},
        "ratio": times["peer"] / times["ours"],
        "equal_edge_and_angle_sets": f"{same} of {len(crystals)}",
    }


def graph_sets_peer(graph: Any) -> tuple[Counter, Counter]:
    """Directed edges (from, to, image) and angles (corner, edge, edge) of the published graph."""
    edges = [
        (int(i), int(j), *map(round, image.tolist()))
        for (i, j), image in zip(graph.atom_graph.tolist(), graph.neighbor_image, strict=True)
    ]
    angles = [(a[0], edges[a[2]], edges[a[4]]) for a in graph.bond_graph.tolist()]
    return Counter(edges), Counter(angles)


def graph_sets(graph: Any, structure: Any) -> tuple[Counter, Counter]:
    """The same of ours, images read back from the bond vectors."""
    frac = structure.frac_coords
    away = graph.vectors_a @ np.linalg.inv(structure.lattice.matrix)
    image = np.rint(away - frac[graph.second] + frac[graph.first]).astype(int)
    there = list(zip(graph.first.tolist(), graph.second.tolist(), *image.T.tolist(), strict=True))
    back = [(j, i, -x, -y, -z) for i, j, x, y, z in there]
    edges = there + back
    angles = []
    for corner, (one, two) in zip(graph.corner.tolist(), graph.arms.tolist(), strict=True):
        angles += [(corner, edges[one], edges[two]), (corner, edges[two], edges[one])]
    return Counter(edges), Counter(angles)


def bench_kernels(structures: list, crystals: list, model: Any, potential: Any) -> dict:
    """Operations dispatched in one evaluation; views excepted, as no kernel runs for them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from hullward.models.potential import CrystalBatch

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            self.calls += not func.is_view
            return func(*args, **(kwargs or {}))

    found = {}
    for b in (1, 32):
        with Count() as count:
            potential.evaluate_batch(CrystalBatch.of(crystals[:b]))
        found[f"ours_{b}"] = count.calls
        graphs = [model.graph_converter(s) for s in structures[:b]]
        with Count() as count:
            model.predict_graph(graphs, task="efsm", batch_size=b)
        found[f"peer_{b}"] = count.calls
    return found | {
        "ours_32_over_ours_1": found["ours_32"] / found["ours_1"],
        "ours_32_over_peer_32": found["ours_32"] / found["peer_32"],
    }


def bench_relax(structures: list, crystals: list, model: Any, potential: Any) -> dict:
    """Every structure relaxed by the peer and by our optimizers, chunk by chunk."""
    from chgnet.model import StructOptimizer

    from hullward.tools.records import Protocol
    from hullward.tools.relax import relax_stream
    from hullward.tools.relax.state import Guards

    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = StructOptimizer(model=model, use_device="cpu")
    # the peer has no guards: neither have we here, so that both do the same work
    open_gates = Guards(
        min_volume_ratio=1e-3,
        max_volume_ratio=1e3,
        min_distance_a=0,
        max_energy_drop_ev_per_atom=1e9,
    )

    def peer(start: int) -> list[tuple[float, int, bool]]:
        done = []
        for s in structures[start : start + CHUNK]:
            out = optimizer.relax(s, fmax=FMAX_EV_PER_A, steps=MAX_STEPS, verbose=False)
            path = out["trajectory"]
            # the observer writes the last step twice
            calls = len(path.energies) - 1
            done.append((float(path.energies[-1]) / len(s), calls, calls <= MAX_STEPS))
        return done

    def ours(name: Any, start: int) -> list[tuple[float | None, int, bool]]:
        protocol = Protocol(optimizer=name, fmax_ev_per_a=FMAX_EV_PER_A, max_steps=MAX_STEPS)
        jobs = [(str(i), c) for i, c in enumerate(crystals[start : start + CHUNK])]
        found = {r.candidate_id: r for r in relax_stream(jobs, potential, protocol, open_gates)}
        return [
            (r.energy_ev_per_atom, r.force_calls, r.converged) for r in (found[i] for i, _ in jobs)
        ]

    cases: dict[str, Callable[[int], list]] = {"peer": peer}
    cases |= {name: partial(ours, name) for name in OPTIMISERS}
    seconds: dict[str, float] = defaultdict(float)
    results: dict[str, list] = {name: [] for name in cases}
    for start in range(0, len(crystals), CHUNK):
        for name, case in cases.items():
            spent, done = cpu_s(partial(case, start))
            seconds[name] += spent
            results[name] += done
        print(f"{start + CHUNK} done, CPU s {dict(seconds)}", file=sys.stderr, flush=True)
    energy = {name: np.array([r[0] for r in rows]) for name, rows in results.items()}
    calls = {name: sum(r[1] for r in rows) for name, rows in results.items()}
    report: dict[str, Any] = {
        "structures": len(crystals),
        "cpu_s": dict(seconds),
        "force_calls": calls,
        "unconverged": {name: sum(not r[2] for r in rows) for name, rows in results.items()},
    }
    for name in OPTIMISERS:
        gap_mev = 1e3 * (energy[name] - energy["peer"])
        report[name] = {
            "throughput_ratio": seconds["peer"] / seconds[name],
            "structures_per_cpu_hour": 3600 * len(crystals) / seconds[name],
            "force_call_ratio": calls[name] / calls["peer"],
            "median_abs_gap_mev_per_atom": float(np.median(np.abs(gap_mev))),
            "share_within_1_mev": float((np.abs(gap_mev) <= 1).mean()),
            "share_not_higher_by_1_mev": float((gap_mev <= 1).mean()),
            "share_lower_by_1_mev": float((gap_mev < -1).mean()),
            "same_force_calls": sum(
                a[1] == b[1] for a, b in zip(results[name], results["peer"], strict=True)
            ),
        }
    return report


def bench_shares(crystals: list, potential: Any) -> dict:
    """Where the CPU seconds of a run go, from parsed crystal to finished record."""
    from hullward.models.potential.chgnet_graph import crystal_graph
    from hullward.tools.records import Protocol
    from hullward.tools.relax import stream
    from hullward.tools.relax.fire import Fire
    from hullward.tools.relax.trust_region import TrustRegionBfgs

    shares: dict[str, dict[str, float]] = {}
    names: tuple[Any, ...] = OPTIMISERS
    for name in names:
        spent: dict[str, float] = defaultdict(float)

        def timed(stage: str, work: Callable, spent: dict[str, float] = spent) -> Callable:
            def run(*args: Any, **kwargs: Any) -> Any:
                seconds, result = cpu_s(partial(work, *args, **kwargs))
                spent[stage] += seconds
                return result

            return run

        protocol = Protocol(optimizer=name, fmax_ev_per_a=FMAX_EV_PER_A, max_steps=MAX_STEPS)
        jobs = [(str(i), c) for i, c in enumerate(crystals)]
        with (
            patch(f"{CHGNET}.crystal_graph", timed("graph", crystal_graph)),
            patch.object(potential, "_run", timed("network", potential._run)),
            patch.object(Fire, "step", timed("optimizer", Fire.step)),
            patch.object(TrustRegionBfgs, "step", timed("optimizer", TrustRegionBfgs.step)),
            patch.object(stream, "relaxation_record", timed("record", stream.relaxation_record)),
        ):
            total, _ = cpu_s(partial(list, stream.relax_stream(jobs, potential, protocol)))
        spent["rest"] = total - sum(spent.values())
        shares[name] = {stage: s / total for stage, s in spent.items()}
        shares[name]["not the network"] = 1 - shares[name]["network"]
    return shares


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--parts", default="evaluate,precision,graph,kernels,shares,relax")
    args = parser.parse_args()
    import torch
    from chgnet.model import CHGNet

    from hullward.models.crystal import Crystal
    from hullward.models.potential import load_potential

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    structures = workload(args.workload)
    crystals = [Crystal.from_structure(s) for s in structures]
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.load(verbose=False, use_device="cpu")
    potential = load_potential("chgnet-0.3.0")
    parts: dict[str, Callable[[], dict]] = {
        "evaluate": lambda: bench_evaluate(structures, crystals, model, potential),
        "precision": lambda: bench_precision(structures, crystals, potential),
        "graph": lambda: bench_graph(structures, crystals, model),
        "kernels": lambda: bench_kernels(structures, crystals, model, potential),
        "shares": lambda: bench_shares(crystals[:24], potential),
        "relax": lambda: bench_relax(structures, crystals, model, potential),
    }
    found: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    for name in args.parts.split(","):
        found[name] = parts[name]()
    found["load_after"] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
