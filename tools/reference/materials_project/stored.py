"""References fetched from the Materials Project and stored under `HOME/references/mp`.

Each database version and thermo type has a folder, with a file for each whole system (its
compounds, those of its subsystems, its elements) and one for the stable phases of the whole
database. Each file has a manifest beside it, written last: a file without one does not count.
Nothing here contacts a server; `hullward.tools.reference.materials_project.fetch` does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hullward.models.errors import InputError, system_reason
from hullward.tools.hull import MP2020, Coverage, Phase, Reference
from hullward.tools.records import Record
from hullward.tools.reference.sources import EntryPhases, Sidecar, TablePhases, read_records
from hullward.tools.store import sealed, write_whole

THERMO_TYPE = "GGA_GGA+U"  # requested by name: mp-api's default is another, mixed hull
STABLE = "stable"  # in place of a system: the stable phases of the whole database
NOT_FETCHED = "not-fetched"  # the version of a reference that has no file yet
LICENCE = "CC BY 4.0"
CITATION = "Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323"
_SAFE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


class Fetched(Record):
    """The manifest of one file: where it is from and what is in it."""

    database_version: str
    thermo_type: str
    system: str  # 'A-B-…', or 'stable' for the whole database
    mp_api_version: str
    fetched: str  # when, UTC
    count: int  # documents, as many as the server counted
    sha256: str  # of the file beside it
    licence: str = LICENCE
    citation: str = CITATION

    @property
    def file_name(self) -> str:
        return f"{self.system}.parquet" if self.system == STABLE else f"{self.system}.jsonl.zst"


def mp_folder(home: Path) -> Path:
    """The folder of everything from the Materials Project."""
    return home / "references" / "mp"


def versions(home: Path, what: str | None = None) -> list[str]:
    """Stored database versions, oldest first; what: only those with this system, or 'stable'."""
    folders = [p for p in mp_folder(home).glob("*") if (p / THERMO_TYPE).is_dir()]
    name = f"{what}.json" if what else "*.json"
    return sorted((p.name for p in folders if any((p / THERMO_TYPE).glob(name))), key=_age)


def _age(version: str) -> tuple[list[int], str]:
    """A key that sorts versions: dates with or without leading zeros, sometimes with a suffix."""
    return [int(number) for number in re.findall(r"\d+", version)], version


def best_version(home: Path, systems: Sequence[str]) -> str | None:
    """The stored version with most of these systems, the newest of equals; None without any."""
    wanted = [frozenset(system.split("-")) for system in systems]

    def held(version: str) -> int:
        here = [frozenset(m.system.split("-")) for m in manifests(home, version)]
        return sum(any(system <= whole for whole in here) for system in wanted)

    return max(reversed(_with_systems(home)), key=held, default=None)


def holds(home: Path, version: str | None, systems: Sequence[str]) -> bool:
    """Whether every one of these systems was fetched with this database version."""
    return version is not None and not any(
        read_fetched(home, version).lacking(frozenset(system.split("-"))) for system in systems
    )


def _with_systems(home: Path) -> list[str]:
    """Stored versions with more than the stable phases, oldest first."""
    return [v for v in versions(home) if any(m.system != STABLE for m in manifests(home, v))]


def manifests(home: Path, version: str) -> list[Fetched]:
    """The manifests of one database version; raises InputError for one that is damaged."""
    folder = _folder(home, version)
    found = read_records(folder, Fetched, "fetch again")
    for path, manifest in zip(sorted(folder.glob("*.json")), found, strict=True):
        if (manifest.system, manifest.database_version) != (path.stem, version):
            raise InputError(
                f"{path} is about {manifest.system} of version {manifest.database_version}; "
                "delete it and fetch again"
            )
    return found


def fetched_last(home: Path, version: str) -> str | None:
    """The time of the last fetch from a database version, UTC."""
    return max((m.fetched for m in manifests(home, version)), default=None)


def keep(home: Path, manifest: Fetched, content: bytes) -> None:
    """Store a file, then its manifest. Stored files never change."""
    folder = _folder(home, manifest.database_version)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{manifest.system}.json"
    if not path.exists():
        write_whole(folder / manifest.file_name, content)
        write_whole(path, sealed(manifest.model_dump_json(indent=2)))


def _folder(home: Path, version: str) -> Path:
    if not _SAFE.fullmatch(version):
        raise InputError(f"{version!r} is no version of the Materials Project's database")
    return mp_folder(home) / version / THERMO_TYPE


def read_fetched(home: Path, version: str | None = None) -> Reference:
    """Everything fetched of one database version, by default the newest.

    Where nothing was fetched yet the reference is empty: candidates of every system wait.
    Raises InputError for a version of which nothing was fetched.
    """
    chosen = _choose(home, version, "systems")
    found = [] if chosen is None else [m for m in manifests(home, chosen) if m.system != STABLE]
    source = FetchedPhases(_folder(home, chosen) if chosen else mp_folder(home), found)
    return Reference(
        reference_id=f"mp:{THERMO_TYPE}",
        version=chosen or NOT_FETCHED,
        kind="materials_project",
        energy_scheme=MP2020,
        statement=_statement(found) if found else "Materials Project: nothing fetched yet.",
        source=source,
        absent=source.absent,
    )


def read_stable(home: Path, version: str | None = None) -> Reference:
    """The stable phases of the whole database; raises InputError where they were not fetched."""
    chosen = _choose(home, version, STABLE)
    if chosen is None:
        raise InputError("mp-stable was not fetched yet: `hullward reference fetch --stable`")
    [manifest] = [m for m in manifests(home, chosen) if m.system == STABLE]
    path = _folder(home, chosen) / manifest.file_name
    _intact(path, manifest)
    return Reference(
        reference_id=f"mp-stable:{THERMO_TYPE}",
        version=chosen,
        kind="materials_project",
        energy_scheme=MP2020,
        statement=(
            f"{manifest.count} stable phases of the whole Materials Project, formation energies "
            f"without structures, so nothing can be matched with them. {_origin(manifest)}"
        ),
        source=TablePhases(
            path, Sidecar(complete=True, energy_property="formation_energy_per_atom")
        ),
    )


def _choose(home: Path, version: str | None, what: str) -> str | None:
    """The named version, or the newest; None where there is none at all."""
    stored = versions(home, STABLE) if what == STABLE else _with_systems(home)
    if version is None:
        return stored[-1] if stored else None
    if version not in stored:
        raise InputError(
            f"nothing was fetched from database version {version!r} of the Materials Project; "
            f"fetched: {', '.join(stored) or 'none'}"
        )
    return version


def _statement(found: Sequence[Fetched]) -> str:
    named = ", ".join(m.system for m in found[:8]) + (", …" if len(found) > 8 else "")
    return (
        f"Materials Project entries of {len(found)} whole systems ({named}). {_origin(found[-1])}"
    )


def _origin(manifest: Fetched) -> str:
    return (
        f"Database version {manifest.database_version}, thermo type {manifest.thermo_type}, "
        f"through mp-api {manifest.mp_api_version} on {manifest.fetched[:10]}. "
        f"{manifest.licence}; {manifest.citation}."
    )


def _intact(path: Path, manifest: Fetched) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {system_reason(error)}; fetch it again") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise InputError(f"{path} is damaged; delete it with its manifest and fetch again")


class FetchedPhases:
    """Phases of whole systems, each read from its file when first needed."""

    def __init__(self, folder: Path, found: Sequence[Fetched]) -> None:
        self._folder = folder
        self.systems = {frozenset(m.system.split("-")): m for m in found}
        self.elements = frozenset(el for system in self.systems for el in system)
        self._read: dict[frozenset[str], list[Phase]] = {}

    def absent(self, elements: frozenset[str]) -> str:
        """Why there is no hull of these elements; '' where a fetched system holds them all."""
        if any(elements <= system for system in self.systems):
            return ""
        return f"{'-'.join(sorted(elements))} was not fetched from the Materials Project"

    def within(self, elements: frozenset[str]) -> list[Phase]:
        """The stored phases of these elements: all there are where the system was fetched."""
        holders = [system for system in self.systems if elements <= system]
        chosen = [min(holders, key=len)] if holders else [s for s in self.systems if elements & s]
        found: dict[str, Phase] = {}
        for system in chosen:
            for phase in self._phases(system):
                if phase.elements <= elements:
                    found.setdefault(phase.phase_id, phase)
        return list(found.values())

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """Covered: any composition within a system that was fetched whole."""
        elements = frozenset(el for el, amount in composition.items() if amount > 0)
        if why := self.absent(elements):
            return Coverage(False, why)
        return Coverage(True, f"all {len(phases)} entries of {'-'.join(sorted(elements))}")

    def _phases(self, system: frozenset[str]) -> list[Phase]:
        if system not in self._read:
            manifest = self.systems[system]
            path = self._folder / manifest.file_name
            _intact(path, manifest)
            self._read[system] = EntryPhases(path, Sidecar(complete=True)).within(system)
        return self._read[system]
