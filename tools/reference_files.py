"""References in files: ComputedEntry JSON here, tables and OPTIMADE in modules of their own.

Nothing in a file is executed: entries are read as plain numbers, never as the classes they name.
The same files may hold entries to be judged. A sidecar `NAME.reference.json` beside
`NAME.parquet` may state what the file does not.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.entry_rows import is_optimade, read_json, read_rows
from hullward.tools.hull import MP2020, Coverage, Phase, Reference
from hullward.tools.records import Record
from hullward.tools.relaxed_entries import RelaxedEntries, is_relaxed_document, relaxed_entries

ENTRY_SUFFIXES = (".json", ".jsonl", ".jsonl.zst", ".jsonl.gz")
TABLE_SUFFIXES = (".parquet", ".csv")

# Anions whose compounds MP2020 always corrects when nothing else present is more electronegative.
CORRECTED_ANIONS = frozenset({"O", "F", "Cl", "Br", "I", "N", "S"})
PBE_RUNS = frozenset({None, "GGA", "GGA+U", "PBE", "PBE+U", "GGA_U"})
REMEDY = (
    "apply pymatgen's MaterialsProject2020Compatibility().process_entries(entries) and save again; "
    'where they are CHGNet\'s, which are corrected already, state "corrected": true in {sidecar}; '
    "or state another 'energy_scheme' there"
)


class Sidecar(Record):
    """What the owner of a file states about it."""

    energy_scheme: str = MP2020
    corrected: bool = False  # the energies are final though no entry shows a correction
    complete: bool | None = None  # every phase known today is in it; None: not stated
    citation: str = ""
    energy_property: str | None = None  # column or OPTIMADE property, where several would do


class FilePhases:
    """The phases of a file, and the same as plain rows to be judged."""

    elements: frozenset[str]
    statement: str

    def __init__(self, name: str, stated: bool | None) -> None:
        self.name, self._stated = name, stated
        self._rows: Sequence[Phase] = ()
        self._by_system: dict[frozenset[str], list[Phase]] = {}
        self._covered: dict[frozenset[str], Coverage] = {}

    def rows(self) -> Sequence[Phase]:
        """What the file itself holds, in its order."""
        return self._rows

    def within(self, elements: frozenset[str]) -> list[Phase]:
        return [
            p for system, phases in self._by_system.items() if system <= elements for p in phases
        ]

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """A file's word counts; without one, each element must at least occur in some compound."""
        elements = frozenset(el for el, amount in composition.items() if amount > 0)
        if elements not in self._covered:
            self._covered[elements] = _file_coverage(elements, phases, self._stated, self.name)
        return self._covered[elements]


def read_file(path: Path) -> Reference:
    """A reference from a file; raises InputError saying what is wrong and how to mend it."""
    if not path.is_file():
        raise InputError(f"no reference file at {path}")
    source, sidecar = _open(path)
    digest = hashlib.sha256(path.read_bytes())
    # A property nobody named leaves versions as they were before it could be named.
    unsaid = None if sidecar.energy_property else {"energy_property"}
    digest.update(sidecar.model_dump_json(exclude=unsaid).encode())
    return Reference(
        reference_id=f"file:{path.name}",
        version=digest.hexdigest()[:16],
        kind="file",
        energy_scheme=sidecar.energy_scheme,
        statement=" ".join(filter(None, (source.statement, sidecar.citation))),
        source=source,
    )


class Entries(NamedTuple):
    """Entries to be judged."""

    phases: Sequence[Phase]
    energy_scheme: str
    statement: str
    relaxed: RelaxedEntries | None = None  # where `hullward relax` wrote them


def _relaxed(found: RelaxedEntries, name: str, energy_property: str | None) -> Entries:
    if energy_property is not None:
        raise InputError(f"{name} is of `hullward relax`: its energy is known, leave out --energy")
    statement = (
        f"{len(found.phases)} relaxations from {name} by {found.card.name}, fmax "
        f"{found.protocol.fmax_ev_per_a:g} eV/Å, on scheme {found.card.energy_scheme!r}."
    )
    return Entries(found.phases, found.card.energy_scheme, statement, found)


