"""Agreement of heights and decompositions with pymatgen's PhaseDiagram, in every known system.

    python -W ignore tests/benchmarks/hull_exactness_all.py DATA/hull --results FILE

Systems are those of chemsys_index.parquet and of the whole-database table. Every phase of a system
and of its subsystems is compared, as it is and 50 meV/atom lower; both sides take tie-line points
as phases. Systems of the index and of few phases come first. Each finished one is a line of FILE,
so the command goes on after a stop. --summary only prints what FILE holds.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from common import MP2020_HULL, amounts_of, options
from common import phases as made
from hull_exactness import Tally, compare

from hullward.tools.hull import Phase


class Table:
    """Phases of the whole-database table by exact system, made on first use."""

    def __init__(self, folder: Path) -> None:
        import pandas as pd

        table = pd.read_parquet(folder / MP2020_HULL.name)
        rows: dict[frozenset[str], list[tuple[str, float]]] = defaultdict(list)
        energies = table["hull_entry_energy_per_atom"].astype(float)
        for formula, energy in zip(table["formula"], energies, strict=True):
            rows[frozenset(re.findall("[A-Z][a-z]?", formula))].append((formula, energy))
        self._rows = {s: own for s, own in rows.items() if len(s) > 1}
        self._phases: dict[frozenset[str], list[Phase]] = {}
        index = pd.read_parquet(folder / "chemsys_index.parquet")
        self.index = [frozenset(name.split("-")) for name in index["chemsys"]]
        self.more = sorted(self._rows.keys() - set(self.index), key=sorted)

    def parts(self, system: frozenset[str]) -> Iterator[frozenset[str]]:
        for size in range(1, len(system) + 1):
            for part in combinations(sorted(system), size):
                if size == 1 or frozenset(part) in self._rows:
                    yield frozenset(part)

    def count(self, system: frozenset[str]) -> int:
        return sum(len(self._rows.get(part, "e")) for part in self.parts(system))

    def phases(self, system: frozenset[str]) -> list[Phase]:
        """All phases of a system and its subsystems, elements at zero."""
        return [phase for part in self.parts(system) for phase in self._own(part)]

    def _own(self, part: frozenset[str]) -> list[Phase]:
        if part not in self._phases:
            rows = self._rows.get(part) or [(next(iter(part)), 0.0)]
            self._phases[part] = made(
                (formula, amounts_of(formula), energy) for formula, energy in rows
            )
        return self._phases[part]


def summary(results: Path, index: set[str], more: set[str]) -> str:
    """What the file of results holds, as a Markdown table."""
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    rows = {line["system"]: line for line in lines}
    out = [
        "| systems | done | asked | height, eV/atom | same products | shares | "
        "other split, as good | wrong | no answer of pymatgen's |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups = {"all": index | more, "in the index": index, "only in the table": more}
    for size in sorted({name.count("-") + 1 for name in index | more}):
        groups[f"{size} elements"] = {n for n in index | more if n.count("-") + 1 == size}
    for name, wanted in groups.items():
        done = [rows[system] for system in wanted & rows.keys()]
        total = {key: sum(r[key] for r in done) for key in ("asked", "same_products")}
        worst = {key: max((r[key] for r in done), default=0.0) for key in ("height", "shares")}
        rest = [sum(r[key] for r in done) for key in ("other_split", "wrong", "no_answer")]
        out.append(
            f"| {name} | {len(done):,} of {len(wanted):,} | {total['asked']:,.0f} | "
            f"{worst['height']:.0e} | {total['same_products']:,.0f} | {worst['shares']:.0e} | "
            + " | ".join(f"{n:,.0f}" for n in rest)
            + " |"
        )
    out.append(f"\nCPU s: {sum(r['cpu_s'] for r in rows.values()):.0f}")
    return "\n".join(out)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--summary", action="store_true", help="compute nothing")
    arguments = parser.parse_args()
    table = Table(arguments.folder)
    names = {"-".join(sorted(system)): system for system in table.index + table.more}
    index = {"-".join(sorted(system)) for system in table.index}
    if not arguments.summary:
        results: Path = arguments.results
        done = set()
        if results.is_file():
            done = {json.loads(x)["system"] for x in results.read_text("utf-8").splitlines()}
        todo = sorted(names.keys() - done, key=lambda n: (n not in index, table.count(names[n]), n))
        with results.open("a", encoding="utf-8") as file:
            for name in todo:
                start, tally = time.process_time(), Tally()
                phases = table.phases(names[name])
                compare(phases, phases, tally)
                cpu_s = round(time.process_time() - start, 4)
                row = {key: float(value) for key, value in vars(tally).items()}
                file.write(json.dumps({"system": name, **row, "cpu_s": cpu_s}) + "\n")
                file.flush()
    print(summary(arguments.results, index, names.keys() - index))


if __name__ == "__main__":
    main()
