"""Verdicts: judge the distance of a relaxed candidate from the hull.

Two heights. *reference*: signed distance from the hull of the reference, the candidate not part of
it. *union*: distance from the hull of the reference and of this campaign's own converged,
non-suspect candidates, of which the candidate is one, so it is never below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import PotentialCard
from hullward.tools.hull import Coverage, Hull, Phase, Reference
from hullward.tools.records import (
    Candidate,
    Relaxation,
    SecondLook,
    Suspicion,
    Verdict,
    VerdictLabel,
)
from hullward.tools.reference import offset_note
from hullward.tools.screening.labels import KnownStructures

STABLE_TOLERANCE = 1e-9  # eV/atom: rounding, not physics
FAR_BELOW_EV_PER_ATOM = -0.15  # no credible new phase lies deeper below a covered hull
# Volume per atom over the additive estimate: of the phases it would decompose into where their
# structures are known, else of the elements (ionic compounds are far denser than their metals). Of
# the MP entries of Li-Fe-P-O within 0.2 eV/atom 98 % lie in the first window, of 5,984 MP
# structures of all kinds 99.9 % in the second.
VOLUME_WINDOW_PHASES = (0.70, 1.50)
VOLUME_WINDOW_ELEMENTS = (0.30, 2.0)
DROP_EV_PER_ATOM = 0.1  # energy gained by a relaxation that never converged


class SuspicionFound(NamedTuple):
    """One suspicion, and its numbers in a sentence."""

    kind: Suspicion
    reason: str


def judge(
    relaxation: Relaxation,
    candidate: Candidate,
    reference: Reference,
    *,
    threshold_ev_per_atom: float,
    rediscovered: str | None = None,
    second_look: SecondLook | None = None,
    typical_error_ev_per_atom: float | None = None,
) -> Verdict:
    """Judge one converged relaxation by a reference.

    threshold_ev_per_atom: metastable up to here.  second_look: the result of a second relaxation;
    'pending' for a suspect unless given.
    Raises ValueError for an unconverged relaxation (there is no verdict on it) and InputError
    when potential and reference are on different energy schemes.
    """
    if not relaxation.converged:
        raise ValueError(f"{relaxation.relaxation_id} did not converge: there is no verdict on it")
    if relaxation.energy_scheme != reference.energy_scheme:
        raise InputError(
            f"energies on {relaxation.energy_scheme!r} cannot be judged by reference "
            f"{reference.reference_id!r} on {reference.energy_scheme!r}"
        )
    pending = reference.lacking(frozenset(candidate.crystal.species))
    hull = None if pending else reference.hull(candidate.chemsys)
    kinds: tuple[Suspicion, ...] = ()
    if hull is not None:
        kinds = tuple(one.kind for one in suspicions(relaxation, candidate, reference))
    return Verdict(
        relaxation_id=relaxation.relaxation_id,
        reference_id=reference.reference_id,
        reference_version=reference.version,
        height="reference",
        suspicions=kinds,
        second_look=second_look or ("pending" if kinds else "not_needed"),
        rediscovered=rediscovered,
        typical_error_ev_per_atom=typical_error_ev_per_atom,
        **_over(hull, relaxation, candidate, reference, threshold_ev_per_atom),
    )


def _over(
    hull: Hull | None,
    relaxation: Relaxation,
    candidate: Candidate,
    reference: Reference,
    threshold_ev_per_atom: float,
) -> dict[str, Any]:
    """The fields of a verdict that depend on the hull; None while it is pending."""
    amounts = candidate.crystal.amounts
    coverage = reference.coverage(amounts)
    distance, label, note = None, VerdictLabel.HULL_PENDING, coverage.note
    if hull is not None:
        assert relaxation.energy_ev_per_atom is not None  # a converged relaxation has one
        distance = hull.distance(amounts, relaxation.energy_ev_per_atom)
        label = _label(distance.e_above_hull_ev_per_atom, coverage, threshold_ev_per_atom)
        note = "; ".join(filter(None, (note, offset_note(distance.decomposition, reference))))
    return {
        "e_above_hull_ev_per_atom": distance.e_above_hull_ev_per_atom if distance else None,
        "decomposition": distance.decomposition if distance else (),
        "label": label,
        "covered": coverage.covered,
        "coverage_note": note,
    }


def new_verdicts(
    relaxed: Iterable[tuple[Candidate, Relaxation]],
    stored: Iterable[Verdict],
    reference: Reference,
    known: KnownStructures,
    threshold_ev_per_atom: float,
    card: PotentialCard,
    second_look: SecondLook | None = None,
) -> list[Verdict]:
    """Verdicts over a reference for converged relaxations that still need one.

    These have no verdict yet, or one that waited for a hull which is there now.
    """
    version = (reference.reference_id, reference.version)
    judged = {
        v.relaxation_id: v
        for v in stored
        if v.height == "reference" and (v.reference_id, v.reference_version) == version
    }
    found = []
    for candidate, relaxation in relaxed:
        earlier = judged.get(relaxation.relaxation_id)
        if earlier is not None and (
            earlier.label != VerdictLabel.HULL_PENDING
            or reference.lacking(frozenset(candidate.crystal.species))
        ):
            continue
        assert relaxation.crystal is not None  # a converged relaxation has a structure
        verdict = judge(
            relaxation,
            candidate,
            reference,
            threshold_ev_per_atom=threshold_ev_per_atom,
            rediscovered=known.match_id(relaxation.crystal),
            second_look=second_look,
            typical_error_ev_per_atom=card.typical_error_ev_per_atom,
        )
        found.append(verdict)
    return found


def union_verdicts(
    judged: Sequence[tuple[Candidate, Relaxation, Verdict]],
    reference: Reference,
    threshold_ev_per_atom: float,
) -> list[Verdict]:
    """Verdicts over reference ∪ this campaign's own phases, from those over the reference.

    Suspects are judged but support the hull only once confirmed. Candidates at compositions the
    reference does not cover do support it: their energies are as good as any, only the reference
    around them is not. What waits for a hull goes on waiting.
    """
    supports: dict[str, list[Phase]] = defaultdict(list)  # by chemical system
    for candidate, relaxation, verdict in judged:
        credible = not verdict.suspicions or verdict.second_look == "confirmed"
        if credible and verdict.label != VerdictLabel.HULL_PENDING:
            supports[candidate.chemsys].append(_as_phase(relaxation, candidate))

    @cache
    def hull_of(chemsys: str) -> Hull:
        elements = set(chemsys.split("-"))
        own = [p for s, found in supports.items() if elements >= set(s.split("-")) for p in found]
        return Hull([*reference.phases(chemsys), *own])

    found = []
    for candidate, relaxation, verdict in judged:
        pending = verdict.label == VerdictLabel.HULL_PENDING
        hull = None if pending else hull_of(candidate.chemsys)
        changes = _over(hull, relaxation, candidate, reference, threshold_ev_per_atom)
        found.append(verdict.model_copy(update={"height": "union", **changes}))
    return found


def suspicions(
    relaxation: Relaxation, candidate: Candidate, reference: Reference
) -> tuple[SuspicionFound, ...]:
    """Why a relaxation is suspect; also for one that did not converge."""
    found = []
    energy, start = relaxation.energy_ev_per_atom, relaxation.initial_energy_ev_per_atom
    if energy is None:
        return ()
    amounts = candidate.crystal.amounts
    hull = None
    if not reference.lacking(frozenset(amounts)):
        hull = reference.hull(candidate.chemsys)
        height = hull.distance(amounts, energy).e_above_hull_ev_per_atom
        if height < FAR_BELOW_EV_PER_ATOM:
            words = (
                f"{height:.3f} eV/atom from the hull, below {FAR_BELOW_EV_PER_ATOM}: "
                "too deep for a credible new phase"
            ).replace("-", "\N{MINUS SIGN}")
            found.append(SuspicionFound(Suspicion.FAR_BELOW_HULL, words))
    if relaxation.crystal is not None:
        ratio, window, whose = _volume_over_estimate(relaxation.crystal, hull, reference)
        if not window[0] <= ratio <= window[1]:
            words = (
                f"{relaxation.crystal.volume_per_atom_a3:.1f} Å³/atom, {ratio:.2f} times that of "
                f"{whose}; known compounds have {window[0]} to {window[1]}"
            )
            found.append(SuspicionFound(Suspicion.ODD_VOLUME, words))
    if not relaxation.converged and start is not None and start - energy > DROP_EV_PER_ATOM:
        force = relaxation.residual_force_ev_per_a
        left = "" if force is None else f", forces up to {force:.2f} eV/Å left"
        words = (
            f"fell by {start - energy:.2f} eV/atom (over {DROP_EV_PER_ATOM}) in {relaxation.steps} "
            f"steps and did not converge{left}"
        )
        found.append(SuspicionFound(Suspicion.DROP_WITHOUT_CONVERGENCE, words))
    return tuple(found)


def _volume_over_estimate(
    crystal: Crystal, hull: Hull | None, reference: Reference
) -> tuple[float, tuple[float, float], str]:
    """(volume per atom over the additive estimate, the window it should lie in, whose volumes)."""
    from pymatgen.core import Element

    if hull is not None:
        structures = dict(reference.library_entries(crystal.chemsys))
        parts = hull.decompose(crystal.amounts)
        if all(part.phase_id in structures for part in parts):
            estimate = sum(p.fraction * structures[p.phase_id].volume_per_atom_a3 for p in parts)
            ratio = crystal.volume_per_atom_a3 / estimate
            return ratio, VOLUME_WINDOW_PHASES, "the phases it would decompose into"
    moles = [Element(symbol).molar_volume for symbol in crystal.species]  # cm³/mol
    estimate = sum(moles) / len(moles) / 0.602214076
    return crystal.volume_per_atom_a3 / estimate, VOLUME_WINDOW_ELEMENTS, "its elements"


def _label(height: float, coverage: Coverage, threshold_ev_per_atom: float) -> VerdictLabel:
    if height > threshold_ev_per_atom:
        return VerdictLabel.UNSTABLE  # a missing phase could only raise it
    if not coverage.covered:
        return VerdictLabel.BELOW_REFERENCE
    return VerdictLabel.STABLE if height <= STABLE_TOLERANCE else VerdictLabel.METASTABLE


def _as_phase(relaxation: Relaxation, candidate: Candidate) -> Phase:
    assert relaxation.energy_ev_per_atom is not None
    return Phase(
        phase_id=candidate.candidate_id,
        formula=candidate.formula,
        composition=candidate.crystal.amounts,
        energy_ev_per_atom=relaxation.energy_ev_per_atom,
        crystal=relaxation.crystal,
        source="this campaign",
    )
