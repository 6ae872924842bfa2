"""What other potentials say of the suspects of a screening, those that never converged among them.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/suspect_opinions.py DIR REFERENCE POTENTIAL…

DIR is a screening's directory, read only. The second potentials relax each suspect and what it
would decompose into by REFERENCE, which must have structures; one that never converged is relaxed
from the structure that was proposed. Prints the rows of RESULTS.md.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import duckdb

from hullward.models.crystal import Crystal
from hullward.tools.hull import Reference
from hullward.tools.records import Basis, Candidate, Relaxation
from hullward.tools.reference import load_reference
from hullward.tools.relax import relax_cached
from hullward.tools.screening import GOING_ON, rattled, suspicions
from hullward.tools.store import TABLES, decode
from hullward.tools.uncertainty import SecondPotential

Suspect = tuple[Candidate, Relaxation, Relaxation | None]
HOME = Path(os.environ["HULLWARD_HOME"]) if "HULLWARD_HOME" in os.environ else None


def main(directory: Path, spec: str, potentials: list[str]) -> None:
    snapshot = duckdb.connect(str(directory / "snapshot.duckdb"), read_only=True)
    (basis,) = records(snapshot, "Basis")
    assert isinstance(basis, Basis)
    found = suspects(snapshot, basis, load_reference(basis.reference_spec))
    reference = load_reference(spec)
    for name in potentials:
        started = time.process_time()
        adviser = SecondPotential(
            potential=name,
            protocol=basis.protocol,
            reference=reference,
            margin_ev_per_atom=0.05,
            max_force_calls=1_000_000,
            home=HOME,
        )
        for candidate, first, again in found:
            if first.converged:
                (said,) = adviser.ask([(candidate, first)])
            else:
                said = adviser.ask_unconverged(candidate, first, again)
            told = [
                f"{word} {value:+.3f}"
                for word, value in (
                    (basis.potential, said.first_ev_per_atom),
                    (name, said.second_ev_per_atom),
                )
                if value is not None
            ]
            shapes = {None: "", True: "same structure", False: "another structure"}
            verdict = {None: "no answer", True: "disputed", False: "agrees"}[said.disputed]
            parts = [verdict, *told, shapes[said.same_structure], said.failure]
            print(candidate.formula, "|", "; ".join(p for p in parts if p), flush=True)
        spent = time.process_time() - started
        print(f"{name}: {adviser.spent} force calls, {spent:.0f} CPU s", flush=True)


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
    second_protocol = rattled(basis.protocol)
    found: list[Suspect] = []
    for one in relaxations:
        assert isinstance(one, Relaxation)
        candidate = candidates[one.candidate_id]
        assert isinstance(candidate, Candidate)
        if not one.converged and one.failure not in GOING_ON:
            continue
        if one.protocol != basis.protocol or not suspicions(one, candidate, reference):
            continue
        again = None
        if not one.converged:
            job: tuple[str, Crystal] = (candidate.candidate_id, candidate.crystal)
            (again,) = relax_cached([job], basis.potential, second_protocol, HOME, 0)
        found.append((candidate, one, again))
    return found


def records(snapshot: duckdb.DuckDBPyConnection, kind: str, where: str = "true") -> list[object]:
    table = TABLES[kind]
    answer = snapshot.execute(f"SELECT * FROM {table.name} WHERE {where}")
    names = [column[0] for column in answer.description]
    return [decode(table.record, dict(zip(names, row, strict=True))) for row in answer.fetchall()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
