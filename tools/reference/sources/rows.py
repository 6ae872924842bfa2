"""The rows of JSON and JSON Lines files, compressed or not; a damaged file is refused whole."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError


def is_optimade(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether JSON Lines are those of OPTIMADE: a header first, or entries with attributes."""
    return bool(rows) and ("x-optimade" in rows[0] or "attributes" in rows[0].get("data", rows[0]))


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises InputError where it is none."""
    return _json(path.read_bytes(), path.name)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The dictionaries of a JSON or JSON Lines file, compressed or not."""
    raw = _unpacked(path)
    rows: Any
    if path.name.lower().endswith(".json"):
        content = _json(raw, path.name)
        rows = content.get("entries", content) if isinstance(content, dict) else content
    else:
        lines = enumerate(raw.splitlines(), start=1)
        rows = [_json(line, f"{path.name}#{number}") for number, line in lines if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name}: expected a list of ComputedEntry dictionaries")
    return rows


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON, or cut short: {error}") from None


def _unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    name = path.name.lower()
    if name.endswith(".gz"):
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path.name} is damaged, cut short or not gzip: {error}") from None
    if not name.endswith(".zst"):
        return raw
    from zstandard import ZstdDecompressor, ZstdError

    parts = []
    while raw:
        frame = ZstdDecompressor().decompressobj()
        try:
            parts.append(frame.decompress(raw))
        except ZstdError as error:
            raise InputError(f"{path.name} is damaged or not Zstandard: {error}") from None
        if not frame.eof:  # the library does not report this
            raise InputError(f"{path.name} is cut short: fetch or copy it again")
        raw = frame.unused_data
    return b"".join(parts)
