"""Phases from computed entries, as pymatgen and mp-api write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.hull import MP2020, Phase
from hullward.tools.reference.sources.base import (
    FilePhases,
    Sidecar,
    phases_by_system,
    reason_of,
    sidecar_path,
)
from hullward.tools.reference.sources.rows import read_rows

# Anions whose compounds MP2020 always corrects when nothing else present is more electronegative.
CORRECTED_ANIONS = frozenset({"O", "F", "Cl", "Br", "I", "N", "S"})
PBE_RUNS = frozenset({None, "GGA", "GGA+U", "PBE", "PBE+U", "GGA_U"})
REMEDY = (
    "apply pymatgen's MaterialsProject2020Compatibility().process_entries(entries) and save again; "
    'where they are CHGNet\'s, which are corrected already, state "corrected": true in {sidecar}; '
    "or state another 'energy_scheme' there"
)


class EntryPhases(FilePhases):
    """Phases from ComputedEntry or ComputedStructureEntry JSON."""

    def __init__(
        self, path: Path, sidecar: Sidecar, rows: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """rows: the file's content, where it has been read already."""
        name = path.name
        super().__init__(name, sidecar.complete)
        found: list[Phase] = []
        uncorrected: list[str] = []
        for number, row in enumerate(read_rows(path) if rows is None else rows, start=1):
            inner = row.get("entry")
            entry = inner if isinstance(inner, dict) else row
            phase, reason = _entry_phase(entry, f"{name}#{number}")
            if reason and sidecar.energy_scheme == MP2020 and not sidecar.corrected:
                uncorrected.append(f"{phase.phase_id} ({phase.formula}: {reason})")
            if entry.get("correction") and (sidecar.corrected or _is_chgnet(entry)):
                source = sidecar_path(Path(name)).name if sidecar.corrected else "the CHGNet entry"
                raise InputError(
                    f"{phase.source}: {source} states a final energy, but {phase.phase_id!r} "
                    f"carries a correction of {float(entry['correction']):.3f} eV, which would "
                    "count twice. Set it to 0, or take 'corrected' out of the sidecar if it is due"
                )
            found.append(phase)
        self._rows, self._by_system = found, phases_by_system(found, name)
        if uncorrected:
            raise InputError(
                f"{name}: {len(uncorrected)} of {len(found)} entries are not on the "
                f"{MP2020!r} scale, e.g. {'; '.join(uncorrected[:3])}. To use them, "
                + REMEDY.format(sidecar=sidecar_path(Path(name)).name)
            )
        self.statement = (
            f"{len(found)} computed entries from {name}, energies with their corrections, on "
            f"scheme {sidecar.energy_scheme!r}."
        )


def _entry_phase(entry: dict[str, Any], where: str) -> tuple[Phase, str]:
    """A phase, and why its energy is not on the MP2020 scale ('' when it is)."""
    from pymatgen.core import Composition

    try:
        composition = {str(el): float(n) for el, n in entry["composition"].items()}
        energy = float(entry["energy"]) + float(entry.get("correction") or 0.0)
        phase = Phase(
            phase_id=str(entry.get("entry_id") or where),
            formula=Composition(composition, strict=True).reduced_formula,
            composition=composition,
            energy_ev_per_atom=energy / sum(composition.values()),
            crystal=_entry_crystal(entry.get("structure")),
            source=where,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"{where}: not a ComputedEntry ({reason_of(error)})") from None
    return phase, why_not_mp2020(entry, phase.elements)


def _is_chgnet(entry: Mapping[str, Any]) -> bool:
    """Whether an entry names CHGNet as its source: such energies are corrected already."""
    facts = {**(entry.get("parameters") or {}), **(entry.get("data") or {})}
    return any("chgnet" in value.lower() for value in facts.values() if isinstance(value, str))


def why_not_mp2020(entry: Mapping[str, Any], elements: frozenset[str]) -> str:
    """Why the energy of a ComputedEntry dictionary is not on the MP2020 scale; '' when it is."""
    from pymatgen.core import Element

    if _is_chgnet(entry):
        return ""
    run = (entry.get("parameters") or {}).get("run_type")
    if run not in PBE_RUNS:
        return f"run type {run}"
    names = [str(a.get("name", "")) for a in entry.get("energy_adjustments") or []]
    if legacy := [n for n in names if n.startswith("MP ") or "Potcar" in n]:
        return f"legacy {legacy[0]!r}"
    anion = max(elements, key=lambda el: Element(el).X if Element(el).X == Element(el).X else 0.0)
    ozonide = (entry.get("data") or {}).get("oxide_type") == "ozonide"  # MP2020 leaves these alone
    due = len(elements) > 1 and anion in CORRECTED_ANIONS and not ozonide
    return "no correction" if due and not entry.get("correction") else ""


def _entry_crystal(structure: dict[str, Any] | None) -> Crystal | None:
    """None where there is no structure, or one with partial occupancy."""
    if not structure:
        return None
    sites = structure["sites"]
    if any(len(s["species"]) != 1 or s["species"][0]["occu"] != 1 for s in sites):
        return None
    species = [str(s["species"][0]["element"]) for s in sites]
    return Crystal.from_arrays(structure["lattice"]["matrix"], species, [s["abc"] for s in sites])
