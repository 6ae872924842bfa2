"""The table of structure types from relaxed examples: which are kept, and the rows they give."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullward.models.language import flat_formula
from hullward.models.potential import potential_card
from hullward.tools.crystal import anonymous_amounts
from hullward.tools.hull import Reference
from hullward.tools.prototypes import (
    METADATA_KEY,
    NANO_PREFIX,
    TypedCrystal,
    TypeLibrary,
    anonymous_letters,
    typed_crystal,
)
from hullward.tools.records import Relaxation
from hullward.tools.screening import (
    Facts,
    Limits,
    candidate,
    check_crystal,
    learnt_formulas,
    suspicions,
)
from hullward.tools.store import write_whole
from hullward.training.structure_types.search import LEAST_SPACE_GROUP, TypeAnswer

HIGHEST_EV_PER_ATOM = 0.15  # above the hull, of the best example of a type


@dataclass(frozen=True)
class TypeExample:
    """An example that is kept: its type once relaxed, and its height above the hull."""

    example: TypeAnswer
    typed: TypedCrystal
    relaxation: Relaxation
    height_ev_per_atom: float | None  # None: the reference has no hull there


def checked_example(
    example: TypeAnswer, relaxation: Relaxation, reference: Reference, limits: Limits
) -> TypeExample | str:
    """An example that may enter the table, or why not."""
    if not relaxation.converged or relaxation.crystal is None:
        return "unconverged"
    facts = check_crystal(
        example.typed.crystal, limits, potential_card(relaxation.potential).elements
    )
    if not isinstance(facts, Facts):
        return "outside the limits"
    proposed = candidate("", example.typed.crystal, facts)
    if suspicions(relaxation, proposed, reference):
        return "suspect"
    height = None
    amounts = proposed.crystal.amounts
    if not reference.lacking(frozenset(amounts)):
        hull = reference.hull(proposed.chemsys)
        height = hull.distance(amounts, relaxation.energy_ev_per_atom or 0.0)[0]
        if height > HIGHEST_EV_PER_ATOM:
            return "high"
    found = typed_crystal(relaxation.crystal)
    if found is None or found.of_class.space_group < LEAST_SPACE_GROUP:
        return "no symmetry once relaxed"
    return TypeExample(example, found, relaxation, height)


def distinct(
    passed: Iterable[TypeExample], known: TypeLibrary
) -> tuple[list[list[TypeExample]], int]:
    """The examples of each new type, lowest first, and how many relaxed to known types."""
    types, groups, became_known = TypeLibrary(), list[list[TypeExample]](), 0
    for one in passed:
        if known.find(one.typed.crystal, one.typed.of_class) is not None:
            became_known += 1
            continue
        name = types.find(one.typed.crystal, one.typed.of_class)
        if name is None:
            name = str(len(groups))
            types.add(name, one.typed.crystal, one.typed.of_class)
            groups.append([])
        groups[int(name)].append(one)
    for group in groups:
        group.sort(key=_height)
    return groups, became_known


def _height(one: TypeExample) -> float:
    return float("inf") if one.height_ev_per_atom is None else one.height_ev_per_atom


def table_rows(groups: Iterable[Sequence[TypeExample]], model: Path) -> list[dict[str, Any]]:
    """One row a type, in order of its anonymous formula and id."""
    rows = []
    for group in groups:
        best = group[0]
        crystal, source = best.typed.crystal, best.example.row
        amounts = anonymous_amounts(crystal)
        number = best.typed.of_class.space_group
        name = f"{anonymous_letters(amounts)}-{number}-{crystal.content_id[2:8]}"
        height = best.height_ev_per_atom
        rows.append(
            {
                "prototype_id": f"{NANO_PREFIX}{name}",
                "text": best.typed.text,
                "anonymous": "-".join(map(str, amounts)),
                "space_group": number,
                "wyckoff": best.typed.of_class.words,
                "n_atoms": crystal.n_atoms,
                "formula": crystal.formula,
                "e_above_hull_ev_per_atom": None if height is None else round(height, 4),
                "energy_ev_per_atom": round(best.relaxation.energy_ev_per_atom or 0.0, 5),
                "examples": len({one.typed.crystal.formula for one in group}),
                "asked_formula": source["formula"],
                "temperature": source["temperature"],
                "seed": source["seed"],
                "index": source["index"],
                "formula_learnt": learnt_formulas(model, [flat_formula(crystal.formula)])[0],
            }
        )
    return sorted(rows, key=lambda row: (row["anonymous"], row["n_atoms"], row["prototype_id"]))


def write_table(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], out: Path) -> None:
    """Write the rows with their provenance as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pa.Table.from_pylist(list(rows))
    metadata = {METADATA_KEY: json.dumps(about, sort_keys=True).encode()}
    buffer = io.BytesIO()
    pq.write_table(found.replace_schema_metadata(metadata), buffer, compression="zstd")
    write_whole(out, buffer.getvalue())


def reduce_to_table(
    groups: Sequence[Sequence[TypeAnswer]],
    relaxed: Mapping[str, Relaxation],
    known: TypeLibrary,
    reference: Reference,
    model: Path,
    limits: Limits,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows of the table, and how many relaxed examples had each fate."""
    passed: list[TypeExample] = []
    counts: Counter[str] = Counter()
    for example in (e for group in groups for e in group):
        relaxation = relaxed.get(example.typed.crystal.content_id)
        if relaxation is None:
            continue
        counts["relaxed"] += 1
        one = checked_example(example, relaxation, reference, limits)
        if isinstance(one, str):
            counts[one] += 1
        else:
            passed.append(one)
    found, became_known = distinct(passed, known)
    counts["known once relaxed"] = became_known
    counts["types"] = len(found)
    return table_rows(found, model), dict(counts)
