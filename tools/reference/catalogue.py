"""Lists of all references there are, and of one reference's phases and coverage in a system."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts
from hullward.tools.hull import Hull, Phase, Reference
from hullward.tools.records import Record
from hullward.tools.reference.materials_project import FetchedPhases, fetched_last, versions
from hullward.tools.reference.names import imported, known_names, load_reference
from hullward.tools.reference.sources import BuiltPhases, TablePhases
from hullward.tools.reference.structure_words import structure_words

STABLE_TOLERANCE_EV_PER_ATOM = 1e-9  # rounding
MOST_ATOMS = 40  # of the formula unit of a compound that stands for a subsystem
NAMED_SYSTEMS = 20  # listed by name; the rest is counted


class Available(Record):
    """One reference that can be named in a campaign file."""

    name: str
    kind: str = ""
    version: str = ""
    energy_scheme: str = ""
    phases: int = 0
    systems: tuple[str, ...] = ()  # whole ones, the first of them where there are many
    n_systems: int = 0
    statement: str = ""
    database_version: str | None = None  # of the Materials Project
    date: str | None = None  # of the fetch or import, UTC
    trouble: str = ""  # why it cannot be used; '' where it can


class ShownPhase(Record):
    """One phase of a system."""

    phase_id: str
    formula: str
    stable: bool
    energy_ev_per_atom: float
    formation_energy_ev_per_atom: float
    hull_energy_ev_per_atom: float  # of the hull at its composition
    e_above_hull_ev_per_atom: float
    has_structure: bool
    source: str
    space_group: str = ""
    structure_type: str = ""  # in words, where it is a named one
    note: str = ""  # of an element: what experiment finds instead


class ShownCoverage(Record):
    """Whether the reference covers one composition, and why."""

    formula: str
    covered: bool
    note: str


class Shown(Record):
    """One system in one reference."""

    system: str
    reference_id: str
    reference_version: str
    energy_scheme: str
    statement: str
    n_phases: int
    phases: tuple[ShownPhase, ...]
    coverage: tuple[ShownCoverage, ...]


def available(home: Path | None) -> list[Available]:
    """Every reference there is, the shipped one first; a damaged one has its `trouble`."""
    dates = {one.name: one.imported for one in imported(home)} if home else {}
    rows = []
    older = [f"mp:{version}" for version in versions(home)[:-1]] if home else []
    for name in [*known_names(home), *older]:  # 'mp' is the newest database version
        try:
            reference = load_reference(name, home)
            rows.append(_row(name, reference, home, dates.get(name)))
        except InputError as error:
            rows.append(Available(name=name, trouble=str(error)))
    return rows


def _row(name: str, reference: Reference, home: Path | None, date: str | None) -> Available:
    fetched = reference.kind == "materials_project" and bool(reference.elements)
    systems, phases = _extent(reference)
    return Available(
        name=name,
        kind=reference.kind,
        version=reference.version,
        energy_scheme=reference.energy_scheme,
        phases=phases,
        systems=tuple(systems[:NAMED_SYSTEMS]),
        n_systems=len(systems),
        statement=reference.statement,
        database_version=reference.version if fetched else None,
        date=fetched_last(home, reference.version) if fetched and home else date,
    )


def _extent(reference: Reference) -> tuple[list[str], int]:
    """(largest systems, number of phases), counted without building phases where that is slow."""
    source = reference.source
    if isinstance(source, FetchedPhases):
        return sorted(m.system for m in source.systems.values()), sum(
            m.count for m in source.systems.values()
        )
    if isinstance(source, TablePhases):
        return _largest(source.systems), source.n_phases
    phases = source.within(source.elements)
    if isinstance(source, BuiltPhases):
        return _largest(frozenset(s.split("-")) for s in source.manifest.systems), len(phases)
    return _largest({p.elements for p in phases}), len(phases)


def _largest(systems: Iterable[frozenset[str]]) -> list[str]:
    """Systems that are part of no other, or all of them where they are too many to compare."""
    every = set(systems)
    if len(every) <= 2000:
        every = {s for s in every if not any(s < other for other in every)}
    return sorted("-".join(sorted(s)) for s in every)


def show(system: str, reference: Reference, everything: bool = False) -> Shown:
    """The stable phases of a system, or every phase, by formula, the lowest first.

    Raises InputError where the reference has no hull of the system.
    """
    hull = reference.hull(system)
    phases = [_shown(phase, hull) for phase in reference.phases(system) if phase.is_phase]
    phases.sort(key=lambda p: (p.formula, p.e_above_hull_ev_per_atom, p.phase_id))
    stable = [p for p in phases if p.stable]
    by_id = {phase.phase_id: phase for phase in reference.phases(system)}
    listed = phases if everything else stable
    described = [
        p.model_copy(
            update=dict(
                zip(
                    ("space_group", "structure_type", "note"),
                    structure_words(by_id[p.phase_id]),
                    strict=True,
                )
            )
        )
        for p in listed
    ]
    return Shown(
        system="-".join(hull.elements),
        reference_id=reference.reference_id,
        reference_version=reference.version,
        energy_scheme=reference.energy_scheme,
        statement=reference.statement,
        n_phases=len(phases),
        phases=tuple(described),
        coverage=_coverage(reference, hull, stable),
    )


def _shown(phase: Phase, hull: Hull) -> ShownPhase:
    height = hull.height(phase.composition, phase.energy_ev_per_atom)
    total = sum(phase.composition.values())
    zero = sum(
        phase.composition.get(el, 0.0) / total * float(energy)
        for el, energy in zip(hull.elements, hull.element_energies, strict=True)
    )
    return ShownPhase(
        phase_id=phase.phase_id,
        formula=phase.formula,
        stable=height <= STABLE_TOLERANCE_EV_PER_ATOM,
        energy_ev_per_atom=phase.energy_ev_per_atom,
        formation_energy_ev_per_atom=phase.energy_ev_per_atom - zero,
        hull_energy_ev_per_atom=phase.energy_ev_per_atom - height,
        e_above_hull_ev_per_atom=max(0.0, height),
        has_structure=phase.crystal is not None,
        source=phase.source,
    )


def _coverage(
    reference: Reference, hull: Hull, stable: Iterable[ShownPhase]
) -> tuple[ShownCoverage, ...]:
    """Coverage of every stable compound, and of the likeliest one in subsystems without any."""
    from pymatgen.core import Composition

    from hullward.tools.crystal.stoichiometry import likely_formulas

    compositions: dict[str, dict[str, float]] = {}
    for phase in stable:
        amounts = Composition(phase.formula).get_el_amt_dict()
        if len(amounts) > 1:
            compositions[phase.formula] = dict(amounts)
    have = {frozenset(amounts) for amounts in compositions.values()}
    for size in range(2, len(hull.elements) + 1):
        for part in combinations(hull.elements, size):
            if frozenset(part) not in have:
                system = "-".join(part)
                if likely := likely_formulas(part, MOST_ATOMS):
                    formula = likely[0].formula
                    compositions[f"{system}, as {formula}"] = formula_amounts(formula)
                else:  # noble gases
                    compositions[system] = dict.fromkeys(part, 1.0)
    return tuple(
        ShownCoverage(formula=name, **reference.coverage(amounts)._asdict())
        for name, amounts in compositions.items()
    )
