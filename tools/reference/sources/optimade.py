"""Phases from OPTIMADE JSON Lines: a header, then one entry a line.

The standard (doi:10.1038/s41597-021-00974-z) has no energies, so they are in a provider's own
property; `energy_column` chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.tools.hull import Phase
from hullward.tools.reference.sources.base import (
    FilePhases,
    Sidecar,
    check_composition,
    phases_by_system,
    reason_of,
)
from hullward.tools.reference.sources.energies import (
    EnergyColumn,
    check_functional,
    element_zeros,
    energies_statement,
    energy_column,
    total_energies_caution,
)

FORMULAS = ("chemical_formula_reduced", "chemical_formula_descriptive", "chemical_formula_hill")
NOT_ORDERED = {"disorder", "implicit_atoms", "site_attachments", "assemblies"}
UNITS = {None, "eV", "ev", "eV/atom", "eV.atom^-1", "eV atom^-1"}


class OptimadePhases(FilePhases):
    """The structures of an OPTIMADE file that carry an energy per atom."""

    def __init__(self, rows: Sequence[dict[str, Any]], name: str, sidecar: Sidecar) -> None:
        super().__init__(name, sidecar.complete)
        entries = [
            (number, entry)
            for number, row in enumerate(rows, start=1)
            for entry in [row.get("data", row)]
            if isinstance(entry, dict) and entry.get("type") == "structures"
        ]
        if not entries:
            raise InputError(f"{name} holds no OPTIMADE structures")
        column = _energy_property(entries, rows, name, sidecar.energy_property)
        found = [_phase(entry, column, f"{name}#{number}") for number, entry in entries]
        check_functional((p.phase_id for p in found), sidecar.energy_scheme, name)
        elements = {el for p in found for el in p.elements}
        zeros: dict[str, float] = {}
        if column.kind == "formation":
            zeros = element_zeros([frozenset(elements)], sidecar.energy_scheme, name)
            found = [_from_zero(p, zeros) for p in found]
        self.zeros, self.caution = zeros, total_energies_caution(column, sidecar)
        self._rows = found
        self._by_system = phases_by_system(found, name)
        for el in sorted(elements & zeros.keys()):
            self._by_system.setdefault(frozenset({el}), []).append(_zero_phase(el, zeros, name))
        self.statement = energies_statement(
            len(found), column, name, sidecar.energy_scheme, len(elements)
        )


def _energy_property(
    entries: Sequence[tuple[int, dict[str, Any]]],
    rows: Sequence[dict[str, Any]],
    name: str,
    chosen: str | None,
) -> EnergyColumn:
    own: dict[str, None] = {}  # a set that keeps its order
    for number, entry in entries:
        attributes = entry.get("attributes")
        if not isinstance(attributes, dict):
            raise InputError(f"{name}#{number}: a structure without 'attributes'")
        own |= dict.fromkeys(key for key in attributes if key.startswith("_"))
    column = energy_column(list(own), name, chosen)
    for row in rows:  # the file may define its properties, units included
        properties = row.get("properties")
        facts = properties.get(column.name) if isinstance(properties, dict) else None
        if isinstance(facts, dict):
            unit = facts.get("x-optimade-unit", facts.get("unit"))
            if unit not in UNITS:
                raise InputError(f"{name}: {column.name!r} is in {unit}; give eV/atom")
    return column


def _phase(entry: dict[str, Any], column: EnergyColumn, where: str) -> Phase:
    facts = entry["attributes"]
    formula = next((facts[key] for key in FORMULAS if facts.get(key)), None)
    energy = facts.get(column.name)
    if energy is None:
        raise InputError(f"{where}: structure {entry.get('id')!r} has no {column.name!r}")
    try:
        composition = formula_amounts(formula)
        crystal = _crystal(facts)
        if crystal is not None:
            check_composition(composition, crystal.amounts, "its structure")
        return Phase(
            phase_id=str(entry.get("id") or where),
            formula=reduced_spelling(composition),
            composition=composition,
            energy_ev_per_atom=float(energy),
            crystal=crystal,
            source=where,
        )
    except InputError as error:
        raise InputError(f"{where}: structure {entry.get('id')!r}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where}: not an OPTIMADE structure ({reason_of(error)})") from None


def _crystal(facts: dict[str, Any]) -> Crystal | None:
    """None where there is no structure, or one that is no ordered bulk crystal.

    Such are slabs, wires and molecules, partial occupancy, vacancies, and attached atoms.
    """
    if facts.get("dimension_types") not in (None, [1, 1, 1]):
        return None
    if facts.get("nperiodic_dimensions") not in (None, 3):
        return None
    if NOT_ORDERED.intersection(facts.get("structure_features") or ()) or facts.get("assemblies"):
        return None
    names, lattice = facts.get("species_at_sites"), facts.get("lattice_vectors")
    positions = facts.get("cartesian_site_positions")
    if not (names and lattice and positions):
        return None
    species = {s["name"]: s for s in facts.get("species") or []}
    sites = [species.get(name, {"chemical_symbols": [name]}) for name in names]
    if not all(map(_is_one_atom, sites)):
        return None
    symbols = [s["chemical_symbols"] for s in sites]
    fractional = np.linalg.solve(np.array(lattice, dtype=float).T, np.array(positions, float).T).T
    return Crystal.from_arrays(lattice, [s[0] for s in symbols], fractional)


def _is_one_atom(species: Mapping[str, Any]) -> bool:
    """Whether every site of an OPTIMADE species is one atom of one element."""
    symbols, shares = species["chemical_symbols"], species.get("concentration") or [1]
    whole = len(symbols) == len(shares) == 1 and abs(float(shares[0]) - 1) < 1e-6
    return whole and symbols[0] not in ("X", "vacancy") and not any(species.get("nattached") or ())


def _from_zero(phase: Phase, zeros: Mapping[str, float]) -> Phase:
    amounts = phase.composition
    zero = sum(zeros[el] * n for el, n in amounts.items()) / sum(amounts.values())
    return phase.model_copy(update={"energy_ev_per_atom": phase.energy_ev_per_atom + zero})


def _zero_phase(element: str, zeros: Mapping[str, float], name: str) -> Phase:
    return Phase(
        phase_id=f"element-{element}",
        formula=element,
        composition={element: 1.0},
        energy_ev_per_atom=zeros[element],
        source=f"{name}: zero of {element}",
    )
