"""Known structures of a reference that substitution may start from."""

from __future__ import annotations

from hullward.models.crystal import Crystal
from hullward.tools.reference import Reference

__all__ = ["HIGHEST_EV_PER_ATOM", "low_structures"]

HIGHEST_EV_PER_ATOM = 0.05  # above the reference's own hull: what could be made


def low_structures(reference: Reference, max_atoms: int) -> list[tuple[str, Crystal]]:
    """(phase id, structure) of all phases near the reference's own hull, in order of their ids.

    Elements and cells larger than `max_atoms` are left out, and so is what has no structure, as
    in a table. Of the Materials Project these are whatever was fetched.
    """
    found = {}
    for phase in reference.source.within(reference.elements):
        crystal = phase.crystal
        if crystal is None or not phase.is_phase or crystal.n_atoms > max_atoms:
            continue
        if len(phase.elements) < 2 or reference.lacking(phase.elements):
            continue
        height = reference.hull(crystal.chemsys).distance(
            phase.composition, phase.energy_ev_per_atom
        )
        if height.e_above_hull_ev_per_atom <= HIGHEST_EV_PER_ATOM:
            found[phase.phase_id] = crystal
    return sorted(found.items())
