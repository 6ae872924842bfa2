"""Wall time on busy cores: two workers of one thread beside chgnet with its default threads.

    python tests/benchmarks/bench_busy.py WORKLOAD.jsonl [--structures 6]

An endless loop for each core runs beside it, so every core is wanted twice. Waiting for threads
that spin is part of what is measured; each side runs in fresh processes. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import options

FMAX_EV_PER_A, MAX_STEPS = 0.1, 60

PEER = """
import contextlib, io, json, sys, time, warnings
warnings.simplefilter("ignore")
from chgnet.model import StructOptimizer
from pymatgen.core import Structure
lines = open(sys.argv[1]).read().splitlines()[: int(sys.argv[2])]
structures = [Structure.from_dict(json.loads(x)["structure"]) for x in lines]
with contextlib.redirect_stdout(io.StringIO()):
    optimizer = StructOptimizer(use_device="cpu")
started = time.perf_counter()
for s in structures:
    optimizer.relax(s, fmax=float(sys.argv[3]), steps=int(sys.argv[4]), verbose=False)
print(time.perf_counter() - started)
"""

OURS = """
import json, sys, time
from pymatgen.core import Structure
from hullward.models.crystal import Crystal
from hullward.tools.relax import relax_many
from hullward.tools.records import Protocol
lines = open(sys.argv[1]).read().splitlines()[: int(sys.argv[2])]
jobs = [
    (str(i), Crystal.from_structure(Structure.from_dict(json.loads(x)["structure"])))
    for i, x in enumerate(lines)
]
protocol = Protocol(fmax_ev_per_a=float(sys.argv[3]), max_steps=int(sys.argv[4]))
stream = relax_many(jobs, "chgnet-0.3.0", protocol, workers=2)
started = time.perf_counter()
done = list(stream)  # includes the workers' start, as a user waits for it
print(time.perf_counter() - started)
"""

CASES = {"peer_default_threads": PEER, "two_workers": OURS}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--structures", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the loops are ended too
    numbers = [str(args.structures), str(FMAX_EV_PER_A), str(MAX_STEPS)]
    cores = len(os.sched_getaffinity(0))
    threads = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    times: dict[str, list[float]] = {name: [] for name in CASES}
    try:
        time.sleep(1)
        for _ in range(args.rounds):
            for name, code in CASES.items():
                out = subprocess.run(
                    [sys.executable, "-c", code, str(args.workload), *numbers],
                    capture_output=True,
                    check=True,
                    env=threads,
                )
                times[name].append(float(out.stdout.split()[-1]))
    finally:
        for process in load:
            process.kill()
            process.wait()
    best = {name: min(t) for name, t in times.items()}
    found = {"cores": cores, "structures": args.structures, "wall_s": times}
    ratio = best["peer_default_threads"] / best["two_workers"]
    print(json.dumps(found | {"ratio": ratio, "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
