"""Versions of the packages and of the source that a campaign was run with."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


PACKAGES = ("torch", "chgnet", "pymatgen", "ase", "numpy", "langgraph", "duckdb", "moyopy")


def versions() -> dict[str, str]:
    """Versions of everything a result depends on, and a hash of our own source."""
    found = {"python": platform.python_version(), "hullward": version("hullward")}
    found |= {name: version(name) for name in PACKAGES}
    digest = hashlib.sha256()
    for room in ("models", "tools", "agents"):
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return {**found, "source": digest.hexdigest()[:16]}
