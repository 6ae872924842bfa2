"""Verdicts: judge the distance of a relaxed candidate from the hull.

Two heights. *reference*: signed distance from the hull of the reference, the candidate not part of
it. *union*: distance from the hull of the reference and of this campaign's own converged,
non-suspect candidates, of which the candidate is one, so it is never below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import PotentialCard
from hullward.tools.crystal import Match
from hullward.tools.hull import Coverage, HullDistance, Reference
from hullward.tools.records import (
    Candidate,
    Product,
    Relaxation,
    SecondLook,
    Suspicion,
    Verdict,
    VerdictLabel,
)
from hullward.tools.reference import offset_note

STABLE_EV_PER_ATOM = 0.001  # on the hull: relaxations are no more exact
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
    distance: HullDistance | None = None,
) -> Verdict:
    """Judge one converged relaxation by a reference.

    threshold_ev_per_atom: metastable up to here.  second_look: the result of a second relaxation;
    'pending' for a suspect unless given.  distance: from the reference's hull, computed if absent.
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
    kinds: tuple[Suspicion, ...] = ()
    if not reference.lacking(frozenset(candidate.crystal.species)):
        distance = distance or _distance(relaxation, candidate, reference)
        kinds = tuple(
            one.kind for one in suspicions(relaxation, candidate, reference, distance=distance)
        )
    return Verdict(
        relaxation_id=relaxation.relaxation_id,
        reference_id=reference.reference_id,
        reference_version=reference.version,
        height="reference",
        suspicions=kinds,
        second_look=second_look or ("pending" if kinds else "not_needed"),
        rediscovered=rediscovered,
        typical_error_ev_per_atom=typical_error_ev_per_atom,
        **over(distance, candidate.crystal.amounts, reference, threshold_ev_per_atom),
    )


def _distance(relaxation: Relaxation, candidate: Candidate, reference: Reference) -> HullDistance:
    assert relaxation.energy_ev_per_atom is not None  # a converged relaxation has one
    hull = reference.hull(candidate.chemsys)
    return hull.distance(candidate.crystal.amounts, relaxation.energy_ev_per_atom)


def over(
    distance: HullDistance | None,
    amounts: Mapping[str, float],
    reference: Reference,
    threshold_ev_per_atom: float,
) -> dict[str, Any]:
    """The fields of a verdict that depend on the hull.

    distance: None while the hull is pending.
    """
    coverage = reference.coverage(amounts)
    if distance is None:
        label, note = VerdictLabel.HULL_PENDING, coverage.note
    else:
        label = _label(distance.e_above_hull_ev_per_atom, coverage, threshold_ev_per_atom)
        offset = offset_note(distance.decomposition, reference)
        note = "; ".join(filter(None, (coverage.note, offset)))
    return {
        "e_above_hull_ev_per_atom": distance.e_above_hull_ev_per_atom if distance else None,
        "decomposition": distance.decomposition if distance else (),
        "label": label,
        "covered": coverage.covered,
        "coverage_note": note,
    }


def verdicts_over(
    reference: Reference,
    relaxed: Sequence[tuple[Candidate, Relaxation]],
    known: Mapping[str, Match],
    threshold_ev_per_atom: float,
    card: PotentialCard,
    second_look: SecondLook | None = None,
) -> list[Verdict]:
    """Verdicts over a reference for converged relaxations, in one batch a system.

    known: the known phases that relaxed structures match, by relaxation id.
    """
    distances = _distances(reference, relaxed)
    found = []
    for candidate, relaxation in relaxed:
        match = known.get(relaxation.relaxation_id)
        verdict = judge(
            relaxation,
            candidate,
            reference,
            threshold_ev_per_atom=threshold_ev_per_atom,
            rediscovered=match.match_id if match else None,
            second_look=second_look,
            typical_error_ev_per_atom=card.typical_error_ev_per_atom,
            distance=distances.get(relaxation.relaxation_id),
        )
        found.append(verdict)
    return found


def _distances(
    reference: Reference, relaxed: Sequence[tuple[Candidate, Relaxation]]
) -> dict[str, HullDistance]:
    """Distances from a reference's hulls by relaxation id; of pending ones there are none."""
    by_system: dict[str, list[tuple[Candidate, Relaxation]]] = {}
    for pair in relaxed:
        by_system.setdefault(pair[0].chemsys, []).append(pair)
    found: dict[str, HullDistance] = {}
    for chemsys, pairs in by_system.items():
        if reference.lacking(frozenset(chemsys.split("-"))):
            continue
        hull = reference.hull(chemsys)
        fractions = hull.fractions([candidate.crystal.amounts for candidate, _ in pairs])
        energies = np.array([relaxation.energy_ev_per_atom for _, relaxation in pairs])
        distances = hull.distances(fractions, energies)
        ids = (relaxation.relaxation_id for _, relaxation in pairs)
        found.update(zip(ids, distances, strict=True))
    return found


def suspicions(
    relaxation: Relaxation,
    candidate: Candidate,
    reference: Reference,
    *,
    distance: HullDistance | None = None,
) -> tuple[SuspicionFound, ...]:
    """Why a relaxation is suspect; also for one that did not converge.

    distance: from the reference's hull, computed if absent.
    """
    found = []
    energy, start = relaxation.energy_ev_per_atom, relaxation.initial_energy_ev_per_atom
    if energy is None:
        return ()
    if not reference.lacking(frozenset(candidate.crystal.species)):
        distance = distance or _distance(relaxation, candidate, reference)
        height = distance.e_above_hull_ev_per_atom
        if height < FAR_BELOW_EV_PER_ATOM:
            words = (
                f"{height:.3f} eV/atom from the hull, below {FAR_BELOW_EV_PER_ATOM}: "
                "too deep for a credible new phase"
            ).replace("-", "\N{MINUS SIGN}")
            found.append(SuspicionFound(Suspicion.FAR_BELOW_HULL, words))
    if relaxation.crystal is not None:
        parts = None if distance is None else distance.decomposition
        ratio, window, whose = _volume_over_estimate(relaxation.crystal, parts, reference)
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
    crystal: Crystal, parts: Sequence[Product] | None, reference: Reference
) -> tuple[float, tuple[float, float], str]:
    """(volume per atom over the additive estimate, the window it should lie in, whose volumes).

    parts: what it would decompose into, None while the hull is pending.
    """
    from pymatgen.core import Element

    if parts is not None:
        structures = dict(reference.library_entries(crystal.chemsys))
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
    return VerdictLabel.STABLE if height <= STABLE_EV_PER_ATOM else VerdictLabel.METASTABLE
