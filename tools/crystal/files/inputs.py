"""Read proposals from files of other generators, each row as one `RawInput`.

    .jsonl .json   rows with one of: `text` or `raw` (crystal text of either form), `cif`,
                   `structure` (pymatgen dict), or `lengths`, `angles`, `species` and `coords`
    .parquet .csv  the same as columns; the last four hold JSON, or lists in Parquet
    .cif, folder   CIFs in the order of their names; each data block with atoms is one input
    .extxyz .xyz   frames with a lattice, periodic in three directions

The wanted formula is read from `target_formula`, or beside crystal text from `formula` or
`prompt`; a `formula` beside a structure only describes it. Rows count from 0. An unusable row
becomes an input whose parsing gives a `Flaw`; only an unusable file raises.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files.cif import (
    CifLimits,
    CifReader,
    decode_cif,
    read_cif,
    split_blocks,
)
from hullward.tools.crystal.files.json_values import (
    TABLE_COLUMNS,
    Row,
    absent,
    malformed,
    parse_crystal_json,
    parse_table_row,
)
from hullward.tools.crystal.input_checks import shorten
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.records import Flaw, Reason

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Format = Literal["crystal_text", "asymmetric_text", "cif", "crystal_json", "table_row"]
KINDS: tuple[tuple[Format, tuple[str, ...]], ...] = (  # the first whose columns are all present
    ("table_row", TABLE_COLUMNS),
    ("crystal_json", ("structure",)),
    ("crystal_text", ("text",)),
    ("crystal_text", ("raw",)),
    ("cif", ("cif",)),
    ("crystal_json", ("lattice", "sites")),  # the row itself is a pymatgen structure
    ("crystal_json", ("lattice", "species", "frac_coords")),  # or one of our crystals
)
COLUMNS = {c for _, columns in KINDS for c in columns} | {"formula", "prompt"}
NEEDED = "`text`, `raw`, `structure`, `cif`, or all of `lengths`, `angles`, `species`, `coords`"
PROMPTED_FORMULA = re.compile(r"chemical formula is ([A-Z][A-Za-z0-9.()]*?)\.?(?:\s|$)")
_NUMBER_ALONE = re.compile(r"\s*[1-9][0-9]{0,2}[ \t\r]*\n")  # a space group instead of lengths
MAX_CELL_CHARS = 10_000_000


@dataclass(frozen=True)
class RawInput:
    """One proposal as in its file."""

    raw: str  # verbatim; compact JSON if the file has no text for it
    format: Format
    source: str  # 'generated.parquet#12'
    target_formula: str | None = None
    row: Row = field(default_factory=dict, compare=False, repr=False)  # its columns, if it has any


def read_inputs(path: Path) -> Iterator[RawInput]:
    """Every proposal in a file or a folder of CIFs, in order.

    Raises InputError at once for a path that is missing, unreadable, of an unknown kind, or
    without the needed columns.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a file of proposals or a folder of CIFs.")
    if path.is_dir():
        return _folder(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise InputError(
            f"{path}: unknown kind of file {path.suffix!r}. Readable: {known}, or a folder of CIFs."
        )
    try:
        return reader(path)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # pyarrow's are ValueErrors
        raise InputError(
            f"{path} cannot be read as {path.suffix}: {shorten(str(error), 200)}"
        ) from error


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

    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    kind = _kind(path, [names])
    wanted = sorted(c for c in set(names) if c in COLUMNS or c.startswith("target_"))
    return _from_rows(path, kind, _batched_rows(path, file, wanted))


def _batched_rows(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[Row]:
    try:
        for batch in file.iter_batches(batch_size=1000, columns=columns):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # damage beyond the part read first
        raise InputError(f"{path} is damaged: {shorten(str(error), 200)}") from error


def _csv(path: Path) -> Iterator[RawInput]:
    csv.field_size_limit(MAX_CELL_CHARS)  # a CIF in a cell exceeds the default
    with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as lines:
        reader = csv.DictReader(lines)
        kind = _kind(path, [reader.fieldnames or []])
        return _from_rows(path, kind, list(reader))


def _json(path: Path) -> Iterator[RawInput]:
    value = json.loads(path.read_text(encoding="utf-8-sig", errors="backslashreplace"))
    rows = value if isinstance(value, list) else [value]
    return _from_rows(path, _kind(path, [r for r in rows if isinstance(r, dict)]), rows)


def _jsonl(path: Path) -> Iterator[RawInput]:
    with path.open(encoding="utf-8-sig", errors="backslashreplace") as lines:
        rows = [_unpacked(line.rstrip("\n")) for line in lines if line.strip()]
    return _from_rows(path, _kind(path, [r for r in rows if isinstance(r, dict)]), rows)


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
        source = f"{path.name}#{number}"
        if isinstance(row, dict):
            yield _from_row(row, kind, source)
        else:  # parsed as a table row, it gives MALFORMED_ROW and is shown unchanged
            yield RawInput(
                _clean(row if isinstance(row, str) else _compact(row)), "table_row", source
            )


def _from_row(row: Row, kind: tuple[Format, tuple[str, ...]], source: str) -> RawInput:
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
    return RawInput(_clean(raw), format, source, target, row)


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


def cif_files(folder: Path) -> list[Path]:
    """The CIFs of a folder, in order."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".cif" and p.is_file())


def _folder(path: Path) -> Iterator[RawInput]:
    files = cif_files(path)
    if not files:
        raise InputError(
            f"{path} contains no .cif files. Give a folder of CIFs or a file of proposals."
        )
    return (found for file in files for found in _cif(file))


def _cif(path: Path) -> Iterator[RawInput]:
    limit = CifLimits().max_bytes
    with path.open("rb") as file:
        data = file.read(limit + 1)  # long enough to be rejected when it is parsed
    text = decode_cif(data)
    blocks = [text] if len(data) > limit else split_blocks(text)
    return (RawInput(_clean(b), "cif", f"{path.name}#{i}") for i, b in enumerate(blocks))


def _extxyz(path: Path) -> Iterator[RawInput]:
    with path.open(encoding="utf-8", errors="backslashreplace") as lines:
        frames = list(_frames(lines))
    if not frames:
        raise InputError(
            f"{path} contains no frames. An extxyz frame starts with its number of atoms."
        )
    return (
        RawInput(_clean(_frame_json(f)), "crystal_json", f"{path.name}#{i}")
        for i, f in enumerate(frames)
    )


def _frames(lines: Iterator[str]) -> Iterator[str]:
    """The texts of frames; after a count that is no number, the rest is one frame."""
    for line in lines:
        if not line.strip():
            continue
        if not re.fullmatch(r"\s*[0-9]{1,7}\s*", line):
            yield line + "".join(lines)
            return
        yield line + "".join(islice(lines, int(line) + 1))


def _frame_json(frame: str) -> str:
    """A frame as the JSON of a crystal; unchanged if ase cannot read it."""
    from ase.io import read

    try:
        atoms = read(StringIO(frame), format="extxyz")
    except Exception:  # ase raises any exception; parsing then gives a flaw that shows the frame
        return frame
    return _compact(
        {
            "lattice": atoms.cell.tolist(),
            "species": atoms.get_chemical_symbols(),
            "frac_coords": atoms.get_scaled_positions(wrap=False).tolist()
            if atoms.cell.rank == 3
            else [],
            "pbc": atoms.pbc.tolist(),
        }
    )


READERS: dict[str, Callable[[Path], Iterator[RawInput]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".cif": _cif,
    ".extxyz": _extxyz,
    ".xyz": _extxyz,
}
