"""The embedded reference against the complete Materials Project entries of one system.

    python tests/benchmarks/embedded_vs_mp.py path/to/mp_entries_Li-Fe-O_2021.jsonl.zst Li-Fe-O

Prints Markdown: the signed difference of the two hulls at the compositions the Materials Project
calls stable (total corrected energies, and each relative to its own elements), and the heights of
its entries over both hulls, once with its own energies and once with CHGNet's at its structures.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hullward.models.potential import Evaluation
from hullward.models.registry import load_potential
from hullward.tools.hull import Hull, Phase
from hullward.tools.reference import Reference, load_reference

NEAR_MP_HULL = (0.05, 0.2)  # eV/atom: entries that a sound reference should not call stable


def hull_energy(hull: Hull, composition: Mapping[str, float]) -> float:
    return -hull.distance(composition, 0.0).e_above_hull_ev_per_atom


def height(hull: Hull, phase: Phase, energy: float) -> float:
    return hull.distance(phase.composition, energy).e_above_hull_ev_per_atom


def formation(hull: Hull, composition: Mapping[str, float]) -> float:
    """Hull energy relative to the hull's own elements, eV/atom."""
    total = sum(composition.values())
    zero = sum(hull_energy(hull, {el: 1.0}) * n for el, n in composition.items()) / total
    return hull_energy(hull, composition) - zero


def summary(values: list[float]) -> str:
    """Signed meV/atom."""
    mev = 1000 * np.array(values)
    return (
        f"{len(mev)} | {np.median(mev):+.0f} | {np.median(abs(mev)):.0f} | "
        f"{np.percentile(abs(mev), 90):.0f} | {mev.min():+.0f} … {mev.max():+.0f}"
    )


class Row(NamedTuple):
    """Embedded − MP at one composition, eV/atom."""

    formula: str
    covered: bool
    total: float
    relative: float  # each to its own elements


def stable_rows(ours: Reference, ours_hull: Hull, mp: Hull) -> list[Row]:
    return [
        Row(
            p.formula,
            ours.coverage(p.composition).covered,
            hull_energy(ours_hull, p.composition) - hull_energy(mp, p.composition),
            formation(ours_hull, p.composition) - formation(mp, p.composition),
        )
        for p in sorted(mp.stable_phases, key=lambda p: (len(p.elements), p.formula))
    ]


def chgnet_energies(phases: list[Phase], most_atoms: int) -> dict[str, float]:
    """Single points at the Materials Project's own structures, eV/atom by phase id."""
    potential = load_potential("chgnet-0.3.0")
    found = {}
    for phase in phases:
        if phase.crystal is not None and phase.crystal.n_atoms <= most_atoms:
            answer = potential.evaluate([phase.crystal])[0]
            if isinstance(answer, Evaluation):
                found[phase.phase_id] = answer.energy_ev_per_atom
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries")
    parser.add_argument("system")
    parser.add_argument("--most-atoms", type=int, default=24, help="for CHGNet single points")
    arguments = parser.parse_args()
    ours, theirs = load_reference("embedded"), load_reference(f"file:{arguments.entries}")
    ours_hull, mp = ours.hull(arguments.system), theirs.hull(arguments.system)

    rows = stable_rows(ours, ours_hull, mp)
    print("| MP stable | covered | total, meV/atom | relative to own elements, meV/atom |")
    print("| --- | --- | ---: | ---: |")
    for r in rows:
        covered = "yes" if r.covered else "no"
        print(f"| {r.formula} | {covered} | {1000 * r.total:+.0f} | {1000 * r.relative:+.0f} |")

    entries = [p for p in theirs.phases(arguments.system) if p.crystal is not None]
    inside = [p for p in entries if ours.coverage(p.composition).covered]
    heights = {p.phase_id: height(mp, p, p.energy_ev_per_atom) for p in inside}
    own = [height(ours_hull, p, p.energy_ev_per_atom) - heights[p.phase_id] for p in inside]
    energies = chgnet_energies(inside, arguments.most_atoms)
    points = [p for p in inside if p.phase_id in energies]
    ours_heights = {p.phase_id: height(ours_hull, p, energies[p.phase_id]) for p in points}

    print("\n| embedded − MP | n | median | median size | 90 % of sizes | range |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    print(f"| stable compositions, total | {summary([r.total for r in rows])} |")
    print(f"| of these covered | {summary([r.total for r in rows if r.covered])} |")
    compounds = [r.relative for r in rows if r.covered and r.relative]
    print(f"| covered compounds, to own elements | {summary(compounds)} |")
    print(f"| heights of covered entries, MP energies over both | {summary(own)} |")
    moved = [ours_heights[p.phase_id] - heights[p.phase_id] for p in points]
    print(f"| heights, CHGNet over embedded − MP over MP | {summary(moved)} |")

    low, high = NEAR_MP_HULL
    near = [ours_heights[p.phase_id] for p in points if low <= heights[p.phase_id] <= high]
    print(
        f"\nOf {len(near)} covered MP structures {low} to {high} eV/atom above MP's hull, "
        f"{sum(h <= 0 for h in near)} lie at or below the embedded hull (CHGNet single points, "
        f"at most {arguments.most_atoms} atoms)."
    )


if __name__ == "__main__":
    main()
