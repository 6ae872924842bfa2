"""Structures relaxed an hour on one device, beside chgnet's own relaxation on the same device.

    python tests/benchmarks/bench_gpu.py WORKLOAD.jsonl --device cuda:0 [--in-flight N] [--peer N]

WORKLOAD holds one {"structure": pymatgen's dictionary} a line; it is repeated until `--in-flight`
structures are relaxed at once. The peer relaxes the first `--peer` of them one after another, as a
user of chgnet would. Both sides use the same force limit and steps. The energies of the device are
compared with those of the CPU. Prints one JSON document.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from common import options, workload

FMAX_EV_PER_A, MAX_STEPS = 0.1, 500


def ours(crystals: list, potential: Any) -> tuple[float, list]:
    """(wall seconds, relaxations in the order given)."""
    from hullward.tools.records import Protocol
    from hullward.tools.relax import relax_stream

    protocol = Protocol(fmax_ev_per_a=FMAX_EV_PER_A, max_steps=MAX_STEPS)
    jobs = [(str(i), crystal) for i, crystal in enumerate(crystals)]
    started = time.perf_counter()
    found = {r.candidate_id: r for r in relax_stream(jobs, potential, protocol)}
    return time.perf_counter() - started, [found[name] for name, _ in jobs]


def peer(structures: list, device: str) -> tuple[float, list[float]]:
    """(wall seconds, eV/atom of each)."""
    from chgnet.model import CHGNet, StructOptimizer

    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = StructOptimizer(
            model=CHGNet.load(verbose=False, use_device=device), use_device=device
        )
    energies = []
    started = time.perf_counter()
    for structure in structures:
        out = optimizer.relax(structure, fmax=FMAX_EV_PER_A, steps=MAX_STEPS, verbose=False)
        energies.append(float(out["trajectory"].energies[-1]) / len(structure))
    return time.perf_counter() - started, energies


def energies(crystals: list, potential: Any) -> np.ndarray:
    """(n,) eV/atom."""
    return np.array([e.energy_ev_per_atom for e in potential.evaluate(crystals)])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--peer", type=int, default=32)
    args = parser.parse_args()
    from hullward.models.crystal import Crystal
    from hullward.models.devices import torch_devices
    from hullward.models.potential import load_potential

    warnings.simplefilter("ignore")
    (device, *_) = torch_devices(args.device)
    structures = list(islice(cycle(workload(args.workload)), args.in_flight))
    crystals = [Crystal.from_structure(structure) for structure in structures]
    potential = load_potential("chgnet-0.3.0", device)
    potential.evaluate(crystals[:8])  # starts the device
    seconds, relaxed = ours(crystals, potential)
    peer_seconds, theirs = peer(structures[: args.peer], device)
    here = energies(crystals[: args.peer], potential)
    exact = np.abs(here - energies(crystals[: args.peer], load_potential("chgnet-0.3.0")))
    gaps_mev = [
        1e3 * abs(own.energy_ev_per_atom - other)
        for own, other in zip(relaxed, theirs, strict=False)
        if own.energy_ev_per_atom is not None
    ]
    rate, peer_rate = 3600 * len(crystals) / seconds, 3600 * args.peer / peer_seconds
    report = {
        "device": device,
        "in_flight": len(crystals),
        "structures_per_hour": rate,
        "peer_structures_per_hour": peer_rate,
        "ratio": rate / peer_rate,
        "unconverged": sum(not r.converged for r in relaxed),
        "median_abs_gap_to_peer_mev_per_atom": float(np.median(gaps_mev)) if gaps_mev else None,
        "largest_difference_from_cpu_ev_per_atom": float(exact.max()),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
