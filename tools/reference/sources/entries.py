"""Phases from computed entries, as pymatgen and mp-api write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import composition_amounts, reduced_spelling
from hullward.tools.crystal import shorten
from hullward.tools.hull import MP2020, Phase
from hullward.tools.reference.sources.base import (
    FilePhases,
    Sidecar,
    check_composition,
    phases_by_system,
    reason_of,
    sidecar_path,
)
from hullward.tools.reference.sources.energies import other_functional
from hullward.tools.reference.sources.rows import read_rows

# Anions whose compounds MP2020 always corrects when nothing else present is more electronegative.
CORRECTED_ANIONS = frozenset({"O", "F", "Cl", "Br", "I", "N", "S"})
PBE_RUNS = frozenset({"GGA", "GGA+U", "PBE", "PBE+U", "GGA_U"})
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
    try:
        if not isinstance(entry["composition"], dict):
            raise ValueError("composition: expected amounts of elements")
        if lost := [el for el, amount in entry["composition"].items() if amount is None]:
            raise ValueError(f"composition: no amount of {', '.join(lost[:3])}")
        composition = composition_amounts(entry["composition"])
        energy = float(entry["energy"]) + float(entry.get("correction") or 0.0)
        phase = Phase(
            phase_id=str(entry.get("entry_id") or where),
            formula=reduced_spelling(composition),
            composition=composition,
            energy_ev_per_atom=energy / sum(composition.values()),
            crystal=_entry_crystal(entry.get("structure"), composition),
            source=where,
        )
    except InputError as error:
        raise InputError(f"{where}: {_name(entry)}{error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
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
    facts = {**(entry.get("data") or {}), **(entry.get("parameters") or {})}
    run = facts.get("run_type")
    if run is not None and str(run).upper() not in PBE_RUNS:
        return f"run type {run}"
    if other := other_functional(str(entry.get("entry_id") or "")):
        return f"run type {other} in its id"
    names = [str(a.get("name", "")) for a in entry.get("energy_adjustments") or []]
    if legacy := [n for n in names if n.startswith("MP ") or "Potcar" in n]:
        return f"legacy {legacy[0]!r}"
    anion = max(elements, key=lambda el: Element(el).X if Element(el).X == Element(el).X else 0.0)
    ozonide = (entry.get("data") or {}).get("oxide_type") == "ozonide"  # MP2020 leaves these alone
    due = len(elements) > 1 and anion in CORRECTED_ANIONS and not ozonide
    return "no correction" if due and not entry.get("correction") else ""


def _entry_crystal(
    structure: dict[str, Any] | None, composition: Mapping[str, float]
) -> Crystal | None:
    """None where there is no structure, or one that is no ordered bulk crystal.

    Raises InputError where the structure has another composition than the entry.
    """
    if not structure:
        return None
    sites = structure["sites"]
    found: Counter[str] = Counter()
    for site in sites:
        for occupant in site["species"]:
            for el, n in composition_amounts({occupant["element"]: occupant["occu"]}).items():
                found[el] += n  # type: ignore[assignment]
    check_composition(composition, found, "its structure")
    ordered = all(len(s["species"]) == 1 and s["species"][0]["occu"] == 1 for s in sites)
    if not ordered or structure["lattice"].get("pbc") not in (None, [True] * 3):
        return None
    species = [next(iter(composition_amounts({s["species"][0]["element"]: 1}))) for s in sites]
    return Crystal.from_arrays(structure["lattice"]["matrix"], species, [s["abc"] for s in sites])


def _name(entry: Mapping[str, Any]) -> str:
    return f"entry {shorten(str(entry['entry_id']))}: " if entry.get("entry_id") else ""