def read_entries(path: Path, energy_property: str | None = None) -> Entries:
    """What a file holds, to be judged rather than to judge by; any of a reference's formats.

    Also the JSON document of `hullward relax`.

    energy_property: column or OPTIMADE property; before the sidecar's word.
    Raises InputError as `read_file` does.
    """
    if path.name.endswith(".json") and path.is_file():
        content = read_json(path)
        if is_relaxed_document(content):
            return _relaxed(relaxed_entries(content, path.name), path.name, energy_property)
    source, sidecar = _open(path, energy_property)
    return Entries(source.rows(), sidecar.energy_scheme, source.statement)


def _open(path: Path, energy_property: str | None = None) -> tuple[FilePhases, Sidecar]:
    if not path.is_file():
        raise InputError(f"no file at {path}")
    sidecar = _read_sidecar(sidecar_path(path))
    if energy_property is not None:
        sidecar = sidecar.model_copy(update={"energy_property": energy_property})
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        from hullward.tools.reference_tables import TablePhases

        return TablePhases(path, sidecar), sidecar
    if name.endswith(ENTRY_SUFFIXES):
        rows = read_rows(path)
        if is_optimade(rows):
            from hullward.tools.reference_optimade import OptimadePhases

            return OptimadePhases(rows, path.name, sidecar), sidecar
        return EntryPhases(path, sidecar, rows), sidecar
    known = ", ".join(ENTRY_SUFFIXES + TABLE_SUFFIXES)
    raise InputError(f"cannot read {path.name}: known endings are {known}")


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


def _file_coverage(
    elements: frozenset[str], phases: Sequence[Phase], stated: bool | None, name: str
) -> Coverage:
    if stated is not None:
        return Coverage(stated, f"{name} is stated to be {'' if stated else 'in'}complete")
    if len(elements) == 1:
        return Coverage(True, f"element present in {name}, which makes no statement")
    in_compounds = {el for p in phases if len(p.elements) > 1 for el in p.elements}
    if alone := sorted(elements - in_compounds):
        return Coverage(False, f"{name} has no compound of {', '.join(alone)} in this system")
    return Coverage(True, f"{name} makes no statement and is taken as complete")


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
                who = sidecar_path(Path(name)).name if sidecar.corrected else "the entry, CHGNet's,"
                raise InputError(
                    f"{phase.source}: {who} states a final energy, but {phase.phase_id!r} carries "
                    f"a correction of {float(entry['correction']):.3f} eV, which would count "
                    "twice. Set it to 0, or take 'corrected' out of the sidecar if it is due"
                )
            found.append(phase)
        self._rows, self._by_system = found, by_system(found, name)
        if uncorrected:
            raise InputError(
                f"{name}: {len(uncorrected)} of {len(found)} entries are not on the "
                f"{MP2020!r} scale, e.g. {'; '.join(uncorrected[:3])}. To use them, "
                + REMEDY.format(sidecar=sidecar_path(Path(name)).name)
            )
        self.elements = frozenset(next(iter(s)) for s in self._by_system if len(s) == 1)
        self.statement = (
            f"{len(found)} computed entries from {name}, energies with their corrections, on "
            f"scheme {sidecar.energy_scheme!r}."
        )


def by_system(phases: Sequence[Phase], name: str) -> dict[frozenset[str], list[Phase]]:
    """Phases by their elements; what is said twice is kept once.

    Raises InputError for no phases at all, and for an id with two energies.
    """
    if not phases:
        raise InputError(f"{name} holds no entries")
    seen: dict[str, Phase] = {}
    systems: dict[frozenset[str], list[Phase]] = defaultdict(list)
    for phase in phases:
        first = seen.setdefault(phase.phase_id, phase)
        if first.energy_ev_per_atom != phase.energy_ev_per_atom or first.formula != phase.formula:
            raise InputError(
                f"{phase.source}: id {phase.phase_id!r} occurs with two energies; give each its "
                "own id, or keep one"
            )
        if first is phase:
            systems[phase.elements].append(phase)
    return systems


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
        raise InputError(f"{where}: not a ComputedEntry ({one_line(error)})") from None
    return phase, off_scale(entry, phase.elements)


def one_line(error: Exception) -> str:
    """What a reader of rows caught, without pydantic's page around it."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _is_chgnet(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says that CHGNet computed it: such energies are corrected already."""
    said = {**(entry.get("parameters") or {}), **(entry.get("data") or {})}
    return any("chgnet" in value.lower() for value in said.values() if isinstance(value, str))


def off_scale(entry: Mapping[str, Any], elements: frozenset[str]) -> str:
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
