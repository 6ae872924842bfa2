"""Read proposals from files of other generators, each row as one `RawInput`.

    .jsonl .json .yaml   rows with one of: `text` or `raw` (crystal text of either form), `cif`,
                         `structure` (pymatgen dict), or `lengths`, `angles`, `species`, `coords`;
                         a row may itself be a pymatgen structure
    .parquet .csv        the same as columns; the last four hold JSON, or lists in Parquet
    .cif                 each data block with atoms is one input
    .extxyz .xyz         frames with a lattice, periodic in three directions
    POSCAR… CONTCAR… .vasp .poscar   with element symbols
    .db .traj            an ASE database or trajectory
    folder               its CIFs and POSCARs in the order of their names, hidden files left out

Text files may be packed (.gz, .zst). The wanted formula is read from `target_formula`, or beside
crystal text from `formula` or `prompt`; a `formula` beside a structure only describes it. Rows
count from 0. An unusable row becomes an input whose parsing gives a `Flaw`; only an unusable file
raises.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files.cif import (
    CifLimits,
    CifReader,
    decode_cif,
    read_cif,
    split_blocks,
)
from hullward.tools.crystal.files.formats import (
    ase_database,
    ase_trajectory,
    parse_extxyz,
    parse_poscar,
)
from hullward.tools.crystal.files.json_values import (
    Row,
    absent,
    id_text,
    malformed,
    parse_crystal_json,
    parse_table_row,
)
from hullward.tools.crystal.files.kinds import KINDS, Format, pandas_form
from hullward.tools.crystal.files.parquet import parquet_rows
from hullward.tools.crystal.files.unpacking import (
    MAX_CELL_CHARS,
    OVERSIZE,
    csv_rows,
    plain_name,
    read_lines,
    read_text,
    unpacked,
)
from hullward.tools.crystal.files.yaml_document import MAX_YAML_BYTES, load_yaml
from hullward.tools.crystal.input_checks import MAX_SITES, shorten
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.records import Flaw, Reason

ID_COLUMNS = ("material_id", "id", "mp_id")  # the first of them that a table has names its rows
COLUMNS = {c for _, columns in KINDS for c in columns} | {"formula", "prompt", *ID_COLUMNS}
NEEDED = "`text`, `raw`, `structure`, `cif`, or all of `lengths`, `angles`, `species`, `coords`"
PROMPTED_FORMULA = re.compile(r"chemical formula is ([A-Z][A-Za-z0-9.()]*?)\.?(?:\s|$)")
_NUMBER_ALONE = re.compile(r"\s*[1-9][0-9]{0,2}[ \t\r]*\n")  # a space group instead of lengths
MOST_NAMES = 20  # of files left out, in a note
MOST_NAME_CHARS = 120  # of a row's own name


@dataclass(frozen=True)
class RawInput:
    """One proposal as in its file."""

    raw: str  # verbatim; compact JSON if the file has no text for it
    format: Format
    place: str  # 'mp-1005.cif#0', 'generated.parquet#12'
    target_formula: str | None = None
    row: Row = field(default_factory=dict, compare=False, repr=False)  # its columns, if it has any
    name: str = ""  # a row's own

    @property
    def source(self) -> str:
        """With the name if it has one: 'mp-1005 (generated.parquet#12)'."""
        return f"{self.name} ({self.place})" if self.name else self.place


Reader = Callable[[Path], Iterator[RawInput]]


def read_inputs(path: Path) -> Iterator[RawInput]:
    """Every proposal in a file or a folder of CIFs, in order.

    Raises InputError at once for a path that is missing, unreadable, of an unknown kind, or
    without the needed columns.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a file of proposals or a folder of CIFs.")
    if path.is_dir():
        return _folder(path)
    reader = _reader(path)
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise InputError(
            f"{path}: unknown kind of file {path.suffix!r}. Readable: {known}, POSCAR, CONTCAR, "
            "text files also with .gz or .zst, or a folder of CIFs."
        )
    try:
        return reader(path)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # pyarrow's are ValueErrors
        raise InputError(
            f"{path} cannot be read as {path.suffix}: {shorten(str(error), 200)}"
        ) from error


def _reader(path: Path) -> Reader | None:
    """The reader of a file by its ending or name; None for an unknown kind."""
    name = plain_name(path)
    reader = READERS.get(Path(name).suffix)
    if reader is None and name.startswith(("poscar", "contcar")):
        reader = _poscar
    packed = name != path.name.lower()
    return None if packed and reader in NEVER_PACKED else reader


