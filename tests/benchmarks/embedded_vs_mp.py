"""The embedded reference against the Materials Project's hull, system by system.

    python -W ignore tests/benchmarks/embedded_vs_mp.py DATA [--reference SPEC] [--systems A-B …]

DATA is the folder of real data; its `hull/` has MP2020 hull points and lists the systems that they
are complete for. Prints Markdown: the signed difference of the two hulls at the compositions that
the Materials Project calls stable, over all shared systems and over the covered ones; the recall
of its stable phases; and, of its structures 0.05 to 0.2 eV/atom above its hull, the number that
the embedded hull calls stable when both hulls judge the same CHGNet-relaxed energy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import MP2020_HULL, MP_STRUCTURES, amounts_of, options, rows_of
from pymatgen.core import Composition, Structure

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.crystal import is_alloy
from hullward.tools.hull import Hull, Reference
from hullward.tools.records import Protocol
from hullward.tools.reference import load_reference
from hullward.tools.reference.sources import BuiltPhases, enough_tried, untried_subsystems
from hullward.tools.relax import relax_many

PRESENT_EV_PER_ATOM = 0.03  # formation energies this close: the stable phase was found
NEAR_MP_HULL_EV_PER_ATOM = (0.05, 0.2)
MOST_ATOMS = 24


class Row(NamedTuple):
    """Embedded − MP at one composition that MP calls stable, eV/atom."""

    system: str
    formula: str
    covered: bool
    note: str
    total: float
    relative: float  # each to its own elements
    present: bool  # a phase of this very formula is in the reference


def complete_systems(data: Path) -> pd.DataFrame:
    index = pd.read_parquet(data / "hull" / "chemsys_index.parquet")
    return index[index["mp2020_complete"]]


def differences(ours: Reference, mp: Reference, system: str) -> Iterator[Row]:
    """MP's stable compositions of exactly this system."""
    elements = frozenset(system.split("-"))
    hull, theirs = ours.hull(system), mp.hull(system)
    zeros = {el: (ours.hull(el), mp.hull(el)) for el in elements}
    have = {p.formula for p in ours.phases(system) if p.elements == elements}
    for phase in theirs.stable_phases:
        if phase.elements != elements or not phase.is_phase:
            continue
        x = phase.composition
        n = sum(x.values())
        here = -hull.distance(x, 0.0).e_above_hull_ev_per_atom
        there = -theirs.distance(x, 0.0).e_above_hull_ev_per_atom
        zero = sum(
            amount * (element_energy(zeros[el][0], el) - element_energy(zeros[el][1], el)) / n
            for el, amount in x.items()
        )
        coverage = ours.coverage(x)
        yield Row(
            system,
            phase.formula,
            coverage.covered,
            coverage.note,
            here - there,
            here - there - zero,
            phase.formula in have,
        )


def element_energy(hull: Hull, element: str) -> float:
    return -hull.distance({element: 1.0}, 0.0).e_above_hull_ev_per_atom


def line(name: str, values: list[float]) -> str:
    if not values:
        return f"| {name} | 0 | | | | |"
    mev = 1000 * np.array(values)
    return (
        f"| {name} | {len(mev)} | {np.median(mev):+.0f} | {np.median(abs(mev)):.0f} | "
        f"{np.percentile(abs(mev), 90):.0f} | {mev.min():+.0f} … {mev.max():+.0f} |"
    )


def class_of(row: Row) -> str:
    from pymatgen.core import Element

    elements = row.system.split("-")
    if len(elements) == 1:
        return "element"
    if is_alloy(elements):
        return "alloy"
    return f"{max(elements, key=lambda el: Element(el).X)} compound"


def is_built(ours: Reference, system: str) -> bool:
    """Whether the system itself and every subsystem that counts were tried well enough."""
    assert isinstance(ours.source, BuiltPhases)
    manifest, elements = ours.source.manifest, frozenset(system.split("-"))
    facts = manifest.systems.get("-".join(sorted(elements)))
    if facts is None or not facts.expected_formulas:  # nothing that the recipe serves
        return False
    return enough_tried(facts) and not untried_subsystems(manifest, [elements])


def relaxed_heights(
    data: Path, ours: Reference, mp: Reference, systems: set[str], workers: int, memory: Path
) -> pd.DataFrame:
    """MP structures near MP's hull at covered compositions, relaxed; heights over both hulls."""
    table = pd.read_parquet(data / MP_STRUCTURES)
    low, high = NEAR_MP_HULL_EV_PER_ATOM
    table = table[(table["e_above_hull"] > low - 0.04) & (table["e_above_hull"] < high + 0.04)]
    table = table.drop_duplicates("material_id")
    crystals = {}
    for row in rows_of(table):
        system = "-".join(sorted(amounts_of(row.formula)))
        if system in systems and ours.coverage(amounts_of(row.formula)).covered:
            crystal = _crystal(row.cif)
            if crystal.n_atoms <= MOST_ATOMS:
                crystals[str(row.material_id)] = crystal
    done = {}
    if memory.is_file():
        done = {r["id"]: r for r in map(json.loads, memory.read_text().splitlines())}
    todo = [(i, c) for i, c in crystals.items() if i not in done]
    protocol = Protocol(optimizer="bfgs", max_steps=200)
    with memory.open("a") as file:
        for r in relax_many(todo, "chgnet-0.3.0", protocol, workers):
            energy = r.energy_ev_per_atom if r.converged else None
            done[r.candidate_id] = {"id": r.candidate_id, "energy": energy}
            file.write(json.dumps(done[r.candidate_id]) + "\n")
    rows = []
    for material_id, crystal in crystals.items():
        energy = done[material_id]["energy"]
        if energy is not None:
            amounts = crystal.amounts
            rows.append(
                {
                    "id": material_id,
                    "formula": crystal.formula,
                    "mp": mp.hull(crystal.chemsys).distance(amounts, energy)[0],
                    "ours": ours.hull(crystal.chemsys).distance(amounts, energy)[0],
                }
            )
    return pd.DataFrame(rows, columns=["id", "formula", "mp", "ours"])


