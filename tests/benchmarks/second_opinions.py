"""What other potentials say of the embedded reference's deep phases.

    python tests/benchmarks/second_opinions.py POTENTIAL [FIRST_N]

A phase is deep where CHGNet puts it far below everything else of its system. Each potential is
asked how far below: the phase and what it would decompose into without itself are relaxed by it,
from where CHGNet left them, and the decomposition energy is taken wholly within it.
"""

import json
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

from hullward.models.errors import HullwardError
from hullward.tools.hull import Hull
from hullward.tools.records import Protocol
from hullward.tools.reference import load_reference
from hullward.tools.relax import relax_cached

MARGIN_EV_PER_ATOM = 0.05


def main(potential: str, first_n: int, home: Path | None) -> None:
    manifest = json.loads((files("hullward.data") / "reference_embedded.json").read_text())
    reference = load_reference("embedded", None)
    phases = {}
    for phase in reference.source.within(reference.elements):
        best = phases.get(phase.formula)
        if best is None or phase.energy_ev_per_atom < best.energy_ev_per_atom:
            phases[phase.formula] = phase
    cases, jobs = [], {}
    for formula in sorted(manifest["deep"], key=lambda f: -abs(manifest["deep"][f]))[:first_n]:
        phase = phases[formula]
        chemsys = "-".join(sorted(phase.elements))
        rest = [p for p in reference.phases(chemsys) if p.formula != formula]
        distance = Hull(rest).distance(phase.composition, phase.energy_ev_per_atom)
        by_id = {p.phase_id: p for p in rest}
        parts = [(by_id[p.phase_id], p.fraction) for p in distance.decomposition]
        cases.append((phase, parts, distance.e_above_hull_ev_per_atom))
        for one in (phase, *(p for p, _ in parts)):
            jobs[one.phase_id] = one.crystal
    done = {}
    for relaxation in relax_cached(jobs.items(), potential, Protocol(), home, 0):
        done[relaxation.candidate_id] = relaxation
        print(f"{len(done)} of {len(jobs)}", file=sys.stderr)
    counts, gaps = Counter(), []
    for phase, parts, first in cases:
        wanted = [done[phase.phase_id], *(done[p.phase_id] for p, _ in parts)]
        told = "-".join(sorted(phase.elements))
        if not all(r.converged for r in wanted):
            why = next(r.failure or "not converged" for r in wanted if not r.converged)
            counts[f"no answer: {why}"] += 1
            print(f"{phase.formula:14} {told:12} {1000 * first:+6.0f}       — {why}")
            continue
        second = wanted[0].energy_ev_per_atom - sum(
            f * r.energy_ev_per_atom for (_, f), r in zip(parts, wanted[1:], strict=True)
        )
        gaps.append(second - first)
        counts["agree" if abs(gaps[-1]) <= MARGIN_EV_PER_ATOM else "disputed"] += 1
        counts["not below what it decomposes into"] += second > 0
        print(f"{phase.formula:14} {told:12} {1000 * first:+6.0f} {1000 * second:+6.0f} meV/atom")
    gaps.sort()
    print(f"{potential}, {len(cases)} deep phases, {len(jobs)} relaxations:", dict(counts))
    if gaps:
        print(f"second minus first: median {1000 * gaps[len(gaps) // 2]:+.0f} meV/atom, "
              f"{1000 * gaps[0]:+.0f} … {1000 * gaps[-1]:+.0f}")  # fmt: skip


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if not a.startswith("--home=")]
    homes = [Path(a.removeprefix("--home=")) for a in sys.argv[1:] if a.startswith("--home=")]
    try:
        main(arguments[0], int(arguments[1]) if len(arguments) > 1 else 1000, (homes or [None])[0])
    except HullwardError as error:
        sys.exit(str(error))
