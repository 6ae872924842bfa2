"""The suspects of a screening with why, and the vibrations of its best.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/suspects.py DIR REFERENCE [TOP]

DIR is a screening's directory, read only; REFERENCE what it was judged by. What fell without
converging is relaxed again from a rattle. Prints the figures of RESULTS.md.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import duckdb

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.records import Basis, Candidate, Relaxation
from hullward.tools.reference import load_reference
from hullward.tools.relax import check_phonons
from hullward.tools.relax.stream import relax_one
from hullward.tools.screening import GOING_ON, rattled, suspicions
from hullward.tools.screening.suspects import second_look_of
from hullward.tools.store import SHORT_LIST, SHORT_LIST_ORDER, TABLES, decode


def main(directory: Path, spec: str, top: int) -> None:
    snapshot = duckdb.connect(str(directory / "snapshot.duckdb"), read_only=True)
    (basis,) = records(snapshot, "Basis")
    assert isinstance(basis, Basis)
    candidates = {c.candidate_id: c for c in records(snapshot, "Candidate")}
    reference, potential = load_reference(spec), load_potential(basis.potential)
    looks = dict(
        snapshot.execute(
            "SELECT relaxation_id, second_look FROM results WHERE second_look IS NOT NULL"
        ).fetchall()
    )
    kinds: Counter[str] = Counter()
    for relaxation in records(snapshot, "Relaxation"):
        assert isinstance(relaxation, Relaxation)
        if relaxation.protocol != basis.protocol:
            continue
        kinds["converged" if relaxation.converged else str(relaxation.failure or "steps")] += 1
        if not relaxation.converged and relaxation.failure not in GOING_ON:
            continue
        candidate = candidates[relaxation.candidate_id]
        assert isinstance(candidate, Candidate)
        found = suspicions(relaxation, candidate, reference)
        if not found:
            continue
        look = looks.get(relaxation.relaxation_id)
        if not relaxation.converged:
            protocol = rattled(basis.protocol)
            again = relax_one(candidate.candidate_id, candidate.crystal, potential, protocol)
            look = f"{second_look_of(relaxation, again)} (converged: {again.converged})"
        kinds["suspect"] += 1
        names, why = ", ".join(s.kind for s in found), "; ".join(s.reason for s in found)
        print(f"{candidate.formula} {names}: {why}; second relaxation {look}", flush=True)
    print(dict(kinds))
    vibrations(snapshot, potential, top)


def vibrations(snapshot: duckdb.DuckDBPyConnection, potential: object, top: int) -> None:
    listed = f"FROM results WHERE {SHORT_LIST} ORDER BY {SHORT_LIST_ORDER} LIMIT {top}"
    for (candidate_id,) in snapshot.execute(f"SELECT candidate_id {listed}").fetchall():
        ((formula, relaxation_id, text),) = snapshot.execute(
            """SELECT formula, relaxation_id, crystal FROM results
               JOIN (SELECT relaxation_id, crystal FROM relaxations) USING (relaxation_id)
               WHERE candidate_id = ?""",
            [candidate_id],
        ).fetchall()
        crystal, started = Crystal.model_validate_json(text), time.process_time()
        said = check_phonons(candidate_id, relaxation_id, crystal, potential)
        spent = time.process_time() - started
        print(f"{formula}: {said.words}; {said.force_calls} force calls, {spent:.1f} CPU s")


def records(snapshot: duckdb.DuckDBPyConnection, kind: str) -> list[object]:
    table = TABLES[kind]
    answer = snapshot.execute(f"SELECT * FROM {table.name}")
    names = [column[0] for column in answer.description]
    return [decode(table.record, dict(zip(names, row, strict=True))) for row in answer.fetchall()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
