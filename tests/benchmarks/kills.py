"""What `kill -9` at random moments costs: lines lost, torn or doubled, and orphans after 10 s.

    python tests/benchmarks/kills.py --adds 400 --campaigns 100 --seed 1 --home FOLDER

Kills drivers that add and publish, and toy campaigns with workers of their own, which are resumed
until they end. Every table is compared with that of an undisturbed campaign, and with the one that
`rebuild` gives. Prints one JSON document; exit status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from hullward.tools.store import TABLES, Store, open_snapshot, rebuild

SETTINGS = {
    "name": "kills",
    "systems": ["Li-Mn-O"],
    "min_elements": 2,
    "max_atoms": 10,
    "oxidation_states": {"Li": [1], "Mn": [2, 3, 4], "O": [-2]},
    "potential": "toy",
    "reference": "embedded",
    "protocol": {"fmax_ev_per_a": 0.1, "max_steps": 100},
    "operators": ["perturbation", "swap"],
    "budget": {"cycles": 3, "proposals_per_cycle": 9},
    "seed": 3,
}
REFERENCE = {
    "Li": (3.4, ["Li", "Li"]),
    "Mn": (2.9, ["Mn", "Mn"]),
    "O": (3.0, ["O", "O"]),
    "MnO": (2.6, ["Mn", "O"]),
    "LiO": (2.6, ["Li", "O"]),
}
# Imports everything once and forks a driver for each line `KIND DIRECTORY NUMBER WORKERS`.
NURSERY = """
import json, os, sys
from pathlib import Path
from hullward.agents.campaign import graph, run
from hullward.agents.settings import Campaign, parse_settings
from hullward.tools.records import Proposal
from hullward.tools.store import Store
settings = json.loads(sys.argv[1])
def tell(text):
    os.write(1, (text + chr(10)).encode())
def adds(directory, number):
    with Store.open(directory, command="test", create=True) as store:
        tell("open")
        for n in range(number, number + 10_000, 3):
            store.add(
                Proposal(proposal_id=f"q-{k}", request_id="r", campaign_id="k", cycle=0, index=k,
                         operator="swap", seed=k, raw="text " * 40, format="cif")
                for k in range(n, n + 3)
            )
            tell(f"{n} {n + 1} {n + 2}")
            if n % 10 == 0:
                store.publish()
for line in sys.stdin:
    kind, directory, number, workers = line.split()
    if not (child := os.fork()):
        try:
            if kind == "adds":
                adds(Path(directory), int(number))
            else:
                campaign = parse_settings(Campaign, settings, "kills")
                run(Path(directory), campaign, workers=int(workers))
        except BaseException as error:
            tell(f"failed {type(error).__name__}: {error}".replace(chr(10), " "))
            os._exit(1)
        os._exit(0)
    tell(f"pid {child}")
    _, status = os.waitpid(child, 0)
    tell(f"dead {status}")
