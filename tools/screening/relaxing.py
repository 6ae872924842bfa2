"""Relax candidates by the campaign's potential, storing relaxations as they finish.

What comes quickly is stored in batches, one transaction each: a kill loses at most the last one,
which is relaxed or found in the cache again. A structure that relaxed into one that the hard checks
reject has failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Self

from hullward.models.crystal import Crystal
from hullward.models.errors import BreakerError
from hullward.tools.hull import height_over
from hullward.tools.records import Candidate, Proposal, Relaxation
from hullward.tools.screening.screen import OF_BASIS, Screen, in_order
from hullward.tools.screening.validate import Limits, check_geometry
from hullward.tools.store import Store

BATCH = 64  # relaxations of one transaction
GATHER_S = 0.5  # for which they are gathered


def waiting_for_relaxation(
    screen: Screen, proposals: Iterable[Proposal]
) -> list[tuple[str, Crystal]]:
    """Candidates of these proposals that have no relaxation yet, in the order of proposing."""
    known = "" if screen.relax_known else "AND k.proposal_id IS NULL"
    waiting = screen.store.rows(
        f"""SELECT DISTINCT p.candidate_id
            FROM proposals p JOIN candidates c USING (candidate_id)
            ANTI JOIN (FROM relaxations WHERE {OF_BASIS}) r ON r.candidate_id = p.candidate_id
            ANTI JOIN (FROM labels WHERE moment = 'before' AND kind = 'duplicate') d
                ON d.proposal_id = p.proposal_id
            LEFT JOIN (FROM labels WHERE moment = 'before' AND kind = 'known') k
                ON k.proposal_id = p.proposal_id
            WHERE p.proposal_id IN (SELECT unnest($ids::VARCHAR[])) {known}
                AND (p.proposal_id = c.proposal_id OR k.proposal_id IS NOT NULL)""",
        {"ids": [p.proposal_id for p in proposals], **screen.relaxed_by},
    )
    candidates = screen.store.load(Candidate, [row["candidate_id"] for row in waiting])
    by_proposal = {c.proposal_id: c for c in candidates}
    ordered = [by_proposal[i] for i in in_order(screen.store, by_proposal)]
    return [(c.candidate_id, c.crystal) for c in ordered]


def relax_candidates(
    screen: Screen, proposals: Sequence[Proposal], limit: int | None = None
) -> None:
    """Relax what is new, the most promising first.

    limit: relax only so many, those lowest above the hull after a few steps.
    """
    with screen.hooks.timed("supervise"):
        jobs = waiting_for_relaxation(screen, proposals)
        if not jobs or limit == 0:
            return
        results = screen.executor.relax_best_first(
            jobs,
            height_over(screen.reference),
            screen.checked_card.name,
            screen.basis.protocol,
            limit=limit,
            stopping=screen.hooks.stopping,
        )
        total = len(jobs) if limit is None else min(limit, len(jobs))
        most = screen.breaker_failures
        store_relaxations(screen, results, "relax", total, within="supervise", most_failures=most)


def store_relaxations(
    screen: Screen,
    results: Iterable[Relaxation],
    step: str,
    total: int,
    *,
    within: str,
    most_failures: int | None = None,
) -> None:
    """Store relaxations as they finish; raises BreakerError after `most_failures` in a row.

    step: its name for progress.  within: the stage that is timed meanwhile.
    """
    failures = 0
    screen.hooks.progress(step, 0, total)
    with _Batches(screen.store) as batches:
        for done, relaxed in enumerate(results, start=1):
            relaxation = checked_again(relaxed, screen.limits)
            batches.add(relaxation)
            screen.hooks.progress(step, done, total)
            screen.hooks.timed.charge("relax", relaxation.cpu_s)
            if screen.executor.in_this_process:  # whose time is charged to `within`
                screen.hooks.timed.charge(within, -relaxation.cpu_s)
            failures = failures + 1 if relaxation.failure else 0
            if failures == most_failures:
                raise BreakerError(
                    f"{failures} relaxations failed in a row, the last with "
                    f"{relaxation.failure}: {relaxation.detail}. Everything so far is stored; "
                    "see `hullward report`, then `hullward resume`"
                )


def checked_again(relaxation: Relaxation, limits: Limits) -> Relaxation:
    """The relaxation; failed where the hard checks of the geometry reject what it converged to."""
    if not relaxation.converged or relaxation.crystal is None:
        return relaxation
    flaw = check_geometry(relaxation.crystal, limits)
    if flaw is None:
        return relaxation
    found = {"failure": flaw.reason, "detail": f"after relaxing: {flaw.detail}"}
    return relaxation.model_copy(update={"converged": False, **found})


class _Batches:
    """Gathers relaxations for the store; what is left is stored when the block ends, however."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gathered: list[Relaxation] = []
        self._stored_s = 0.0

    def __enter__(self) -> Self:
        return self

    def add(self, relaxation: Relaxation) -> None:
        """Gather one; stored at once unless the last batch was stored just before."""
        self._gathered.append(relaxation)
        if len(self._gathered) >= BATCH or time.monotonic() - self._stored_s > GATHER_S:
            self._flush()

    def _flush(self) -> None:
        batch, self._gathered = self._gathered, []
        if batch:
            self._store.add(batch)
            self._stored_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._flush()
