"""Relax candidates by the campaign's potential, storing each relaxation as it finishes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hullward.models.crystal import Crystal
from hullward.models.errors import BreakerError
from hullward.tools.hull import height_over
from hullward.tools.records import Proposal, Relaxation
from hullward.tools.relax import relax_best_first
from hullward.tools.screening.screen import Screen


def waiting_for_relaxation(
    screen: Screen, proposals: Iterable[Proposal]
) -> list[tuple[str, Crystal]]:
    """Candidates of these proposals that have no relaxation yet, in the order of proposing."""
    wanted = {"pending", "known"} if screen.relax_known else {"pending"}
    waiting = {
        row["proposal_id"]
        for row in screen.store.rows("SELECT proposal_id, state FROM states")
        if row["state"] in wanted
    }
    asked = {p.proposal_id for p in proposals} & waiting
    done = {r.candidate_id for r in screen.relaxations(screen.basis.protocol)}
    candidates = {
        i: c for i, c in screen.candidates().items() if i in asked and c.candidate_id not in done
    }
    jobs = {candidates[i].candidate_id: candidates[i].crystal for i in screen.order(candidates)}
    return list(jobs.items())


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
        results = relax_best_first(
            jobs,
            height_over(screen.reference),
            screen.checked_card.name,
            screen.basis.protocol,
            screen.home,
            screen.workers,
            limit,
            screen.hooks.stopping,
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
    for done, relaxation in enumerate(results, start=1):
        screen.store.add([relaxation])
        screen.hooks.progress(step, done, total)
        screen.hooks.timed.charge("relax", relaxation.cpu_s)
        if screen.workers == 0:  # it ran in this process, whose time is charged to `within`
            screen.hooks.timed.charge(within, -relaxation.cpu_s)
        failures = failures + 1 if relaxation.failure else 0
        if failures == most_failures:
            raise BreakerError(
                f"{failures} relaxations failed in a row, the last with "
                f"{relaxation.failure}: {relaxation.detail}. Everything so far is stored; "
                "see `hullward report`, then `hullward resume`"
            )
