"""Check the short list for imaginary phonons: at most ten cells, best first, in a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hullward.models.crystal import Crystal
from hullward.models.potential import Potential
from hullward.tools.records import PhononCheck
from hullward.tools.relax import MAX_ATOMS, check_phonons
from hullward.tools.store import SHORT_LIST, SHORT_LIST_ORDER, Store

MOST = 10  # cells a call
FORCE_CALLS = 5000  # of all cells together


class CheckedCell(NamedTuple):
    """One entry of the short list and its check."""

    formula: str
    check: PhononCheck
    fresh: bool  # computed now, not found in the store


def check_shortlist(
    store: Store,
    load: Callable[[], Potential],
    potential_sha256: str,
    *,
    top: int = MOST,
    max_atoms: int = MAX_ATOMS,
    force_calls: int = FORCE_CALLS,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    stopping: Callable[[], bool] = lambda: False,
) -> list[CheckedCell]:
    """Check the first `top` entries, storing each result as it comes.

    A cell that this potential has checked is not checked again, unless it had to give up.
    load: loads the potential, once there is something to do.
    """
    rows = store.rows(
        f"""SELECT candidate_id, formula, relaxation_id, crystal FROM results
            JOIN (SELECT relaxation_id, crystal FROM relaxations) USING (relaxation_id)
            WHERE {SHORT_LIST} ORDER BY {SHORT_LIST_ORDER} LIMIT {min(top, MOST)}"""
    )
    stored = {
        c.candidate_id: c
        for c in store.load(PhononCheck)
        if c.potential_sha256 == potential_sha256 and c.result != "not_checked"
    }
    potential: Potential | None = None
    found: list[CheckedCell] = []
    for number, row in enumerate(rows, start=1):
        there = stored.get(row["candidate_id"])
        if there is not None and there.relaxation_id == row["relaxation_id"]:
            found.append(CheckedCell(row["formula"], there, False))
            continue
        if stopping():
            break
        potential = potential or load()
        check = check_phonons(
            row["candidate_id"],
            row["relaxation_id"],
            Crystal.model_validate_json(row["crystal"]),
            potential,
            max_atoms=max_atoms,
            force_calls=force_calls - sum(c.check.force_calls for c in found if c.fresh),
        )
        store.add([check])
        found.append(CheckedCell(row["formula"], check, True))
        progress("vibrations", number, len(rows))
    return found
