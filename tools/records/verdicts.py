"""Verdicts of relaxations by a reference, and the phase diagrams that they rest on."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from hullward.tools.records.base import Record

SecondLook = Literal["not_needed", "pending", "reproduced", "refuted", "confirmed"]


class VerdictLabel(StrEnum):
    """What a height above the hull means."""

    STABLE = "stable"  # at or below the hull, composition covered
    METASTABLE = "metastable"  # within the campaign's threshold
    UNSTABLE = "unstable"  # above it; a more complete reference could only raise the height
    BELOW_REFERENCE = "below_reference"  # low, but the reference does not cover the composition
    HULL_PENDING = "hull_pending"  # no hull for this composition


class Suspicion(StrEnum):
    """Too good or too odd to be true."""

    FAR_BELOW_HULL = "far_below_hull"
    ODD_VOLUME = "odd_volume"
    DROP_WITHOUT_CONVERGENCE = "drop_without_convergence"


class Product(Record):
    """One phase of a decomposition."""

    phase_id: str
    formula: str
    fraction: float  # of atoms


class Verdict(Record):
    """One relaxation judged against one version of one reference, with one kind of height."""

    relaxation_id: str
    reference_id: str
    reference_version: str
    height: Literal["reference", "union"]
    e_above_hull_ev_per_atom: float | None  # signed; None while the hull is pending
    decomposition: tuple[Product, ...]
    label: VerdictLabel
    covered: bool
    coverage_note: str
    suspicions: tuple[Suspicion, ...] = ()
    # A suspect is relaxed again from a rattled structure: reproduced or refuted. It is held back in
    # both cases; only the agreement of another potential makes it confirmed.
    second_look: SecondLook = "not_needed"
    rediscovered: str | None = None  # id of the reference phase the relaxed structure matches
    typical_error_ev_per_atom: float | None  # of the potential; None when the source gives none


class DiagramPhase(Record):
    """One phase of a phase diagram: of the reference, or a candidate on the hull."""

    phase_id: str
    formula: str
    formation_energy_ev_per_atom: float
    e_above_hull_ev_per_atom: float  # 0.0 for a corner of the hull
    is_phase: bool = True  # false: a point known to lie on the hull, of no known structure
    space_group: int | None = None  # of phases on the hull with a structure, symprec 0.1 Å
    measured_space_groups: tuple[int, ...] = ()  # of an element, as found by experiment


class PhaseDiagram(Record):
    """The hull of one chemical system over the reference and what a campaign found."""

    chemsys: str
    reference_id: str
    reference_version: str
    element_energies_ev_per_atom: dict[str, float]  # zero of the formation energies
    phases: tuple[DiagramPhase, ...]  # corners of the hull first, then the lowest a composition
    facets: tuple[tuple[int, ...], ...]  # numbers of the corners in equilibrium, as in `phases`
