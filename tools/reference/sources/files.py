"""Read a reference, or entries to be judged, from a file of any known format.

Nothing in a file is executed: entries are read as plain numbers, never as the classes they name.
A sidecar `NAME.reference.json` beside `NAME.parquet` may state what the file does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hullward.models.errors import InputError
from hullward.tools.crystal.files import plain_name
from hullward.tools.hull import Phase, Reference
from hullward.tools.reference.sources.base import FilePhases, Sidecar, read_sidecar, sidecar_path
from hullward.tools.reference.sources.entries import EntryPhases
from hullward.tools.reference.sources.optimade import OptimadePhases
from hullward.tools.reference.sources.relaxed import (
    RelaxedEntries,
    is_relaxed_document,
    relaxed_entries,
)
from hullward.tools.reference.sources.rows import is_optimade, read_json, read_rows
from hullward.tools.reference.sources.tables import TablePhases

ENTRY_SUFFIXES = (".json", ".jsonl")
TABLE_SUFFIXES = (".parquet", ".csv")


def read_file(path: Path) -> Reference:
    """A reference from a file; raises InputError with the problem and its remedy."""
    if not path.is_file():
        raise InputError(f"no reference file at {path}")
    source, sidecar = _open(path)
    digest = hashlib.sha256(path.read_bytes())
    # Versions are older than this field: it counts only where it is used.
    unused = None if sidecar.energy_property else {"energy_property"}
    digest.update(sidecar.model_dump_json(exclude=unused).encode())
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
    zeros: Mapping[str, float] = MappingProxyType({})  # of formation energies: their elements
    caution: str = ""


def _relaxed(found: RelaxedEntries, name: str) -> Entries:
    statement = (
        f"{len(found.phases)} relaxations from {name} by {found.card.name}, fmax "
        f"{found.protocol.fmax_ev_per_a:g} eV/Å, on scheme {found.card.energy_scheme!r}."
    )
    return Entries(found.phases, found.card.energy_scheme, statement, found)


def read_entries(path: Path, energy_property: str | None = None) -> Entries:
    """The entries of a file, to be judged: any format of a reference, or JSON of `hullward relax`.

    energy_property: column or OPTIMADE property, instead of the one in the sidecar.
    Raises InputError as `read_file` does.
    """
    if path.name.endswith(".json") and path.is_file():
        content = read_json(path)
        if is_relaxed_document(content):
            if energy_property is not None:
                raise InputError(f"{path.name}: `hullward relax` wrote it; leave out --energy")
            return _relaxed(relaxed_entries(content, path.name), path.name)
    source, sidecar = _open(path, energy_property)
    return Entries(
        source.rows(),
        sidecar.energy_scheme,
        source.statement,
        zeros=source.zeros,
        caution=source.caution,
    )


def _open(path: Path, energy_property: str | None = None) -> tuple[FilePhases, Sidecar]:
    if not path.is_file():
        raise InputError(f"no file at {path}")
    sidecar = read_sidecar(sidecar_path(path))
    if energy_property is not None:
        sidecar = sidecar.model_copy(update={"energy_property": energy_property})
    name, plain = path.name.lower(), plain_name(path)
    if name.endswith(TABLE_SUFFIXES) or plain.endswith(".csv"):
        return TablePhases(path, sidecar), sidecar
    if plain.endswith(ENTRY_SUFFIXES):
        rows = read_rows(path)
        if is_optimade(rows):
            return OptimadePhases(rows, path.name, sidecar), sidecar
        return EntryPhases(path, sidecar, rows), sidecar
    known = ", ".join(ENTRY_SUFFIXES + TABLE_SUFFIXES)
    raise InputError(
        f"cannot read {path.name}: known endings are {known}, of text also .gz and .zst"
    )
