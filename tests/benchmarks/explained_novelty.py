"""How many structures of a screening are known, substituted or new, and the time to explain them.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/explained_novelty.py DIR KNOWN [before]

DIR is a screening's directory, read only; KNOWN a table of known structures. It explains relaxed
structures, or with `before` the proposed ones. Prints the figures of RESULTS.md.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from common import open_snapshot, options

from hullward.models.crystal import Crystal
from hullward.tools.crystal import PrototypeLibrary
from hullward.tools.crystal.files import read_known
from hullward.tools.records import Explanation
from hullward.tools.screening.explain import Explainer

RELAXED = """
    SELECT r.candidate_id, r.duplicate_after, r.label, r.covered, r.suspect, x.crystal
    FROM results r JOIN relaxations x USING (relaxation_id) JOIN proposals p USING (proposal_id)
    WHERE r.converged ORDER BY p."index" """
PROPOSED = """
    SELECT r.candidate_id, r.duplicate_before, r.label, r.covered, r.suspect, x.crystal
    FROM results r JOIN candidates x USING (proposal_id) JOIN proposals p USING (proposal_id)
    ORDER BY p."index" """


def main(directory: Path, known_file: Path, moment: str) -> None:
    started = time.process_time()
    known = read_known(known_file)
    print(f"{len(known):,} known structures read in {time.process_time() - started:.1f} CPU s")
    rows = open_snapshot(directory).execute(PROPOSED if moment == "before" else RELAXED).fetchall()
    explainer, families = Explainer(list(known)), PrototypeLibrary()
    explained: list[tuple[Explanation, bool]] = []
    started = time.process_time()
    for number, (candidate_id, twin, label, covered, suspect, text) in enumerate(rows, start=1):
        crystal = Crystal.model_validate_json(text)
        found = explainer.explain(candidate_id, crystal, "after", families)
        if twin and found.kind != "known":
            found = explainer.explain(candidate_id, crystal, "after", families, ("duplicate", twin))
        low = bool(covered) and label in ("stable", "metastable") and not suspect
        explained.append((found, low))
        if number % 500 == 0:
            spent = time.process_time() - started
            counts = Counter(e.kind for e, _ in explained)
            print(f"{number:,} of {len(rows):,} in {spent:.0f} CPU s: {dict(counts)}", flush=True)
    report(explained, time.process_time() - started)


def report(explained: list[tuple[Explanation, bool]], cpu_s: float) -> None:
    print(f"{len(explained):,} structures explained in {cpu_s:.0f} CPU s")
    kinds = Counter(e.kind for e, _ in explained)
    low = Counter(e.kind for e, within in explained if within)
    for kind, count in kinds.most_common():
        print(f"{kind:<16} {count:>6,}  metastable or stable: {low[kind]:,}")
    for kind in ("lanthanide_swap", "substitution", "structure_type"):
        parents = Counter((e.match_formula, e.match_id) for e, _ in explained if e.kind == kind)
        top = ", ".join(f"{f} ({i}) {n}" for (f, i), n in parents.most_common(12))
        print(f"{kind}: {len(parents):,} parents; {top}")
    swaps = Counter(len(e.exchanged) for e, _ in explained if e.kind == "substitution")
    print(f"elements exchanged: {dict(sorted(swaps.items()))}")
    print(f"inverse: {sum(e.inverse for e, _ in explained):,}")
    own = sum(e.kind == "new_prototype" and e.match_id is None for e, _ in explained)
    print(f"distinct new prototypes: {own:,}")
    new = [e for e, _ in explained if e.kind not in ("known", "duplicate")]
    flagged = [e for e in new if e.disorder]
    print(
        f"disorder: {sum(bool(e.disorder) for e, _ in explained):,} of all, {len(flagged):,} of new"
    )
    for one in flagged[:6]:
        print(f"  {one.candidate_id}: {one.disorder}; {one.words}")


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("known", type=Path)
    parser.add_argument("moment", nargs="?", choices=["before", "after"], default="after")
    given = parser.parse_args()
    main(given.directory, given.known, given.moment)
