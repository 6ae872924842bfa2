"""Suspects: why each is one, and whether a second relaxation, from a rattle, repeats its energy.

Those that converged have a verdict, which names what is suspect and keeps the result of the second
relaxation. What fell far in energy without converging has no verdict; it is relaxed again and held
back all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from hullward.tools.records import (
    Candidate,
    Proposal,
    Protocol,
    Reason,
    Relaxation,
    SecondLook,
    Suspect,
    Verdict,
)
from hullward.tools.screening.relaxing import store_relaxations
from hullward.tools.screening.screen import OF_BASIS, OVER_REFERENCE, Screen
from hullward.tools.screening.verdicts import SuspicionFound, suspicions

UNFINISHED = (None, Reason.STALLED)  # it ended without converging, nothing broke
RATTLE_A = 0.05  # displacement before a suspect is relaxed again
SAME_ENERGY_EV_PER_ATOM = 0.01  # two relaxations agree within this


def rattled_protocol(protocol: Protocol) -> Protocol:
    """The protocol of a second relaxation."""
    return protocol.model_copy(update={"rattle_a": RATTLE_A})


def settle_pending(screen: Screen) -> None:
    """Relax suspects with a pending verdict again, and store the verdicts that follow."""
    rows = screen.store.rows(
        f"""SELECT relaxation_id FROM verdicts
            WHERE height = 'reference' AND second_look = 'pending' AND {OVER_REFERENCE}""",
        screen.judged_by,
    )
    ids = [row["relaxation_id"] for row in rows]
    verdicts = screen.verdicts(ids)
    pairs = screen.pairs_in_order(verdicts)
    again = _relax_again(screen, [candidate for candidate, _ in pairs])
    screen.store.add(
        verdicts[first.relaxation_id].model_copy(
            update={"second_look": second_look_of(first, again[candidate.candidate_id])}
        )
        for candidate, first in pairs
        if candidate.candidate_id in again
    )


def store_suspects(screen: Screen, proposals: Iterable[Proposal] | None = None) -> None:
    """Store every suspect of the basis and its reference with its reasons.

    Relaxes again what fell without converging; a failed relaxation is no suspect, but failed.
    proposals: look at what did not converge among these only, and at what still waits for a second
    relaxation; None: at everything.
    """
    judged = screen.pairs_in_order(_judged_suspects(screen))
    unjudged = screen.pairs_in_order(_unjudged_suspects(screen, proposals))
    verdicts = screen.verdicts([r.relaxation_id for _, r in judged])
    odd: list[tuple[Candidate, Relaxation, tuple[SuspicionFound, ...]]] = []
    for candidate, relaxation in (*judged, *unjudged):
        if found := suspicions(relaxation, candidate, screen.reference):
            odd.append((candidate, relaxation, found))
    again = _relax_again(screen, [c for c, r, _ in odd if not r.converged])
    screen.store.add(
        Suspect(
            relaxation_id=r.relaxation_id,
            candidate_id=r.candidate_id,
            reference_id=screen.reference.reference_id,
            reference_version=screen.reference.version,
            suspicions=tuple(one.kind for one in found),
            reasons=tuple(one.reason for one in found),
            second_look=_second_look(r, verdicts.get(r.relaxation_id), again.get(r.candidate_id)),
        )
        for _, r, found in odd
    )


def _judged_suspects(screen: Screen) -> list[str]:
    """Relaxations whose verdict names suspicions that are not stored, or not like this."""
    rows = screen.store.rows(
        f"""SELECT v.relaxation_id
            FROM (FROM verdicts WHERE height = 'reference' AND {OVER_REFERENCE}) v
            LEFT JOIN (FROM suspects WHERE {OVER_REFERENCE}) s USING (relaxation_id)
            WHERE len(v.suspicions) > 0 AND (s.relaxation_id IS NULL
                OR s.suspicions <> v.suspicions OR s.second_look <> v.second_look)""",
        screen.judged_by,
    )
    return [row["relaxation_id"] for row in rows]


def _unjudged_suspects(screen: Screen, proposals: Iterable[Proposal] | None) -> list[str]:
    """Relaxations without a verdict that ended without breaking, and may be suspect."""
    asked, ids = "true", list[str]()
    if proposals is not None:
        ids = [p.proposal_id for p in proposals]
        asked = "s.relaxation_id IS NOT NULL OR c.proposal_id IN (SELECT unnest($ids::VARCHAR[]))"
    rows = screen.store.rows(
        f"""SELECT r.relaxation_id FROM (FROM relaxations WHERE {OF_BASIS}) r
            JOIN candidates c USING (candidate_id)
            ANTI JOIN (FROM verdicts WHERE height = 'reference' AND {OVER_REFERENCE}) v
                USING (relaxation_id)
            LEFT JOIN (FROM suspects WHERE second_look = 'pending' AND {OVER_REFERENCE}) s
                USING (relaxation_id)
            WHERE (r.failure IS NULL OR r.failure = $stalled) AND ({asked})""",
        {
            **screen.judged_by,
            **screen.relaxed_by,
            "stalled": Reason.STALLED.value,
            **({"ids": ids} if proposals is not None else {}),
        },
    )
    return [row["relaxation_id"] for row in rows]


def _second_look(
    first: Relaxation, verdict: Verdict | None, again: Relaxation | None
) -> SecondLook:
    if first.converged:
        return verdict.second_look if verdict is not None else "pending"
    return "pending" if again is None else second_look_of(first, again)


def _relax_again(screen: Screen, candidates: Sequence[Candidate]) -> dict[str, Relaxation]:
    """Second relaxations by candidate id; what stopping leaves out is not among them."""
    if not candidates:
        return {}
    protocol = rattled_protocol(screen.basis.protocol)
    ids = [c.candidate_id for c in candidates]
    done = _second_relaxations(screen, ids)
    jobs = [(c.candidate_id, c.crystal) for c in candidates if c.candidate_id not in done]
    if not jobs:
        return done
    results = screen.executor.relax(jobs, screen.card.name, protocol, screen.hooks.stopping)
    store_relaxations(screen, results, "second relaxation", len(jobs), within="judge")
    return _second_relaxations(screen, ids)


def _second_relaxations(screen: Screen, candidate_ids: Sequence[str]) -> dict[str, Relaxation]:
    sha256, protocol = screen.basis.potential_sha256, rattled_protocol(screen.basis.protocol)
    wanted = [Relaxation.make_id(i, sha256, protocol) for i in candidate_ids]
    return {r.candidate_id: r for r in screen.store.load(Relaxation, wanted)}


def second_look_of(first: Relaxation, again: Relaxation) -> SecondLook:
    """Whether a rattled relaxation ends where the first one did."""
    if not again.converged or again.energy_ev_per_atom is None or first.energy_ev_per_atom is None:
        return "refuted"
    gap = abs(again.energy_ev_per_atom - first.energy_ev_per_atom)
    return "reproduced" if gap <= SAME_ENERGY_EV_PER_ATOM else "refuted"


def unconverged_suspects(screen: Screen) -> list[tuple[Candidate, Relaxation, Relaxation | None]]:
    """Suspects that never converged, each with its relaxation and the second one, if any."""
    rows = screen.store.rows(
        f"""SELECT relaxation_id FROM (FROM suspects WHERE {OVER_REFERENCE})
            JOIN (FROM relaxations WHERE {OF_BASIS}) USING (relaxation_id) WHERE NOT converged""",
        {**screen.judged_by, **screen.relaxed_by},
    )
    pairs = screen.pairs([row["relaxation_id"] for row in rows])
    again = _second_relaxations(screen, [c.candidate_id for c, _ in pairs])
    return [(c, r, again.get(c.candidate_id)) for c, r in pairs]


def confirm_suspects(screen: Screen, agreed: Collection[str]) -> int:
    """Take back suspects whose second relaxation gave their energy again; count them.

    agreed: relaxation ids of those that another kind of potential agrees on.
    """
    taken = [
        verdict.model_copy(update={"second_look": "confirmed"})
        for verdict in screen.verdicts(agreed).values()
        if verdict.second_look == "reproduced"
    ]
    screen.store.add(taken)
    return len(taken)
