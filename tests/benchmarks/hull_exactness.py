"""Agreement of heights and decompositions with pymatgen's PhaseDiagram, on sets of real entries.

    python -W ignore tests/benchmarks/hull_exactness.py DATA/hull [--systems 400]

It compares every entry of every set, as it is and 50 meV/atom lower, in every chemical system that
occurs (corrected energies on both sides), and a random choice of systems of two to six elements of
the whole-database table. Decompositions may differ only where several facets hold a composition:
the script then checks that both give the same energy and the composition itself. Published
e_above_hull (mp_query_docs_pydmclab) is compared last, and exceptions are listed.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import amounts_of, options, phases, rows_of
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from hullward.tools.hull import Hull, Phase
from hullward.tools.reference import load_reference
from hullward.tools.reference.sources.rows import read_rows

TOLERANCE_EV_PER_ATOM = 1e-9
SHIFT_EV_PER_ATOM = -0.05
AGREES_EV_PER_ATOM = 1e-3


@dataclass
class Tally:
    """What was compared in one set, and the largest differences (eV/atom, fractions)."""

    systems: int = 0
    asked: int = 0
    height: float = 0.0
    within_1_mev: int = 0
    same_products: int = 0
    shares: float = 0.0
    other_split: int = 0  # another facet of the same plane, checked to be as good
    wrong: int = 0
    no_answer: int = 0  # of pymatgen's

    def row(self, name: str) -> str:
        share = 100 * self.within_1_mev / max(1, self.asked)
        return (
            f"| {name} | {self.systems} | {self.asked:,} | {self.height:.0e} | {share:.2f} % | "
            f"{self.same_products:,} | {self.shares:.0e} | {self.other_split} | {self.wrong} | "
            f"{self.no_answer} |"
        )


def diagram(known: Sequence[Phase]) -> PhaseDiagram:
    return PhaseDiagram([entry(p) for p in known])


def entry(phase: Phase) -> ComputedEntry:
    composition = composition_of(phase)
    energy = phase.energy_ev_per_atom * composition.num_atoms
    return ComputedEntry(composition, energy, entry_id=phase.phase_id)


def compare(known: Sequence[Phase], asked: Sequence[Phase], tally: Tally) -> None:
    """One system: `asked` as they are and lower, over the hull of `known`."""
    hull, theirs = Hull(known), diagram(known)
    energies = {p.phase_id: p.energy_ev_per_atom for p in known}
    contents = {p.phase_id: fractions_of(p) for p in known}
    rows = hull.fractions([p.composition for p in asked])
    wanted = np.array([p.energy_ev_per_atom for p in asked])
    both = [hull.distances(rows, wanted + shift) for shift in (0.0, SHIFT_EV_PER_ATOM)]
    tally.systems += 1
    for number, phase in enumerate(asked):
        # What get_decomp_and_e_above_hull does for any energy, without asking twice.
        try:
            parts, plane = theirs.get_decomp_and_hull_energy_per_atom(composition_of(phase))
        except (ValueError, RuntimeError, KeyError):
            tally.asked += 2
            tally.no_answer += 2
            continue
        entries: dict[Any, float] = dict(parts)
        expected = {e.entry_id: share for e, share in entries.items()}
        for shift, found in zip((0.0, SHIFT_EV_PER_ATOM), both, strict=True):
            tally.asked += 1
            distance, energy = found[number], float(wanted[number] + shift)
            height, ours = energy - plane, distance.e_above_hull_ev_per_atom
            tally.height = max(tally.height, abs(ours - height))
            tally.within_1_mev += int(abs(ours - height) <= AGREES_EV_PER_ATOM)
            shares = {p.phase_id: p.fraction for p in distance.decomposition}
            if set(shares) == set(expected):
                tally.same_products += 1
                tally.shares = max(tally.shares, *(abs(shares[k] - expected[k]) for k in shares))
                continue
            mixture: dict[str, float] = defaultdict(float)
            for name, share in shares.items():
                for el, amount in contents[name].items():
                    mixture[el] += share * amount
            own = fractions_of(phase)
            off = max(abs(mixture[el] - own.get(el, 0.0)) for el in mixture | own)
            mixed = sum(share * energies[name] for name, share in shares.items())
            good = bool(max(off, abs(mixed - (energy - ours))) <= TOLERANCE_EV_PER_ATOM)
            tally.other_split += good
            tally.wrong += not good


def fractions_of(phase: Phase) -> dict[str, float]:
    total = sum(phase.composition.values())
    return {el: amount / total for el, amount in phase.composition.items()}


@cache
def _composition(amounts: tuple[tuple[str, float], ...]) -> Composition:
    return Composition(dict(amounts))


def composition_of(phase: Phase) -> Composition:
    """Cached, as the same phases come up in many systems."""
    return _composition(tuple(phase.composition.items()))


def every_system(known: Sequence[Phase]) -> Tally:
    """Compare each system that occurs in a set, with all entries of its subsystems."""
    tally = Tally()
    complete = {next(iter(p.elements)) for p in known if len(p.elements) == 1}
    for system in sorted({p.elements for p in known}, key=sorted):
        inside = [p for p in known if p.elements <= system]
        if len(system) > 1 and system <= complete:
            compare(inside, inside, tally)
    whole = frozenset(complete)
    if len(whole) > 1:
        compare([p for p in known if p.elements <= whole], known, tally)
    return tally


def sets_of_entries(folder: Path) -> dict[str, list[Phase]]:
    """Every set of entries of the folder. Energy scales differ, but each hull is of one set."""
    import pandas as pd

    found: dict[str, list[Phase]] = {}
    for name in ("mp_entries_Li-Fe-P-O", "mp_entries_Li-Fe-O_2021"):
        reference = load_reference(f"file:{folder / (name + '.jsonl.zst')}")
        found[name] = list(reference.phases("-".join(sorted(reference.elements))))
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(folder / "mp_entries_small_sets.jsonl.zst"):
        groups[row["set"]].append(row["entry"])
    for name, entries in groups.items():
        found[f"small_sets {name}"] = phases(
            (str(e.get("entry_id")), e["composition"], _per_atom(e)) for e in entries
        )
    table = pd.read_parquet(folder / "mp_entries_table.parquet")
    for name in table["set"].unique():
        found[f"table {name}"] = phases(
            (r.entry_id, amounts_of(r.composition), r.energy_per_atom_corrected)
            for r in rows_of(table[table["set"] == name])
        )
    for name, docs in query_files(folder).items():
        found[f"docs {name}"] = docs_phases(docs)
    return found


def _per_atom(e: dict[str, Any]) -> float:
    total = float(e["energy"]) + float(e.get("correction") or 0.0)
    return total / sum(e["composition"].values())


def query_files(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows(folder / "mp_query_docs_pydmclab.jsonl.zst"):
        files[row["file"].removesuffix(".json")].append(row)
    return files


def docs_phases(docs: Sequence[dict[str, Any]]) -> list[Phase]:
    """By formation energy, which is corrected; E_mp is not, in most of them."""
    return phases((d["mpid"], amounts_of(d["formula"]), d["Ef_mp"]) for d in docs)


def whole_database(folder: Path, systems: int, seed: int = 0) -> dict[str, Tally]:
    """A random choice of systems of the table, tie-line points taken as phases by both sides."""
    import pandas as pd

    table = pd.read_parquet(folder / "mp2020_whole_database_hull.parquet")
    symbols = [frozenset(re.findall("[A-Z][a-z]?", f)) for f in table["formula"]]
    energies = table["hull_entry_energy_per_atom"].to_numpy()
    rng = np.random.default_rng(seed)
    found: dict[str, Tally] = {}
    occurring = sorted({tuple(sorted(s)) for s in symbols if len(s) > 1})
    rich = Counter(el for s in occurring for el in s).most_common(40)  # for large random systems
    for size in (2, 3, 4, 5, 6):
        own = [s for s in occurring if len(s) == size]
        count = min(len(own), systems if size < 5 else systems // 8)
        chosen = [frozenset(own[i]) for i in rng.choice(len(own), count, replace=False)]
        if size >= 5:
            chosen += [
                frozenset(rng.choice([el for el, _ in rich], size, replace=False))
                for _ in range(systems // 8)
            ]
        tally = Tally()
        for system in chosen:
            rows = [i for i, s in enumerate(symbols) if s <= system]
            known = phases(
                (f"row{i}", amounts_of(table["formula"][i]), float(energies[i])) for i in rows
            )
            known += phases((f"zero-{el}", {el: 1.0}, 0.0) for el in sorted(system))
            compare(known, known, tally)
        found[f"whole database, {size} elements"] = tally
    return found


def published(folder: Path) -> None:
    """Published e_above_hull beside the hull of the same file."""
    print("\n| file | entries | within 1 meV/atom | largest, meV/atom | hull here above / below |")
    print("| --- | ---: | ---: | ---: | --- |")
    exceptions = []
    for name, docs in query_files(folder).items():
        known = docs_phases(docs)
        hull = Hull(known)
        found = hull.distances(
            hull.fractions([p.composition for p in known]),
            np.array([p.energy_ev_per_atom for p in known]),
        )
        ours = np.array([d.e_above_hull_ev_per_atom for d in found])
        off = 1000 * (ours - np.array([float(d["Ehull_mp"]) for d in docs]))
        wrong = np.flatnonzero(np.abs(off) > 1000 * AGREES_EV_PER_ATOM)
        print(
            f"| {name} | {len(docs)} | {len(docs) - len(wrong)} | {np.abs(off).max():.1f} | "
            f"{(off[wrong] < 0).sum()} / {(off[wrong] > 0).sum()} |"
        )
        why = reasons(docs, off)
        exceptions += [(name, docs[i], off[i], why[i]) for i in wrong]
    counts = Counter((name, reason) for name, _, _, reason in exceptions)
    print(f"\n{len(exceptions)} exceptions, by file and reason:\n")
    for (name, reason), count in counts.items():
        print(f"- {name}: {count} {reason}")
    print("\nEach of them (ours − published, meV/atom):\n")
    for name, doc, difference, reason in exceptions:
        print(f"- {name}: {doc['formula']} {doc['mpid']} {difference:+.1f}: {reason}")


def reasons(docs: Sequence[dict[str, Any]], off_mev: np.ndarray) -> list[str]:
    """Why a published height is not the file's own, as far as the file can tell.

    E_f − E_hull is the energy of the hull that was published; one formula has one hull.
    """
    formulas = [Composition(d["formula"]).reduced_formula for d in docs]
    published = 1000 * np.array([float(d["Ef_mp"]) - float(d["Ehull_mp"]) for d in docs])
    spread: dict[str, float] = {}
    for formula in set(formulas):
        own = published[[f == formula for f in formulas]]
        spread[formula] = float(own.max() - own.min())
    return [
        "the file publishes several hulls for this formula (mixed ages)"
        if spread[formula] > 1000 * AGREES_EV_PER_ATOM
        else "published over a lower hull than the file's phases make (a phase is not in the file)"
        if difference < 0
        else "the file holds a phase below the published hull (younger than the value)"
        for formula, difference in zip(formulas, off_mev, strict=True)
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", type=int, default=400, help="of each size, from the table")
    parser.add_argument("--json", action="store_true", help="only the totals, as JSON")
    arguments = parser.parse_args()
    tallies = {n: every_system(p) for n, p in sets_of_entries(arguments.folder).items()}
    tallies |= whole_database(arguments.folder, arguments.systems)
    if arguments.json:
        print(json.dumps({name: vars(tally) for name, tally in tallies.items()}))
        return
    print(
        "| set | systems | asked | height, eV/atom | within 1 meV | same products | shares | "
        "other split, as good | wrong | no answer of pymatgen's |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, tally in tallies.items():
        print(tally.row(name))
    published(arguments.folder)


if __name__ == "__main__":
    main()
