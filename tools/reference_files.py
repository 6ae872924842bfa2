"""References in files: ComputedEntry JSON here, tables in `reference_tables`.

Nothing in a file is executed: entries are read as plain numbers, never as the classes they name.
A sidecar `NAME.reference.json` beside `NAME.parquet` may state what the file does not.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.hull import Phase
from hullward.tools.records import Record
from hullward.tools.reference import MP2020, Coverage, PhaseSource, Reference

ENTRY_SUFFIXES = (".json", ".jsonl", ".jsonl.zst")
TABLE_SUFFIXES = (".parquet", ".csv")

# Anions whose compounds MP2020 always corrects when nothing else present is more electronegative.
CORRECTED_ANIONS = frozenset({"O", "F", "Cl", "Br", "I", "N", "S"})
PBE_RUNS = frozenset({None, "GGA", "GGA+U", "PBE", "PBE+U", "GGA_U"})
REMEDY = (
    "apply pymatgen's MaterialsProject2020Compatibility().process_entries(entries) and save again, "
    "or state another 'energy_scheme' in the sidecar"
)


class Sidecar(Record):
    """What the owner of a file states about it."""

    energy_scheme: str = MP2020
    corrected: bool = False  # the energies are final though no entry shows a correction
    complete: bool | None = None  # every phase known today is in it; None: not stated
    citation: str = ""


def read_file(path: Path) -> Reference:
    """A reference from a file; raises InputError saying what is wrong and how to mend it."""
    if not path.is_file():
        raise InputError(f"no reference file at {path}")
    sidecar = _read_sidecar(sidecar_path(path))
    name = path.name.lower()
    source: PhaseSource
    if name.endswith(TABLE_SUFFIXES):
        from hullward.tools.reference_tables import TablePhases

        source = TablePhases(path, sidecar)
    elif name.endswith(ENTRY_SUFFIXES):
        source = EntryPhases(path, sidecar)
    else:
        known = ", ".join(ENTRY_SUFFIXES + TABLE_SUFFIXES)
        raise InputError(f"cannot read {path.name} as a reference: known endings are {known}")
    digest = hashlib.sha256(path.read_bytes())
    digest.update(sidecar.model_dump_json().encode())
    return Reference(
        reference_id=f"file:{path.name}",
        version=digest.hexdigest()[:16],
        kind="file",
        energy_scheme=sidecar.energy_scheme,
        statement=" ".join(filter(None, (source.statement, sidecar.citation))),
        source=source,
    )


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of a reference file is, if it has one."""
    return path.with_name(path.name.split(".")[0] + ".reference.json")


def _read_sidecar(path: Path) -> Sidecar:
    if not path.is_file():
        return Sidecar()
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except ValidationError as error:
        known = ", ".join(Sidecar.model_fields)
        raise InputError(
            f"{path.name}: {error.errors()[0]['msg']}; it may state: {known}"
        ) from None


def file_coverage(
    composition: Mapping[str, float], phases: Sequence[Phase], stated: bool | None, name: str
) -> Coverage:
    """A file's word counts; without one, each element must at least occur in some compound."""
    if stated is not None:
        return Coverage(stated, f"{name} is stated to be {'' if stated else 'in'}complete")
    elements = {el for el, amount in composition.items() if amount > 0}
    if len(elements) == 1:
        return Coverage(True, f"element present in {name}, which makes no statement")
    in_compounds = {el for p in phases if len(p.elements) > 1 for el in p.elements}
    if alone := sorted(elements - in_compounds):
        return Coverage(False, f"{name} has no compound of {', '.join(alone)} in this system")
    return Coverage(True, f"{name} makes no statement and is taken as complete")


class EntryPhases:
    """Phases from ComputedEntry or ComputedStructureEntry JSON."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        self.name, self._stated = path.name, sidecar.complete
        self._by_system: dict[frozenset[str], list[Phase]] = defaultdict(list)
        seen: dict[str, float] = {}
        uncorrected: list[str] = []
        for number, entry in enumerate(read_entries(path), start=1):
            phase, reason = _entry_phase(entry, f"{path.name}#{number}")
            if reason and sidecar.energy_scheme == MP2020 and not sidecar.corrected:
                uncorrected.append(f"{phase.phase_id} ({phase.formula}: {reason})")
            if (
                seen.setdefault(phase.phase_id, phase.energy_ev_per_atom)
                != phase.energy_ev_per_atom
            ):
                raise InputError(f"{phase.source}: id {phase.phase_id!r} occurs with two energies")
            self._by_system[phase.elements].append(phase)
        if not seen:
            raise InputError(f"{path.name} holds no entries")
        if uncorrected:
            raise InputError(
                f"{path.name}: {len(uncorrected)} of {len(seen)} entries are not on the "
                f"{MP2020!r} scale, e.g. {'; '.join(uncorrected[:3])}. To use them, {REMEDY}"
            )
        self.elements = frozenset(next(iter(s)) for s in self._by_system if len(s) == 1)
        self.statement = (
            f"{len(seen)} computed entries from {path.name}, energies with their corrections, on "
            f"scheme {sidecar.energy_scheme!r}."
        )

    def within(self, elements: frozenset[str]) -> list[Phase]:
        return [
            p for system, phases in self._by_system.items() if system <= elements for p in phases
        ]

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        return file_coverage(composition, phases, self._stated, self.name)


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file as plain dictionaries; raises InputError for what is no such file."""
    raw = path.read_bytes()
    if path.name.endswith(".zst"):
        try:
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError:
            raise InputError(f"{path.name} needs zstandard: pip install zstandard") from None
        try:
            raw = ZstdDecompressor().stream_reader(raw).read()
        except ZstdError as error:
            raise InputError(f"{path.name} is damaged or not Zstandard: {error}") from None
    try:
        if path.name.lower().endswith(".json"):
            content = json.loads(raw)
            rows = content.get("entries", content) if isinstance(content, dict) else content
        else:
            rows = [json.loads(line) for line in raw.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name}: expected a list of ComputedEntry dictionaries")
    for row in rows:
        inner = row.get("entry")
        yield inner if isinstance(inner, dict) else row


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
        raise InputError(
            f"{where}: not a ComputedEntry ({type(error).__name__}: {error})"
        ) from None
    return phase, off_scale(entry, phase.elements)


def off_scale(entry: Mapping[str, Any], elements: frozenset[str]) -> str:
    """Why the energy of a ComputedEntry dictionary is not on the MP2020 scale; '' when it is."""
    from pymatgen.core import Element

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
