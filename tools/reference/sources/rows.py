"""The rows of JSON and JSON Lines files, compressed or not; a damaged file is refused whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError
from hullward.tools.crystal.files import plain_name, read_lines, read_text


def is_optimade(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether JSON Lines are those of OPTIMADE: a header first, or entries with attributes."""
    if not rows:
        return False
    inner = rows[0].get("data", rows[0])
    return "x-optimade" in rows[0] or (isinstance(inner, dict) and "attributes" in inner)


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises InputError where it is none."""
    return _json(read_text(path), path.name)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The dictionaries of a JSON or JSON Lines file, compressed or not."""
    rows: Any
    if plain_name(path).endswith(".json"):
        content = read_json(path)
        rows = content.get("entries", content) if isinstance(content, dict) else content
    else:
        rows = list(_lines(path))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name}: expected a list of ComputedEntry dictionaries")
    return rows


def _lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield _json(line, f"{path.name}#{number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON, or cut short: {error}") from None
