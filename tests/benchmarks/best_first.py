"""What a screening that ends early finds: relaxed best first beside relaxed in their order.

    python tests/benchmarks/best_first.py DIR

DIR is the directory of a finished `hullward screen`. Nothing is relaxed: every record holds its
force calls and its energy after the first steps, which is enough to replay both orders. The report
gives the share of candidates at most 0.1 (and 0.0) eV/atom above the hull that are found with a
share of all force calls. Prints one JSON document.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from common import options

SPENT = (0.25, 0.4, 0.5, 0.6, 0.75)


def found_by(calls_when_done: np.ndarray, good: np.ndarray, total: float) -> dict[str, float]:
    """The share of the good candidates that are done when a share of all calls is spent."""
    return {f"{s:.0%}": float((calls_when_done[good] <= s * total).mean()) for s in SPENT}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--chunk", type=int, default=0, help="order within groups of this size; 0: all"
    )
    args = parser.parse_args()
    from pymatgen.core import Composition
    from scipy.stats import spearmanr

    from hullward.tools.reference import load_reference
    from hullward.tools.relax.state import EARLY_STEPS
    from hullward.tools.store.query import run_query

    rows = run_query(
        args.directory,
        """SELECT r.force_calls, r.early_energy_ev_per_atom, p.e_above_reference_ev_per_atom,
                  p.formula, p.chemsys
           FROM relaxations r JOIN bases USING (potential_sha256, protocol_id)
           JOIN candidates c USING (candidate_id) JOIN results p USING (proposal_id)
           JOIN proposals q USING (proposal_id)
           WHERE r.early_energy_ev_per_atom IS NOT NULL ORDER BY q."index" """,
    ).rows
    ((spec,),) = run_query(args.directory, "SELECT reference_spec FROM bases").rows
    reference = load_reference(spec)

    def over_hull(formula: str, chemsys: str, energy_ev_per_atom: float) -> float:
        amounts = {str(el): n for el, n in Composition(formula).get_el_amt_dict().items()}
        if reference.missing_elements(frozenset(amounts)):
            return np.inf
        return reference.hull(chemsys).height(amounts, energy_ev_per_atom)

    calls = np.array([row[0] for row in rows], dtype=float)
    height = np.array([np.nan if row[2] is None else row[2] for row in rows])
    early_height = np.array([over_hull(row[3], row[4], row[1]) for row in rows])
    judged = np.isfinite(height)
    size = args.chunk or len(calls)
    first_come = np.cumsum(calls)
    best_first = np.empty(len(calls))
    for start in range(0, len(calls), size):
        part = slice(start, start + size)
        looks = np.minimum(calls[part], EARLY_STEPS)
        rest = calls[part] - looks
        done = np.cumsum(looks)
        order = np.argsort(early_height[part], kind="stable")
        order = order[rest[order] > 0]
        done[order] = looks.sum() + np.cumsum(rest[order])
        best_first[part] = calls[:start].sum() + done
    report: dict[str, object] = {
        "relaxations": len(calls),
        "force_calls": int(calls.sum()),
        "calls_of_first_looks": float(np.minimum(calls, EARLY_STEPS).sum() / calls.sum()),
        "spearman_early_final": float(spearmanr(early_height[judged], height[judged]).statistic),
    }
    for limit in (0.1, 0.0):
        good = judged & (height <= limit)
        report[f"at most {limit} eV/atom"] = {
            "number": int(good.sum()),
            "first come": found_by(first_come, good, calls.sum()),
            "best first": found_by(best_first, good, calls.sum()),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
