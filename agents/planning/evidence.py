"""Results of earlier cycles, in lines short enough for a prompt.

With the fixed lag of the ledger: prompts of cycle k hold results up to cycle k-2. Successes are
unknown, covered candidates near the hull of the reference; failures are candidates high above it,
and the reasons why others were rejected or failed. (That a proposer reads its own successes and
failures is the idea of LLEMA, arXiv:2510.22503.)
"""

from __future__ import annotations

from dataclasses import dataclass

from hullward.agents.planning.ledger import LAG_CYCLES
from hullward.tools.store import Store

MOST_SUCCESSES = 5
MOST_FAILURES = 6
HIGH_EV_PER_ATOM = 0.2  # from here on a candidate is a failure


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Lines for a prompt, the most telling first."""

    up_to_cycle: int = -1
    successes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()  # just above the threshold


def read_evidence(store: Store, cycle: int, metastable_ev_per_atom: float) -> Evidence:
    """The evidence for the prompts of `cycle`."""
    up_to = cycle - LAG_CYCLES
    if up_to < 0:
        return Evidence()
    best = store.rows(
        f"""SELECT formula, space_group_loose, min(e_above_reference_ev_per_atom) AS height
            FROM results
            WHERE cycle <= $up_to AND rewarded
            GROUP BY formula, space_group_loose ORDER BY height, formula, space_group_loose
            LIMIT {MOST_SUCCESSES}""",
        {"up_to": up_to},
    )
    near = store.rows(
        f"""SELECT formula, min(e_above_reference_ev_per_atom) AS height FROM results
            WHERE cycle <= $up_to AND state = 'judged' AND covered AND NOT suspect
              AND standing IS DISTINCT FROM 'known structure' AND duplicate_when_judged IS NULL
            GROUP BY formula
            HAVING height > $threshold AND height <= 2 * $threshold
            ORDER BY height, formula LIMIT {MOST_SUCCESSES}""",
        {"up_to": up_to, "threshold": metastable_ev_per_atom},
    )
    high = store.rows(
        f"""SELECT formula, min(e_above_reference_ev_per_atom) AS height, count(*) AS tried
            FROM results WHERE cycle <= $up_to AND state = 'judged' AND NOT suspect
            GROUP BY formula HAVING height > {HIGH_EV_PER_ATOM}
            ORDER BY tried DESC, height DESC, formula LIMIT {MOST_FAILURES // 2}""",
        {"up_to": up_to},
    )
    stopped = store.rows(
        f"""SELECT reason, count(*) AS n, min(formula) AS example FROM results
            WHERE cycle <= $up_to AND reason IS NOT NULL
              AND state IN ('rejected_parse', 'rejected_check', 'failed')
            GROUP BY reason ORDER BY n DESC, reason LIMIT {MOST_FAILURES // 2}""",
        {"up_to": up_to},
    )
    return Evidence(
        up_to_cycle=up_to,
        successes=tuple(_success(row) for row in best),
        near_misses=tuple(f"{row['formula']}: {_mev(row['height'])}" for row in near),
        failures=(
            *(
                f"{row['formula']}: {_mev(row['height'])} at best in {row['tried']} tries"
                for row in high
            ),
            *(_stop(row["reason"], row["n"], row["example"]) for row in stopped),
        ),
    )


def _success(row: dict[str, object]) -> str:
    group = f", space group {row['space_group_loose']}" if row["space_group_loose"] else ""
    return f"{row['formula']}{group}: {_mev(row['height'])}"


def _mev(height: object) -> str:
    return f"{round(1000 * float(str(height))):+d} meV/atom"


def _stop(reason: str, count: int, example: str | None) -> str:
    where = f", for example {example}" if example else ""
    return f"{count} stopped with {reason.replace('_', ' ')}{where}"
