"""Perturbations that relaxed back to their parent.

What a perturbation returns within SAME_ENERGY and SAME_VOLUME of its own relaxed parent is that
parent, whether or not the two superpose. Energies are compared where one potential gave both: of
candidates, of seeds relaxed like this campaign's candidates, and of phases of a reference that
this potential relaxed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from hullward.tools.records import Candidate, Relaxation
from hullward.tools.screening.screen import RELAXED, RelaxedSeed, Screen

SAME_ENERGY_EV_PER_ATOM = 0.002
SAME_VOLUME = 0.01  # fraction


class ReturnedTo(NamedTuple):
    """The parents of perturbations that ended where they began, by candidate id."""

    known: dict[str, str]  # phases of the reference and seeds
    candidates: dict[str, str]


def returned_to_parents(
    screen: Screen, pairs: Sequence[tuple[Candidate, Relaxation]]
) -> ReturnedTo:
    """Which of these relaxed candidates are perturbations that are their parent again."""
    parents = _parents(screen, [candidate.proposal_id for candidate, _ in pairs])
    twins = _relaxed(screen, set(parents.values()))
    found = ReturnedTo({}, {})
    for candidate, relaxation in pairs:
        parent = parents.get(candidate.proposal_id)
        if parent is None or parent == candidate.candidate_id:
            continue
        if parent in twins:
            if _same(relaxation, twins[parent]):
                found.candidates[candidate.candidate_id] = parent
        elif (known := _known(screen, parent, candidate.chemsys)) and _same(relaxation, known):
            found.known[candidate.candidate_id] = parent
    return found


def _same(relaxation: Relaxation, parent: RelaxedSeed) -> bool:
    energy, volume = relaxation.energy_ev_per_atom, relaxation.volume_per_atom_a3
    assert energy is not None  # a converged relaxation has both
    assert volume is not None
    return (
        abs(energy - parent.energy_ev_per_atom) <= SAME_ENERGY_EV_PER_ATOM
        and abs(volume / parent.volume_per_atom_a3 - 1) <= SAME_VOLUME
    )


def _parents(screen: Screen, proposal_ids: Sequence[str]) -> dict[str, str]:
    """The only parent of each of these proposals that is a perturbation."""
    rows = screen.store.rows(
        """SELECT proposal_id, parents[1] AS parent FROM proposals
           WHERE operator = 'perturbation' AND len(parents) = 1
               AND proposal_id IN (SELECT unnest($ids::VARCHAR[]))""",
        {"ids": list(proposal_ids)},
    )
    return {row["proposal_id"]: row["parent"] for row in rows}


def _relaxed(screen: Screen, candidate_ids: Collection[str]) -> dict[str, RelaxedSeed]:
    rows = screen.store.rows(
        f"""SELECT candidate_id, energy_ev_per_atom, volume_per_atom_a3 FROM relaxations
            WHERE candidate_id IN (SELECT unnest($ids::VARCHAR[])) AND {RELAXED}""",
        {"ids": sorted(candidate_ids), **screen.relaxed_by},
    )
    return {row.pop("candidate_id"): RelaxedSeed(**row) for row in rows}


def _known(screen: Screen, parent_id: str, chemsys: str) -> RelaxedSeed | None:
    if parent_id in screen.seeds:
        return screen.seeds[parent_id]
    if screen.reference.potential_sha256 != screen.basis.potential_sha256:
        return None
    for phase in screen.reference.phases(chemsys):
        if phase.phase_id == parent_id and phase.crystal is not None:
            return RelaxedSeed(phase.energy_ev_per_atom, phase.crystal.volume_per_atom_a3)
    return None
