"""The suspects of a screening with their reasons, and the vibrations of its best candidates.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/suspects.py DIR REFERENCE [TOP]

DIR is a screening's directory, read only; REFERENCE is the one that judged it. A suspect that did
not converge is relaxed again from a rattle. Prints the figures of RESULTS.md.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import duckdb
from common import open_snapshot, options, records

from hullward.models.crystal import Crystal
from hullward.models.potential import Potential, load_potential
from hullward.tools.reference import load_reference
from hullward.tools.relax import check_phonons
from hullward.tools.relax.stream import relax_one
from hullward.tools.screening import UNFINISHED, rattled_protocol, suspicions
from hullward.tools.screening.suspects import second_look_of
from hullward.tools.store import SHORT_LIST, SHORT_LIST_ORDER


def main(directory: Path, spec: str, top: int) -> None:
    snapshot = open_snapshot(directory)
    (basis,) = records(snapshot, "Basis")
    candidates = {c.candidate_id: c for c in records(snapshot, "Candidate")}
    reference, potential = load_reference(spec), load_potential(basis.potential)
    looks = dict(
        snapshot.execute(
            "SELECT relaxation_id, second_look FROM results WHERE second_look IS NOT NULL"
        ).fetchall()
    )
    kinds: Counter[str] = Counter()
    for relaxation in records(snapshot, "Relaxation"):
        if relaxation.protocol != basis.protocol:
            continue
        kinds["converged" if relaxation.converged else str(relaxation.failure or "steps")] += 1
        if not relaxation.converged and relaxation.failure not in UNFINISHED:
            continue
        candidate = candidates[relaxation.candidate_id]
        found = suspicions(relaxation, candidate, reference)
        if not found:
            continue
        look = looks.get(relaxation.relaxation_id)
        if not relaxation.converged:
            protocol = rattled_protocol(basis.protocol)
            again = relax_one(candidate.candidate_id, candidate.crystal, potential, protocol)
            look = f"{second_look_of(relaxation, again)} (converged: {again.converged})"
        kinds["suspect"] += 1
        names, why = ", ".join(s.kind for s in found), "; ".join(s.reason for s in found)
        print(f"{candidate.formula} {names}: {why}; second relaxation {look}", flush=True)
    print(dict(kinds))
    vibrations(snapshot, potential, top)


def vibrations(snapshot: duckdb.DuckDBPyConnection, potential: Potential, top: int) -> None:
    listed = f"FROM results WHERE {SHORT_LIST} ORDER BY {SHORT_LIST_ORDER} LIMIT {top}"
    for (candidate_id,) in snapshot.execute(f"SELECT candidate_id {listed}").fetchall():
        ((formula, relaxation_id, text),) = snapshot.execute(
            """SELECT formula, relaxation_id, crystal FROM results
               JOIN (SELECT relaxation_id, crystal FROM relaxations) USING (relaxation_id)
               WHERE candidate_id = ?""",
            [candidate_id],
        ).fetchall()
        crystal, started = Crystal.model_validate_json(text), time.process_time()
        check = check_phonons(candidate_id, relaxation_id, crystal, potential)
        spent = time.process_time() - started
        print(f"{formula}: {check.words}; {check.force_calls} force calls, {spent:.1f} CPU s")


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("reference")
    parser.add_argument("top", type=int, nargs="?", default=0, help="phonons of so many")
    given = parser.parse_args()
    main(given.directory, given.reference, given.top)
