"""Names of references: the values of `reference:`, and where each is stored.

All are under `HOME/references`: built ones as `built/NAME.parquet` with a JSON beside it, imported
ones as `imported/NAME.json`, which names a copy stored by its content, and those of the Materials
Project in `mp/`. Files never change; the one that makes a name visible is written last.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from hullward.models.errors import InputError
from hullward.tools.hull import Reference
from hullward.tools.records import Record
from hullward.tools.reference.materials_project import (
    STABLE,
    read_fetched,
    read_stable,
    versions,
)
from hullward.tools.reference.sources import (
    read_built,
    read_embedded,
    read_file,
    read_records,
    sidecar_path,
)
from hullward.tools.store import sealed, timestamp, write_whole

RESERVED = ("embedded", "mp", "mp-stable", "file", "built", "imported")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class Imported(Record):
    """One imported reference: its original and its copy."""

    name: str
    file_name: str  # of the original
    content: str  # the folder of the copy, named by a hash of its content
    imported: str  # when, UTC


def built_folder(home: Path) -> Path:
    """Where `hullward reference build` writes NAME.parquet and NAME.json."""
    return home / "references" / "built"


def _imported_folder(home: Path) -> Path:
    return home / "references" / "imported"


def built_names(home: Path) -> list[str]:
    folder = built_folder(home)
    return sorted(p.stem for p in folder.glob("*.json") if p.with_suffix(".parquet").is_file())


def imported(home: Path) -> list[Imported]:
    """Every imported reference; raises InputError for a damaged record of one."""
    return read_records(_imported_folder(home), Imported, "import again")


def known_names(home: Path | None) -> list[str]:
    """Every name of a reference, the shipped one first."""
    if home is None:
        return ["embedded"]
    stable = ["mp-stable"] if versions(home, STABLE) else []
    built = [f"built:{name}" for name in built_names(home)]
    return ["embedded", *built, "mp", *stable, *(one.name for one in imported(home))]


def load_reference(spec: str, home: Path | None = None) -> Reference:
    """The reference a campaign names.

    'embedded', 'file:PATH', and under `home`: 'built:NAME', 'mp' (everything fetched from the
    Materials Project), 'mp:VERSION' (of one database version), 'mp-stable' (the stable phases of
    the whole database), or the NAME of an imported file. Without a home only the first two are
    known. Raises InputError, with the nearest name and all others, for an unknown one.
    """
    kind, _, rest = spec.partition(":")
    if spec == "embedded":
        return read_embedded_once()
    if kind == "file" and rest:
        return read_file(Path(rest).expanduser())
    if Path(spec).expanduser().is_file():
        raise InputError(f"unknown reference {spec!r}; to read a file, write 'file:{spec}'")
    if home is not None:
        if kind == "built" and rest in built_names(home):
            return read_built(built_folder(home), rest)
        if kind == "mp":
            return read_fetched(home, rest or None)
        if kind == "mp-stable":
            return read_stable(home, rest or None)
        for one in imported(home):
            if one.name == spec:
                return _read_imported(one, home)
    raise InputError(_unknown(spec, home))


def _read_imported(one: Imported, home: Path) -> Reference:
    folder = _imported_folder(home) / one.content
    reference = read_file(folder / one.file_name)
    if _content(folder / one.file_name) != one.content:
        raise InputError(f"{folder} is damaged; delete it and import {one.file_name} again")
    return replace(reference, reference_id=one.name)


def _unknown(spec: str, home: Path | None) -> str:
    """The message for an unknown name: all known ones, and the nearest."""
    here = known_names(home)
    forms = ["file:PATH"] if home is None else ["file:PATH", "mp:VERSION"]
    choices = {name: name for name in here} | {"file": "file:PATH"}
    if home is not None:
        choices["mp-stable"] = "mp-stable"  # before it is fetched its error names the command
    near = get_close_matches(spec, choices, n=1, cutoff=0.5) or get_close_matches(
        spec.split(":")[0], choices, n=1, cutoff=0.5
    )
    meant = f"; did you mean {choices[near[0]]!r}?" if near else ""
    known = ", ".join(repr(name) for name in [*here, *forms])
    return f"unknown reference {spec!r}; known: {known}{meant}"


def import_file(path: Path, name: str, home: Path) -> Reference:
    """Copy a reference file and its sidecar under a name; the same content is copied once.

    Raises InputError for a file that is no reference, and for a name that is in use.
    """
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"{name!r} is no name for a reference: use small letters, digits and '-', but none of "
            + ", ".join(RESERVED)
        )
    read_file(path)  # an unusable file is refused now, not by a campaign
    content = _content(path)
    one = Imported(name=name, file_name=path.name, content=content, imported=timestamp())
    for other in imported(home):
        if other.name == name and other.content != one.content:
            raise InputError(
                f"{name!r} is already the name of {other.file_name}, imported "
                f"{other.imported[:10]}, with other content; choose another --name"
            )
    folder = _imported_folder(home) / one.content
    folder.mkdir(parents=True, exist_ok=True)
    for file in (sidecar_path(path), path):
        if file.is_file():
            write_whole(folder / file.name, file.read_bytes())
    record = _imported_folder(home) / f"{name}.json"
    if not record.exists():
        write_whole(record, sealed(one.model_dump_json(indent=2)))
    return _read_imported(one, home)


def _content(path: Path) -> str:
    """A folder name from a file's name, its content and its sidecar's content."""
    digest = hashlib.sha256(path.name.encode())
    for file in (path, sidecar_path(path)):
        digest.update(file.read_bytes() if file.is_file() else b"")
        digest.update(b"\0")
    return digest.hexdigest()[:32]


@cache
def read_embedded_once() -> Reference:
    """The reference shipped with the package, read once a process."""
    return read_embedded()
