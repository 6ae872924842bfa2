"""How far another potential puts the embedded reference's deep phases below their products.

    python tests/benchmarks/second_opinions.py POTENTIAL [FIRST_N]

A phase is deep where CHGNet puts it far below everything else of its system. The potential relaxes
the phase and what it would decompose into without itself, from where CHGNet left them; the
decomposition energy is computed from its own energies alone.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

from common import options

from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError
from hullward.tools.hull import Hull, Phase
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.reference import load_reference
from hullward.tools.relax import relax_cached

MARGIN_EV_PER_ATOM = 0.05


def main(potential: str, first_n: int, home: Path | None) -> None:
    manifest = json.loads((files("hullward.data") / "reference_embedded.json").read_text())
    reference = load_reference("embedded", None)
    phases: dict[str, Phase] = {}
    for phase in reference.source.within(reference.elements):
        best = phases.get(phase.formula)
        if best is None or phase.energy_ev_per_atom < best.energy_ev_per_atom:
            phases[phase.formula] = phase
    cases = []
    jobs: dict[str, Crystal] = {}
    for formula in sorted(manifest["deep"], key=lambda f: -abs(manifest["deep"][f]))[:first_n]:
        phase = phases[formula]
        chemsys = "-".join(sorted(phase.elements))
        rest = [p for p in reference.phases(chemsys) if p.formula != formula]
        distance = Hull(rest).distance(phase.composition, phase.energy_ev_per_atom)
        by_id = {p.phase_id: p for p in rest}
        parts = [(by_id[p.phase_id], p.fraction) for p in distance.decomposition]
        cases.append((phase, parts, distance.e_above_hull_ev_per_atom))
        for one in (phase, *(p for p, _ in parts)):
            assert one.crystal is not None  # every phase of the embedded reference has one
            jobs[one.phase_id] = one.crystal
    done = {}
    for relaxation in relax_cached(jobs.items(), potential, Protocol(), home, 0):
        done[relaxation.candidate_id] = relaxation
        print(f"{len(done)} of {len(jobs)}", file=sys.stderr)
    counts: Counter[str] = Counter()
    gaps: list[float] = []
    for phase, parts, first in cases:
        wanted = [done[phase.phase_id], *(done[p.phase_id] for p, _ in parts)]
        system = "-".join(sorted(phase.elements))
        if not all(r.converged for r in wanted):
            why = next(r.failure or "not converged" for r in wanted if not r.converged)
            counts[f"no answer: {why}"] += 1
            print(f"{phase.formula:14} {system:12} {1000 * first:+6.0f}       — {why}")
            continue
        second = _energy(wanted[0]) - sum(
            fraction * _energy(r) for (_, fraction), r in zip(parts, wanted[1:], strict=True)
        )
        gaps.append(second - first)
        counts["agree" if abs(gaps[-1]) <= MARGIN_EV_PER_ATOM else "disputed"] += 1
        counts["not below what it decomposes into"] += int(second > 0)
        print(f"{phase.formula:14} {system:12} {1000 * first:+6.0f} {1000 * second:+6.0f} meV/atom")
    gaps.sort()
    print(f"{potential}, {len(cases)} deep phases, {len(jobs)} relaxations:", dict(counts))
    if gaps:
        print(f"second minus first: median {1000 * gaps[len(gaps) // 2]:+.0f} meV/atom, "
              f"{1000 * gaps[0]:+.0f} … {1000 * gaps[-1]:+.0f}")  # fmt: skip


def _energy(relaxation: Relaxation) -> float:
    assert relaxation.energy_ev_per_atom is not None  # it converged
    return relaxation.energy_ev_per_atom


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("potential")
    parser.add_argument("first_n", type=int, nargs="?", default=1000)
    parser.add_argument("--home", type=Path, help="cache relaxations there")
    given = parser.parse_args()
    try:
        main(given.potential, given.first_n, given.home)
    except HullwardError as error:
        sys.exit(str(error))