"""
TABLE = """SELECT cycle, operator, proposal_id, candidate_id, parents, state, formula, label,
    round(energy_ev_per_atom, 4), round(e_above_union_ev_per_atom, 4)
    FROM results ORDER BY cycle, proposal_id"""


def write_reference(path: Path) -> None:
    from hullward.models.crystal import Crystal
    from hullward.models.potential import load_potential
    from hullward.tools.records import Protocol
    from hullward.tools.relax.stream import relax_one

    potential, lines = load_potential("toy"), []
    for name, (a, species) in REFERENCE.items():
        sites = [[0.0] * 3, [0.5] * 3]
        crystal = Crystal.from_parameters((a,) * 3, (90,) * 3, species, sites)
        done = relax_one(name, crystal, potential, Protocol(max_steps=2000))
        assert done.crystal is not None
        entry = {
            "entry_id": name,
            "composition": done.crystal.amounts,
            "energy": (done.energy_ev_per_atom or 0.0) * crystal.n_atoms,
            "correction": 0.0,
            "structure": done.crystal.to_structure().as_dict(),
        }
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines) + "\n")
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    path.with_name("toy.reference.json").write_text(json.dumps(sidecar))


class Nursery:
    """A process that forks drivers, so that each dies and the imports do not."""

    def __init__(self, settings: dict[str, object], home: Path) -> None:
        self.mark = f"kills-{os.getpid()}-{time.time_ns()}"
        environment = os.environ | {"HULLWARD_HOME": str(home), "KILLS_MARK": self.mark}
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.failures: list[str] = []

    def run(self, order: str, moment: str, delay_s: float) -> tuple[bool, list[str]]:
        """Run a driver and kill it some time after a moment; (killed, acknowledged words)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        words: list[str] = []
        killer: threading.Timer | None = None
        child, begun = 0, False
        for line in self._process.stdout:
            first, *rest = line.split()
            if first == "dead":
                if killer is not None:
                    killer.cancel()
                return int(rest[0]) == signal.SIGKILL, words
            if first == "failed":
                self.failures.append(line.strip())
            child = int(rest[0]) if first == "pid" else child
            begun = begun or first == moment
            if first.isdecimal():
                words += [first, *rest]
            if child and begun and killer is None:
                killer = threading.Timer(delay_s, _kill, (child,))
                killer.start()
        raise RuntimeError("the nursery ended")

    def relatives(self) -> list[int]:
        """Living processes that it started, or that those started."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) != self._process.pid:
                try:
                    content = (folder / "environ").read_bytes()
                    state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
                except OSError:
                    continue
                if f"KILLS_MARK={self.mark}".encode() in content and state != "Z":
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        self._process.communicate()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def tables(directory: Path) -> dict[str, list[str]]:
    with open_snapshot(directory) as source:
        names = [table.name for table in TABLES.values()]
        return {
            name: sorted(map(repr, source.execute(f"FROM {name}").fetchall())) for name in names
        }


def check(directory: Path, counts: Counter[str]) -> None:
    """Count what is torn or doubled in a directory that nobody writes to."""
    with Store.open(directory, command="check") as store:
        counts["repairs noted"] += len(store.notes)
        store.publish()
    before = tables(directory)
    rebuild(directory)
    counts["torn"] += tables(directory) != before
    lines = (directory / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    for kind, table in TABLES.items():
        if not table.latest:
            keys = [
                tuple(str(e["data"][k]) for k in table.key) for e in entries if e["kind"] == kind
            ]
            counts["doubled"] += len(keys) - len(set(keys))


def kill_adds(nursery: Nursery, home: Path, kills: int, rng: random.Random) -> Counter[str]:
    counts: Counter[str] = Counter()
    directory, acknowledged = home / "adds", []
    if not kills:
        return counts
    for n in range(kills):
        moment = "pid" if n % 3 == 1 else "open"  # some die while opening
        order = f"adds {directory} {n * 10_000} 0"
        killed, words = nursery.run(order, moment, rng.uniform(0, 0.2))
        counts["kills"] += killed
        acknowledged += [f"q-{word}" for word in words]
    check(directory, counts)
    with Store.open(directory, command="check") as store:
        stored = {row["proposal_id"] for row in store.rows("SELECT proposal_id FROM proposals")}
    counts["acknowledged"] = len(acknowledged)
    counts["lost"] = len(set(acknowledged) - stored)
    return counts


def kill_campaigns(nursery: Nursery, home: Path, kills: int, rng: random.Random) -> Counter[str]:
    counts: Counter[str] = Counter()

    def whole(directory: Path) -> list[tuple[object, ...]]:
        nursery.run(f"campaign {directory} 0 2", "pid", 600)
        with open_snapshot(directory) as source:
            return source.execute(TABLE).fetchall()

    if not kills:
        return counts
    started = time.monotonic()
    expected = whole(home / "undisturbed")
    length_s = time.monotonic() - started
    while counts["kills"] < kills:
        directory = home / f"campaign-{counts['campaigns']}"
        shutil.rmtree(home / "home" / "relaxations", ignore_errors=True)
        for _ in range(rng.randrange(4, 12)):
            order = f"campaign {directory} 0 2"
            killed, _ = nursery.run(order, "pid", rng.uniform(0, length_s / 2))
            counts["kills"] += killed
        found = whole(directory)
        counts["campaigns"] += 1
        counts["rows lost"] += max(0, len(expected) - len(found))
        counts["tables that differ"] += found != expected
        check(directory, counts)
        print(dict(counts), file=sys.stderr)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adds", type=int, default=400, help="drivers killed while they add")
    parser.add_argument("--campaigns", type=int, default=100, help="campaigns killed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, required=True, help="an empty folder to work in")
    arguments = parser.parse_args()
    home: Path = arguments.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    write_reference(home / "toy.jsonl")
    settings = SETTINGS | {"reference": f"file:{home / 'toy.jsonl'}"}
    rng = random.Random(arguments.seed)
    nursery = Nursery(settings, home / "home")
    adds = kill_adds(nursery, home, arguments.adds, rng)
    campaigns = kill_campaigns(nursery, home, arguments.campaigns, rng)
    deadline = time.monotonic() + 10
    while nursery.relatives() and time.monotonic() < deadline:
        time.sleep(0.2)
    orphans = nursery.relatives()
    nursery.close()
    document = {
        "adds": adds,
        "campaigns": campaigns,
        "orphans_after_10_s": len(orphans),
        "failures": nursery.failures,
    }
    print(json.dumps(document, indent=1))
    bad = adds["lost"] + adds["torn"] + adds["doubled"] + len(orphans) + len(nursery.failures)
    bad += sum(campaigns[key] for key in ("rows lost", "tables that differ", "torn", "doubled"))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
