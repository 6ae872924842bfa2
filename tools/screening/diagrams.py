"""Phase diagrams of a campaign's systems, stored for its report.

One record a system: every corner of the hull over reference and campaign, the facets between them,
and the lowest phases above it. A report draws these and never reads a reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from hullward.tools.crystal import space_group
from hullward.tools.hull import Hull, Phase, Reference
from hullward.tools.records import CampaignRecord, DiagramPhase, PhaseDiagram
from hullward.tools.reference import element_structures
from hullward.tools.screening.screen import Screen
from hullward.tools.screening.union import judged_by_system, union_hulls
from hullward.tools.store import SYSTEMS_DRAWN, systems_to_draw

HIGHEST_EV_PER_ATOM = 0.2  # above the hull; higher phases of the reference are not stored
SYMPREC_A = 0.1


def store_diagrams(screen: Screen) -> None:
    """Store the phase diagrams of the systems that a report draws, where they changed."""
    judged = judged_by_system(screen)
    campaigns = screen.store.load(CampaignRecord)
    wanted = campaigns[0].settings.get("systems") or () if campaigns else ()
    systems = systems_to_draw(judged, wanted)[:SYSTEMS_DRAWN]
    stored = {d.chemsys: d for d in screen.store.load(PhaseDiagram, systems)}
    hulls = union_hulls(screen)
    screen.store.add(
        phase_diagram(
            hulls.hull(system), system, screen.reference, groups=_space_groups(stored.get(system))
        )
        for system in systems
        if not screen.reference.lacking(frozenset(system.split("-")))
    )


def phase_diagram(
    hull: Hull, chemsys: str, reference: Reference, *, groups: Mapping[str, int] | None = None
) -> PhaseDiagram:
    """A hull as a record.

    reference: its phases above the hull are added, the lowest of each composition.  groups: known
    space groups of phases, by id; those of other corners with a structure are found here.
    """
    corners = hull.stable_phases
    fractions = hull.fractions([p.composition for p in corners])
    formation = [p.energy_ev_per_atom for p in corners] - fractions @ hull.element_energies
    found = [
        _corner(phase, energy, groups or {})
        for phase, energy in zip(corners, formation.tolist(), strict=True)
    ]
    return PhaseDiagram(
        chemsys=chemsys,
        reference_id=reference.reference_id,
        reference_version=reference.version,
        element_energies_ev_per_atom=dict(
            zip(hull.elements, hull.element_energies.tolist(), strict=True)
        ),
        phases=(*found, *_above(hull, reference.phases(chemsys))),
        facets=tuple(tuple(row) for row in hull.facets.tolist()),
    )


def _corner(phase: Phase, formation: float, groups: Mapping[str, int]) -> DiagramPhase:
    number = groups.get(phase.phase_id)
    if number is None and phase.crystal is not None and phase.is_phase:
        number = space_group(phase.crystal, SYMPREC_A)
    elements = tuple(phase.elements)
    return DiagramPhase(
        phase_id=phase.phase_id,
        formula=phase.formula,
        formation_energy_ev_per_atom=formation,
        e_above_hull_ev_per_atom=0.0,
        is_phase=phase.is_phase,
        space_group=number,
        measured_space_groups=(
            tuple(element_structures().get(elements[0], {})) if len(elements) == 1 else ()
        ),
    )


def _above(hull: Hull, phases: tuple[Phase, ...]) -> list[DiagramPhase]:
    """The lowest phase of each composition that has no corner, up to HIGHEST_EV_PER_ATOM."""
    taken = {p.formula for p in hull.stable_phases}
    others = [p for p in phases if p.is_phase and p.formula not in taken]
    if not others:
        return []
    fractions = hull.fractions([p.composition for p in others])
    energies = [p.energy_ev_per_atom for p in others]
    heights = (energies - hull.energies(fractions)).tolist()
    formation = (energies - fractions @ hull.element_energies).tolist()
    lowest: dict[str, DiagramPhase] = {}
    for height, energy, phase in sorted(
        zip(heights, formation, others, strict=True), key=lambda row: (row[0], row[2].phase_id)
    ):
        if height <= HIGHEST_EV_PER_ATOM and phase.formula not in lowest:
            lowest[phase.formula] = DiagramPhase(
                phase_id=phase.phase_id,
                formula=phase.formula,
                formation_energy_ev_per_atom=energy,
                e_above_hull_ev_per_atom=height,
            )
    return list(lowest.values())


def _space_groups(stored: PhaseDiagram | None) -> dict[str, int]:
    phases = stored.phases if stored else ()
    return {p.phase_id: p.space_group for p in phases if p.space_group is not None}
