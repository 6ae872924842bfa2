"""Suspects, each with why: also those that no verdict names, because they never converged.

What fell far in energy and did not converge has no verdict. It is looked at again like every
suspect, from a rattle, and held back like every other; whether it came back is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hullward.models.crystal import Crystal
from hullward.tools.hull import Reference
from hullward.tools.records import Basis, Candidate, Reason, Relaxation, Suspect, Suspicion, Verdict
from hullward.tools.screening.verdicts import (
    DROP_EV_PER_ATOM,
    FAR_BELOW_EV_PER_ATOM,
    SecondLook,
    second_look_of,
    suspicions,
    volume_beside_estimate,
)
from hullward.tools.store import Store

GOING_ON = (None, Reason.STALLED)  # it ended without converging, nothing broke
RATTLE_A = 0.05

Relax = Callable[[Sequence[tuple[str, Crystal]], float], Iterable[Relaxation]]


def store_suspects(store: Store, basis: Basis, reference: Reference, relax: Relax) -> None:
    """Store every suspect of this basis and reference with its reasons.

    relax: relaxes (candidate id, crystal) pairs from a rattle of so many Å; asked only for what
    fell without converging, as verdicts have seen to the others. A failed one is no suspect: it
    counts as failed.
    """
    candidates = {c.candidate_id: c for c in store.load(Candidate)}
    mine = [r for r in store.load(Relaxation) if r.potential_sha256 == basis.potential_sha256]
    first = [r for r in mine if r.protocol == basis.protocol]
    verdicts = {
        v.relaxation_id: v
        for v in store.load(Verdict)
        if v.height == "reference"
        and (v.reference_id, v.reference_version) == (reference.reference_id, reference.version)
    }
    odd = [
        (r, found)
        for r in first
        if r.converged or r.failure in GOING_ON
        if (found := _found(r, verdicts.get(r.relaxation_id), candidates, reference))
    ]
    again = _second_looks([r for r, _ in odd if not r.converged], candidates, mine, basis)
    missing = [i for i in again if again[i] is None]
    for done in relax([(i, candidates[i].crystal) for i in missing], RATTLE_A):
        store.add([done])
        again[done.candidate_id] = done
    store.add(
        Suspect(
            relaxation_id=r.relaxation_id,
            candidate_id=r.candidate_id,
            reference_id=reference.reference_id,
            reference_version=reference.version,
            suspicions=found,
            reasons=reasons(r, candidates[r.candidate_id], reference, found),
            second_look=_look(r, verdicts.get(r.relaxation_id), again.get(r.candidate_id)),
        )
        for r, found in odd
    )


def reasons(
    relaxation: Relaxation,
    candidate: Candidate,
    reference: Reference,
    found: Sequence[Suspicion],
) -> tuple[str, ...]:
    """Each suspicion as a sentence with its numbers."""
    told = []
    energy, start = relaxation.energy_ev_per_atom, relaxation.initial_energy_ev_per_atom
    amounts = candidate.crystal.amounts
    hull = None if reference.lacking(frozenset(amounts)) else reference.hull(candidate.chemsys)
    if Suspicion.FAR_BELOW_HULL in found and hull is not None and energy is not None:
        height = hull.distance(amounts, energy).e_above_hull_ev_per_atom
        told.append(
            f"{height:.3f} eV/atom from the hull, below {FAR_BELOW_EV_PER_ATOM}: "
            "no credible new phase lies so deep"
        )
    if Suspicion.ODD_VOLUME in found and relaxation.crystal is not None:
        ratio, window, whose = volume_beside_estimate(relaxation.crystal, hull, reference)
        told.append(
            f"{relaxation.crystal.volume_per_atom_a3:.1f} Å³/atom, {ratio:.2f} times that of "
            f"{whose}; known compounds have {window[0]} to {window[1]}"
        )
    if Suspicion.DROP_WITHOUT_CONVERGENCE in found and energy is not None and start is not None:
        force = relaxation.residual_force_ev_per_a
        left = "" if force is None else f", forces up to {force:.2f} eV/Å left"
        told.append(
            f"fell by {start - energy:.2f} eV/atom (over {DROP_EV_PER_ATOM}) in {relaxation.steps} "
            f"steps and did not converge{left}"
        )
    return tuple(text.replace("-", "\N{MINUS SIGN}") for text in told)


def _second_looks(
    unconverged: Sequence[Relaxation],
    candidates: dict[str, Candidate],
    mine: Sequence[Relaxation],
    basis: Basis,
) -> dict[str, Relaxation | None]:
    """What stored rattled relaxations say of these, by candidate; None: not looked at again yet."""
    protocol = basis.protocol.model_copy(update={"rattle_a": RATTLE_A})
    done = {r.candidate_id: r for r in mine if r.protocol == protocol}
    return {r.candidate_id: done.get(r.candidate_id) for r in unconverged}


def _found(
    relaxation: Relaxation,
    verdict: Verdict | None,
    candidates: dict[str, Candidate],
    reference: Reference,
) -> tuple[Suspicion, ...]:
    """What the verdict says, or what there is to say of one without a verdict."""
    if verdict is not None:
        return verdict.suspicions
    return suspicions(relaxation, candidates[relaxation.candidate_id], reference)


def _look(first: Relaxation, verdict: Verdict | None, again: Relaxation | None) -> SecondLook:
    if first.converged:
        return verdict.second_look if verdict is not None else "pending"
    return "pending" if again is None else second_look_of(first, again)
