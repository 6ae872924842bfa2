"""Answers of the Materials Project: checked, then converted to the files that are stored.

A hull built from half a system is too high everywhere and raises no error: it makes everything
look stable. So an inconsistent answer is refused whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hullward.models.errors import FetchError
from hullward.models.formulas import formula_amounts
from hullward.tools.reference.materials_project.stored import THERMO_TYPE
from hullward.tools.reference.sources import mp2020_elements, why_not_mp2020

SAME_ENERGY_EV_PER_ATOM = 1e-3  # an entry and the document it is in


def check_entries(system: str, rows: Sequence[Mapping[str, Any]], count: int) -> None:
    """Raise FetchError for a system that is incomplete, inconsistent or on another energy scale."""

    def refuse(why: str) -> None:
        raise FetchError(f"system {system}: {why}; nothing of it was stored")

    if len(rows) != count:
        refuse(f"{len(rows)} entries came, the server counts {count}: a half-downloaded system")
    elements = set(system.split("-"))
    present: set[str] = set()
    energies: dict[str, float] = {}
    for row in rows:
        name, about = str(row["entry_id"]), row["data"]
        if about["thermo_type"] != THERMO_TYPE:
            refuse(f"{name} is of thermo type {about['thermo_type']}, not {THERMO_TYPE}")
        own = frozenset(el for el, n in row["composition"].items() if n > 0)
        if not own <= elements:
            refuse(f"{name} ({'-'.join(sorted(own))}) is of another system")
        if why := why_not_mp2020(row, own):
            refuse(f"{name} is not on the corrected GGA/GGA+U scale ({why})")
        energy = (row["energy"] + row["correction"]) / sum(row["composition"].values())
        if abs(energy - about["energy_per_atom"]) > SAME_ENERGY_EV_PER_ATOM:
            refuse(
                f"{name} has {energy:.4f} eV/atom, its document {about['energy_per_atom']:.4f}: "
                "corrections are missing or doubled"
            )
        for identity in (name, str(about["material_id"])):
            if energies.setdefault(identity, energy) != energy:
                refuse(f"{identity} occurs with two energies")
        if len(own) == 1:
            present |= own
    if missing := sorted(elements - present):
        refuse(f"no entry of the element {', '.join(missing)}, so there can be no hull")


def check_stable(rows: Sequence[Mapping[str, Any]], count: int) -> None:
    """Raise FetchError for a list of stable phases that is incomplete or inconsistent."""
    if len(rows) != count or not count:
        raise FetchError(
            f"stable phases: {len(rows)} came, the server counts {count}: half-downloaded, nothing "
            "was stored; try again"
        )
    seen: set[str] = set()
    for row in rows:
        name = str(row["material_id"])
        if name in seen:
            raise FetchError(f"stable phases: {name} occurs twice; nothing was stored")
        if row["energy_per_atom"] is None:
            raise FetchError(f"stable phases: {name} has no energy; nothing was stored")
        seen.add(name)


def as_row(entry: Any) -> dict[str, Any]:
    """A ComputedStructureEntry of mp-api as plain JSON, whose ids and keys are objects there."""
    from monty.json import jsanitize

    names = {name: str(entry.data[name]) for name in ("material_id", "thermo_type")}
    entry.data = jsanitize(entry.data, strict=True) | names  # as_dict fails on Element keys
    row: dict[str, Any] = jsanitize(entry.as_dict(), strict=True)
    return row | {"entry_id": str(entry.entry_id)}


def as_zstd_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Entries as compressed JSON Lines, ordered by id, so that equal entries give equal bytes."""
    from zstandard import ZstdCompressor

    ordered = sorted(rows, key=lambda row: str(row["entry_id"]))
    lines = (json.dumps(row, separators=(",", ":")) + "\n" for row in ordered)
    return ZstdCompressor(level=10).compress("".join(lines).encode())


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Stable phases as a table that `TablePhases` reads, ordered by id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows, key=lambda row: str(row["material_id"]))
    zero = mp2020_elements()
    table = pa.table(
        {
            "material_id": [str(row["material_id"]) for row in ordered],
            "formula": [str(row["formula_pretty"]) for row in ordered],
            # relative to our own elements: adding these again gives the corrected total energy
            "formation_energy_per_atom": [
                row["energy_per_atom"] - _elements_ev_per_atom(row["formula_pretty"], zero)
                for row in ordered
            ],
            "published_formation_energy_per_atom": [
                row["formation_energy_per_atom"] for row in ordered
            ],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _elements_ev_per_atom(formula: str, zero: Mapping[str, float]) -> float:
    amounts = formula_amounts(formula)
    if unknown := sorted(amounts.keys() - zero.keys()):
        raise FetchError(
            f"stable phases: {formula} holds {', '.join(unknown)}, of which no MP2020 energy is "
            "known here; nothing was stored"
        )
    return sum(zero[el] * n for el, n in amounts.items()) / sum(amounts.values())
