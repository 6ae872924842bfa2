"""Signed differences between the heights that two references give the candidates of one campaign.

    hullward run data/campaigns/li-fe-o.yaml --dir DIR
    hullward rejudge DIR --reference file:mp_entries_Li-Fe-O_2021.jsonl.zst
    python tests/benchmarks/two_references.py DIR

Prints one table, in meV/atom.
"""

from __future__ import annotations

from pathlib import Path

from common import options

from hullward.tools.store.query import as_text, run_query

DIFFERENCES = """
WITH pairs AS (
    SELECT a.covered, 1000 * a.e_above_hull_ev_per_atom AS first,
           1000 * b.e_above_hull_ev_per_atom AS second
    FROM verdicts a JOIN verdicts b USING (relaxation_id, height)
    WHERE height = 'reference' AND a.reference_id = 'embedded' AND b.reference_id <> 'embedded'
)
SELECT covered, count(*) AS n,
       round(median(first - second), 1) AS median_difference,
       round(min(first - second), 1) AS least, round(max(first - second), 1) AS most,
       count(*) FILTER (first <= 0) AS stable_embedded,
       count(*) FILTER (second <= 0) AS stable_other,
       count(*) FILTER (first <= 100) AS metastable_embedded,
       count(*) FILTER (second <= 100) AS metastable_other,
       count(*) FILTER (first <= 100 AND second <= 100) AS metastable_both
FROM pairs GROUP BY covered ORDER BY covered DESC
"""

if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    print("heights over the reference, meV/atom, embedded minus the other")
    print(as_text(run_query(given.directory, DIFFERENCES)))
