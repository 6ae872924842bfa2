"""Heights that other potentials give the suspects of a screening, unconverged ones included.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/suspect_opinions.py DIR REFERENCE POTENTIAL…

DIR is a screening's directory, read only. The second potentials relax each suspect and what it
would decompose into by REFERENCE, which must have structures; a suspect that never converged is
relaxed from the proposed structure. Prints the rows of RESULTS.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
from common import open_snapshot, options, records

from hullward.models.crystal import Crystal
from hullward.tools.hull import Reference
from hullward.tools.records import Basis, Candidate, Relaxation
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor, relax_cached
from hullward.tools.screening import UNFINISHED, rattled_protocol, suspicions
from hullward.tools.uncertainty import SecondPotential

Suspect = tuple[Candidate, Relaxation, Relaxation | None]
HOME = Path(os.environ["HULLWARD_HOME"]) if "HULLWARD_HOME" in os.environ else None


def main(directory: Path, spec: str, potentials: list[str]) -> None:
    snapshot = open_snapshot(directory)
    (basis,) = records(snapshot, "Basis")
    found = suspects(snapshot, basis, load_reference(basis.reference_spec))
    reference = load_reference(spec)
    for name in potentials:
        started = time.process_time()
        second = SecondPotential(
            potential=name,
            protocol=basis.protocol,
            reference=reference,
            margin_ev_per_atom=0.05,
            max_force_calls=1_000_000,
            executor=Executor(workers=0, home=HOME),
        )
        for candidate, first, again in found:
            if first.converged:
                (opinion,) = second.ask([(candidate, first)])
            else:
                opinion = second.ask_unconverged(candidate, first, again)
            heights = [
                f"{word} {value:+.3f}"
                for word, value in (
                    (basis.potential, opinion.first_ev_per_atom),
                    (name, opinion.second_ev_per_atom),
                )
                if value is not None
            ]
            shapes = {None: "", True: "same structure", False: "another structure"}
            verdict = {None: "no answer", True: "disputed", False: "agrees"}[opinion.disputed]
            parts = [verdict, *heights, shapes[opinion.same_structure], opinion.failure]
            print(candidate.formula, "|", "; ".join(p for p in parts if p), flush=True)
        spent = time.process_time() - started
        print(f"{name}: {second.spent} force calls, {spent:.0f} CPU s", flush=True)


def suspects(
    snapshot: duckdb.DuckDBPyConnection, basis: Basis, reference: Reference
) -> list[Suspect]:
    """Each suspect with its relaxation and, where that did not converge, one from a rattle."""
    relaxations = records(
        snapshot,
        "Relaxation",
        """relaxation_id IN (SELECT relaxation_id FROM results
           WHERE suspect OR state IN ('unconverged', 'failed'))""",
    )
    candidates = {c.candidate_id: c for c in records(snapshot, "Candidate")}
    second_protocol = rattled_protocol(basis.protocol)
    found: list[Suspect] = []
    for one in relaxations:
        candidate = candidates[one.candidate_id]
        if not one.converged and one.failure not in UNFINISHED:
            continue
        if one.protocol != basis.protocol or not suspicions(one, candidate, reference):
            continue
        again = None
        if not one.converged:
            job: tuple[str, Crystal] = (candidate.candidate_id, candidate.crystal)
            (again,) = relax_cached([job], basis.potential, second_protocol, HOME, 0)
        found.append((candidate, one, again))
    return found


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("reference")
    parser.add_argument("potentials", nargs="+")
    given = parser.parse_args()
    main(given.directory, given.reference, given.potentials)
