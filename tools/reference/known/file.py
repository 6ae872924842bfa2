"""The file of the index: Parquet tables and a manifest in one archive, the same bytes every time.

manifest.json         format, counts, sources with their licences
structures.parquet    one row a known structure: formula, id, source, groups, hashes, volume
formulas.parquet      the formulas that are known at all
arrangements.parquet  structure types with places for elements: type, group, hashes
textbook.parquet      formula, numbers of the arrangements that textbooks name
tried.parquet         formula, numbers of those that the embedded reference tried
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullward.models.errors import InputError
from hullward.tools.crystal import shorten

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2  # changes with the tables, the tolerances and the powder pattern
SHIPPED = "known_structures.zip"
TABLES = ("structures", "formulas", "arrangements", "textbook", "tried")
REMEDY = "make it again with `python -m hullward.tools.reference.known`"

# What a changed or cut archive raises; errors of pyarrow are ValueErrors or OSErrors.
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, OSError)


def write_index(path: Path, tables: Mapping[str, pa.Table], manifest: Mapping[str, Any]) -> None:
    """Write the tables named in TABLES and the manifest."""
    import pyarrow.parquet as pq

    parts = {"manifest.json": json.dumps({"format": FORMAT, **manifest}, indent=1).encode()}
    for name in TABLES:
        sink = io.BytesIO()
        pq.write_table(
            tables[name], sink, compression="zstd", compression_level=19, store_schema=False
        )
        parts[f"{name}.parquet"] = sink.getvalue()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    path.write_bytes(whole.getvalue())


def read_index(path: Path | None) -> tuple[bytes, dict[str, Any], dict[str, pa.Table]]:
    """(whole file, manifest, tables); path: None for the index that ships.

    Raises InputError for a file that is absent, damaged or of another format.
    """
    import pyarrow.parquet as pq

    file: Traversable | Path = path if path is not None else files("hullward.data") / SHIPPED
    remedy = REMEDY if path is not None else "install Hullward again"
    try:
        raw = file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"index of known structures {file}: {reason}; {remedy}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            found = manifest["format"]
            wanted = TABLES if found == FORMAT else ()
            tables = {n: pq.read_table(io.BytesIO(archive.read(f"{n}.parquet"))) for n in wanted}
    except DAMAGE as error:
        reason = shorten(str(error), 100)
        raise InputError(
            f"index of known structures {file} is damaged ({reason}); {remedy}"
        ) from None
    if found != FORMAT:
        raise InputError(
            f"index of known structures {file}: it has format {found}, and this version of "
            f"Hullward reads format {FORMAT}; {remedy}"
        )
    return raw, manifest, tables