def engine_floor(data: Path, ours: Reference, mp: Reference, covered: list[Row]) -> list[str]:
    """Rows for CHGNet at MP's own stable structures, unrelaxed: the error of the engine itself."""
    table = pd.read_parquet(data / MP_STRUCTURES)
    table = table[table["e_above_hull"] <= 1e-6].drop_duplicates("material_id")
    wanted = {row.formula: row.system for row in covered}
    crystals = [
        crystal
        for row in rows_of(table)
        if Composition(row.formula).reduced_formula in wanted
        and (crystal := _crystal(row.cif)).n_atoms <= MOST_ATOMS
    ]
    potential = load_potential("chgnet-0.3.0")
    engine, missed = [], []
    for start in range(0, len(crystals), 8):
        some = crystals[start : start + 8]
        for crystal, answer in zip(some, potential.evaluate(some), strict=True):
            if isinstance(answer, Exception):
                continue
            amounts = crystal.amounts
            energy = answer.energy_ev_per_atom
            engine.append(mp.hull(crystal.chemsys).distance(amounts, energy)[0])
            missed.append(-ours.hull(crystal.chemsys).distance(amounts, energy)[0])
    return [
        line("CHGNet at MP's stable structures − MP", engine),
        line("embedded − CHGNet at MP's stable structures", missed),
    ]


def _crystal(cif: str) -> Crystal:
    return Crystal.from_structure(Structure.from_str(cif, fmt="cif").get_primitive_structure())


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--reference", default="embedded")
    parser.add_argument("--built", type=Path, help="a build: its path without suffix")
    parser.add_argument("--systems", nargs="*", help="only these and their subsystems")
    parser.add_argument("--list", action="store_true", help="print every composition")
    parser.add_argument("--relax", type=Path, help="file that keeps relaxed energies")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.built:
        from hullward.tools.reference.sources import read_built

        ours = read_built(arguments.built.parent, arguments.built.name)
    else:
        ours = load_reference(arguments.reference)
    mp = load_reference(f"file:{arguments.data / MP2020_HULL}")
    index = complete_systems(arguments.data)
    systems = list(index["chemsys"])
    if arguments.systems:
        wanted = {
            "-".join(part)
            for system in arguments.systems
            for size in range(1, 1 + system.count("-") + 1)
            for part in combinations(sorted(system.split("-")), size)
        }
        systems = sorted(wanted)
    else:
        systems += sorted({el for system in systems for el in system.split("-")})
    shared = [s for s in systems if frozenset(s.split("-")) <= ours.elements & mp.elements]
    rows = [row for system in shared for row in differences(ours, mp, system)]
    covered = [row for row in rows if row.covered]
    if arguments.list:
        for r in sorted(rows, key=lambda r: (not r.covered, -abs(r.total))):
            print(
                f"{r.formula:14s} {'covered' if r.covered else '-':8s} {1000 * r.total:+6.0f} "
                f"{1000 * r.relative:+6.0f} {'' if r.present else 'absent '}{r.note}"
            )
    built = {n: sum(is_built(ours, s) for s in shared if s.count("-") == n - 1) for n in (2, 3, 4)}
    total = {n: sum(s.count("-") == n - 1 for s in systems) for n in (2, 3, 4)}
    print(
        "covered systems:", ", ".join(f"{built[n]} of {total[n]} with {n} elements" for n in built)
    )
    print("\n| embedded − MP, meV/atom | n | median | median size | 90 % of sizes | range |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    print(line("MP-stable compositions of shared systems", [r.total for r in rows]))
    print(line("of these covered", [r.total for r in covered]))
    print(line("not covered", [r.total for r in rows if not r.covered]))
    print(line("covered, to own elements", [r.relative for r in covered]))
    for floor in engine_floor(arguments.data, ours, mp, covered):
        print(floor)
    for kind in sorted({class_of(r) for r in covered}):
        print(line(f"covered: {kind}", [r.total for r in covered if class_of(r) == kind]))
    if rows:
        print(f"\nshare covered: {len(covered)} of {len(rows)} ({len(covered) / len(rows):.0%})")
    for name, some in (("all", rows), ("covered", covered)):
        compounds = [r for r in some if "-" in r.system]
        found = [r for r in compounds if r.present]
        near = [r for r in found if abs(r.relative) <= PRESENT_EV_PER_ATOM]
        print(
            f"recall of MP-stable compounds, {name}: formula present {len(found)} of "
            f"{len(compounds)}, formation energy within 30 meV/atom {len(near)}"
        )
    if arguments.relax:
        inside = {s for s in shared if "-" in s and (arguments.systems or s in set(systems))}
        heights = relaxed_heights(
            arguments.data, ours, mp, inside, arguments.workers, arguments.relax
        )
        low, high = NEAR_MP_HULL_EV_PER_ATOM
        near_hull = heights[(heights["mp"] >= low) & (heights["mp"] <= high)]
        below = near_hull[near_hull["ours"] <= 0]
        print(
            f"\nof {len(near_hull)} relaxed MP structures {low} to {high} eV/atom above MP's hull, "
            f"{len(below)} ({len(below) / max(1, len(near_hull)):.1%}) lie at or below the "
            f"embedded hull: {', '.join(below['formula'][:20])}"
        )


if __name__ == "__main__":
    main()