def parse_raw(raw: str, format: Format, cif_reader: CifReader | None = None) -> Crystal | Flaw:
    """The crystal of a raw input, or its flaw. Pass a `cif_reader` to read many CIFs."""
    if format == "crystal_text":
        return parse_cell_text(raw)
    if format == "asymmetric_text":
        return parse_asymmetric_text(raw)
    if format == "cif":
        found = cif_reader.read(raw) if cif_reader else read_cif(raw)
        if isinstance(found, Flaw):
            return found
        if len(found) != 1:
            return Flaw(reason=Reason.BAD_CIF, detail=f"{len(found)} structures in one input")
        return found[0]
    if len(raw) > MAX_CELL_CHARS:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{len(raw)} characters")
    if raw.startswith(OVERSIZE):
        return Flaw(reason=Reason.TOO_LARGE, detail=shorten(raw.removeprefix(OVERSIZE), 100)[1:-1])
    if format == "extxyz":
        return parse_extxyz(raw)
    if format == "poscar":
        return parse_poscar(raw)
    if not raw.strip():
        return Flaw(reason=Reason.EMPTY, detail="no structure given")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return malformed(f"not JSON, begins {shorten(raw)}")
    if value is None:
        return Flaw(reason=Reason.EMPTY, detail="no structure given")
    if not isinstance(value, dict):
        return malformed(f"expected an object, found {shorten(raw)}")
    return parse_table_row(value) if format == "table_row" else parse_crystal_json(value)


def text_format(text: str) -> Format:
    """The form of a crystal text, judged by its first line."""
    return "asymmetric_text" if _NUMBER_ALONE.match(text) else "crystal_text"


def _parquet(path: Path) -> Iterator[RawInput]:
    import pyarrow.parquet as pq

    names = pq.ParquetFile(path).schema_arrow.names
    kind = _kind(path, [names])
    wanted = sorted(c for c in set(names) if c in COLUMNS or c.startswith("target_"))
    return _from_rows(path, kind, parquet_rows(path, wanted))


def _csv(path: Path) -> Iterator[RawInput]:
    kind = _kind(path, [next(csv_rows(path, csv.reader), [])])
    return _from_rows(path, kind, csv_rows(path, csv.DictReader))


def _json(path: Path) -> Iterator[RawInput]:
    return _from_document(path, json.loads(read_text(path)))


def _yaml(path: Path) -> Iterator[RawInput]:
    return _from_document(path, load_yaml(read_text(path, MAX_YAML_BYTES), path.name))


def _from_document(path: Path, value: object) -> Iterator[RawInput]:
    rows = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and (form := pandas_form(value)):
        raise InputError(
            f"{path.name} is a table written as {form}; write one row a structure, with pandas as "
            "to_json(…, orient='records', lines=True) and the ending .jsonl"
        )
    return _from_rows(path, _kind(path, [r for r in rows if isinstance(r, dict)]), rows)


def _jsonl(path: Path) -> Iterator[RawInput]:
    rows = (row for row in _jsonl_rows(path) if isinstance(row, dict))
    return _from_rows(path, _kind(path, rows), _jsonl_rows(path))


def _jsonl_rows(path: Path) -> Iterator[object]:
    return (_unpacked(ln.rstrip("\n")) for ln in read_lines(path, cut=True) if ln.strip())


def _kind(path: Path, rows: Iterable[Iterable[str]]) -> tuple[Format, tuple[str, ...]]:
    """The kind of the rows: that of the first row with known columns."""
    seen: list[str] = []
    for row in rows:
        names = list(row)
        for kind in KINDS:
            if set(kind[1]) <= set(names):
                return kind
        seen = seen or names
    found = ", ".join(f"`{shorten(str(name), 30)[1:-1]}`" for name in seen[:12]) or "no rows"
    raise InputError(
        f"{path}: expected {NEEDED}; found {found}. Rename the columns to one of these."
    )


def _from_rows(
    path: Path, kind: tuple[Format, tuple[str, ...]], rows: Iterable[object]
) -> Iterator[RawInput]:
    for number, row in enumerate(rows):
        place = f"{_clean(path.name)}#{number}"
        if isinstance(row, dict):
            yield _from_row(row, kind, place)
        else:  # parsed as a table row, it gives MALFORMED_ROW and is shown unchanged
            yield RawInput(
                _clean(row if isinstance(row, str) else _compact(row)), "table_row", place
            )


def _from_row(row: Row, kind: tuple[Format, tuple[str, ...]], place: str) -> RawInput:
    """The input of one row, of the file's kind or, if that does not fit, of its own."""
    format, columns = kind
    if not set(columns) <= set(row):
        format, columns = next((k for k in KINDS if set(k[1]) <= set(row)), kind)
    target = row.get("target_formula")
    if format == "crystal_text":
        target = target or row.get("formula") or _prompted(row.get("prompt"))
    target = _clean(target) if isinstance(target, str) and target else None
    if format == "table_row":
        raw = _compact({name: _unpacked(row.get(name)) for name in columns})
    elif len(columns) > 1:  # the row itself
        raw = _compact(row)
    else:
        value = row.get(columns[0])
        raw = "" if absent(value) else value if isinstance(value, str) else _compact(value)
    if format == "crystal_text":
        format = text_format(raw)
    own = next(filter(None, (id_text(row.get(column)) for column in ID_COLUMNS)), "")
    return RawInput(_clean(raw), format, place, target, row, _clean(own[:MOST_NAME_CHARS]))


