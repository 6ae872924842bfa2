"""Suspects: why each is one, and whether a second relaxation, from a rattle, repeats its energy.

Those that converged have a verdict, which names what is suspect and keeps the result of the second
relaxation. What fell far in energy without converging has no verdict; it is relaxed again and held
back all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hullward.tools.records import (
    Candidate,
    Protocol,
    Reason,
    Relaxation,
    SecondLook,
    Suspect,
    Suspicion,
    Verdict,
)
from hullward.tools.relax import relax_cached
from hullward.tools.screening.relaxing import store_relaxations
from hullward.tools.screening.screen import Screen
from hullward.tools.screening.verdicts import suspicions

UNFINISHED = (None, Reason.STALLED)  # it ended without converging, nothing broke
RATTLE_A = 0.05  # displacement before a suspect is relaxed again
SAME_ENERGY_EV_PER_ATOM = 0.01  # two relaxations agree within this


def rattled_protocol(protocol: Protocol) -> Protocol:
    """The protocol of a second relaxation."""
    return protocol.model_copy(update={"rattle_a": RATTLE_A})


def settle_pending(
    screen: Screen,
    relaxed: Sequence[tuple[Candidate, Relaxation]],
    verdicts: Mapping[str, Verdict],
) -> None:
    """Relax suspects with a pending verdict again, and store the verdicts that follow."""
    suspects = [
        (candidate, relaxation, verdict)
        for candidate, relaxation in relaxed
        if (verdict := verdicts.get(relaxation.relaxation_id)) is not None
        and verdict.second_look == "pending"
    ]
    again = _relax_again(screen, [candidate for candidate, _, _ in suspects])
    screen.store.add(
        verdict.model_copy(
            update={"second_look": second_look_of(first, again[candidate.candidate_id])}
        )
        for candidate, first, verdict in suspects
        if candidate.candidate_id in again
    )


def store_suspects(screen: Screen) -> None:
    """Store every suspect of the basis and its reference with its reasons.

    Relaxes again what fell without converging; a failed relaxation is no suspect, but failed.
    """
    candidates = {c.candidate_id: c for c in screen.store.load(Candidate)}
    verdicts = screen.verdicts("reference")
    stored = {s.relaxation_id: s for s in _stored(screen)}
    odd: list[tuple[Relaxation, Sequence[Suspicion], Sequence[str]]] = []
    for r in screen.relaxations(screen.basis.protocol):
        verdict, known = verdicts.get(r.relaxation_id), stored.get(r.relaxation_id)
        if not (r.converged or r.failure in UNFINISHED) or (verdict and not verdict.suspicions):
            continue
        if verdict and known and known.suspicions == verdict.suspicions:
            odd.append((r, known.suspicions, known.reasons))
        elif found := suspicions(r, candidates[r.candidate_id], screen.reference):
            odd.append((r, [one.kind for one in found], [one.reason for one in found]))
    again = _relax_again(screen, [candidates[r.candidate_id] for r, *_ in odd if not r.converged])
    screen.store.add(
        Suspect(
            relaxation_id=r.relaxation_id,
            candidate_id=r.candidate_id,
            reference_id=screen.reference.reference_id,
            reference_version=screen.reference.version,
            suspicions=tuple(kinds),
            reasons=tuple(reasons),
            second_look=_second_look(r, verdicts.get(r.relaxation_id), again.get(r.candidate_id)),
        )
        for r, kinds, reasons in odd
    )


def _second_look(
    first: Relaxation, verdict: Verdict | None, again: Relaxation | None
) -> SecondLook:
    if first.converged:
        return verdict.second_look if verdict is not None else "pending"
    return "pending" if again is None else second_look_of(first, again)


def _stored(screen: Screen) -> list[Suspect]:
    version = (screen.reference.reference_id, screen.reference.version)
    return [
        s for s in screen.store.load(Suspect) if (s.reference_id, s.reference_version) == version
    ]


def _relax_again(screen: Screen, candidates: Sequence[Candidate]) -> dict[str, Relaxation]:
    """Second relaxations by candidate id; what stopping leaves out is not among them."""
    if not candidates:
        return {}
    protocol = rattled_protocol(screen.basis.protocol)
    done = _second_relaxations(screen)
    jobs = [(c.candidate_id, c.crystal) for c in candidates if c.candidate_id not in done]
    if not jobs:
        return done
    until_stopped = (job for job in jobs if not screen.hooks.stopping())
    results = relax_cached(until_stopped, screen.card.name, protocol, screen.home, screen.workers)
    store_relaxations(screen, results, "second relaxation", len(jobs), within="judge")
    return _second_relaxations(screen)


def _second_relaxations(screen: Screen) -> dict[str, Relaxation]:
    return {r.candidate_id: r for r in screen.relaxations(rattled_protocol(screen.basis.protocol))}


def second_look_of(first: Relaxation, again: Relaxation) -> SecondLook:
    """Whether a rattled relaxation ends where the first one did."""
    if not again.converged or again.energy_ev_per_atom is None or first.energy_ev_per_atom is None:
        return "refuted"
    gap = abs(again.energy_ev_per_atom - first.energy_ev_per_atom)
    return "reproduced" if gap <= SAME_ENERGY_EV_PER_ATOM else "refuted"


def unconverged_suspects(screen: Screen) -> list[tuple[Candidate, Relaxation, Relaxation | None]]:
    """Suspects that never converged, each with its relaxation and the second one, if any."""
    suspects = {s.relaxation_id for s in _stored(screen)}
    first = [
        r
        for r in screen.relaxations(screen.basis.protocol)
        if r.relaxation_id in suspects and not r.converged
    ]
    again = _second_relaxations(screen) if first else {}
    candidates = {c.candidate_id: c for c in screen.store.load(Candidate)} if first else {}
    return [(candidates[r.candidate_id], r, again.get(r.candidate_id)) for r in first]


def confirm_suspects(screen: Screen, agreed: Collection[str]) -> int:
    """Take back suspects whose second relaxation gave their energy again; count them.

    agreed: relaxation ids of those that another kind of potential agrees on.
    """
    taken = [
        verdict.model_copy(update={"second_look": "confirmed"})
        for relaxation_id, verdict in screen.verdicts("reference").items()
        if relaxation_id in agreed and verdict.second_look == "reproduced"
    ]
    screen.store.add(taken)
    return len(taken)
