"""The content of settings, compared: which keys differ, whatever folder files lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """'KEY: VALUE there, VALUE here' of every setting that differs."""
    before, now = _flat(there), _flat(here)
    return [
        f"{key}: {_shown(before.get(key))} there, {_shown(now.get(key))} here"
        for key in dict.fromkeys([*now, *before])
        if before.get(key) != now.get(key)
    ]


def _flat(content: dict[str, Any], before: str = "") -> dict[str, Any]:
    """The values of a nested dictionary by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = _flat(value, f"{before}{key}.") if isinstance(value, dict) else {}
        found |= inner or {f"{before}{key}": value}
    return found


def _shown(value: Any) -> str:
    """A setting as a message shows it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return "none" if value is None else str(value)


def without_folders(value: Any) -> Any:
    """Paths, and references in files, by their last part."""
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    if isinstance(value, str) and "/" in value:
        return ("file:" if value.startswith("file:") else "") + Path(value).name
    return value