def _unpacked(cell: object) -> object:
    """The value of a cell's JSON; any other cell unchanged."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _prompted(prompt: object) -> str | None:
    match = PROMPTED_FORMULA.search(prompt) if isinstance(prompt, str) else None
    return match[1] if match else None


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)


def _clean(text: str) -> str:
    """Text that can be stored as UTF-8: half a surrogate pair becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def structure_files(folder: Path) -> list[Path]:
    """The CIFs and POSCARs of a folder in the order of their names, without hidden files."""
    return sorted(
        p
        for p in folder.iterdir()
        if not p.name.startswith(".") and p.is_file() and _reader(p) in (_cif, _poscar)
    )


def skipped_note(path: Path) -> str:
    """What of a folder is not read: hidden files, other kinds, folders; else ''."""
    if not path.is_dir():
        return ""
    read = {p.name for p in structure_files(path)}
    names = sorted(shorten(p.name, 80)[1:-1] for p in path.iterdir() if p.name not in read)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{path.name}: not read: {', '.join(names[:MOST_NAMES])}{more}" if names else ""


def _folder(path: Path) -> Iterator[RawInput]:
    files = structure_files(path)
    if not files:
        raise InputError(
            f"{path} contains no CIF and no POSCAR. Give a folder of them, or a file of proposals."
        )
    return (found for file in files for found in (_reader(file) or _cif)(file))


def _beginning(path: Path) -> bytes:
    """The content of a file of one structure, or enough of it to be rejected when parsed."""
    limit = CifLimits().max_bytes + 1
    held = bytearray()
    for piece in unpacked(path):
        held += piece[: limit - len(held)]
        if len(held) >= limit:
            break
    return bytes(held)


def _cif(path: Path) -> Iterator[RawInput]:
    data = _beginning(path)
    text = decode_cif(data)
    blocks = [text] if len(data) > CifLimits().max_bytes else split_blocks(text)
    return (RawInput(_clean(b), "cif", f"{_clean(path.name)}#{i}") for i, b in enumerate(blocks))


def _poscar(path: Path) -> Iterator[RawInput]:
    data = _beginning(path)
    text = data.decode("utf-8-sig", "backslashreplace")
    if len(data) > CifLimits().max_bytes:
        text = f"{OVERSIZE}a file of more than {CifLimits().max_bytes:,} bytes"
    return iter([RawInput(_clean(text), "poscar", f"{_clean(path.name)}#0")])


def _extxyz(path: Path) -> Iterator[RawInput]:
    frames = _frames(read_lines(path, cut=True))
    first = next(frames, None)
    if first is None:
        raise InputError(
            f"{path} contains no frames. An extxyz frame starts with its number of atoms."
        )
    return (
        RawInput(_clean(frame), "extxyz", f"{_clean(path.name)}#{i}")
        for i, frame in enumerate(chain([first], frames))
    )


def _frames(lines: Iterator[str]) -> Iterator[str]:
    """The texts of frames; after a count that is no number, the rest is one frame."""
    for line in lines:
        if not line.strip():
            continue
        if not re.fullmatch(r"\s*[0-9]{1,7}\s*", line):
            yield line + "".join(islice(lines, MAX_SITES))
            return
        kept = "".join(islice(lines, min(int(line), MAX_SITES) + 1))
        for _ in islice(lines, max(int(line) - MAX_SITES, 0)):
            pass
        yield kept[kept.index(OVERSIZE) :] if OVERSIZE in kept else line + kept


def _ase(structures: Callable[[Path], Iterator[str]]) -> Reader:
    def reader(path: Path) -> Iterator[RawInput]:
        found = structures(path)
        first = next(found, None)
        if first is None:
            raise InputError(f"{path} contains no structures")
        return (
            RawInput(raw, "crystal_json", f"{_clean(path.name)}#{i}")
            for i, raw in enumerate(chain([first], found))
        )

    return reader


_database, _trajectory = _ase(ase_database), _ase(ase_trajectory)
READERS: dict[str, Reader] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".cif": _cif,
    ".extxyz": _extxyz,
    ".xyz": _extxyz,
    ".vasp": _poscar,
    ".poscar": _poscar,
    ".db": _database,
    ".traj": _trajectory,
}
NEVER_PACKED = (_parquet, _database, _trajectory)
