"""Make the texts that a generator learns from out of a table of known crystals.

`python -m hullward.training.crystal_corpus TABLE.parquet OUT` runs it. It reads the columns
`material_id`, `cif` and, where present, `e_above_hull` (eV/atom), and writes
`OUT/train.parquet`, `OUT/validation.parquet` and `OUT/corpus.json`. Each material id enters once;
crystals in quarantine never enter. One formula in fifty is kept for validation. Rows that the
asymmetric form cannot hold are counted by reason, not repaired.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.language import flat_formula
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    asymmetric_unit,
    parse_unit,
    write_asymmetric_text,
    write_cell_text,
)
from hullward.training.crystals.quarantine import in_quarantine

MAX_SITES = 60  # of a primitive cell
VALIDATION_ONE_IN = 50
ABOUT = "corpus.json"


@dataclass(frozen=True)
class CrystalRow:
    """One crystal to learn from, in both text forms."""

    material_id: str
    formula: str  # flat, e.g. 'Ca3P2O8'
    space_group: int
    e_above_hull_ev_per_atom: float | None
    n_sites: int  # of the primitive cell
    unit_text: str  # the asymmetric form (B)
    cell_text: str  # the cell form (A): standard primitive cell and origin, in formula order


def build_corpus(table: Path, out: Path) -> dict[str, Any]:
    """Write the corpus of a table; counts of what entered and, by reason, of what did not.

    Raises InputError where the table lacks a column.
    """
    rows = pd.read_parquet(table)
    if missing := {"material_id", "cif"} - set(rows.columns):
        raise InputError(f"{table} has no column {sorted(missing)[0]}; found {list(rows.columns)}")
    left_out: Counter[str] = Counter()
    kept: dict[str, list[CrystalRow]] = {"train": [], "validation": []}
    for row, reduced in _crystal_rows(rows, left_out):
        kept["validation" if _validates(reduced) else "train"].append(row)
    source = {
        "table_sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "rows_read": len(rows),
        "left_out": dict(sorted(left_out.items())),
    }
    return write_corpus(out, kept, source)


def write_corpus(
    out: Path, kept: Mapping[str, Sequence[CrystalRow]], source: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the parts 'train' and 'validation' and a description of both, which is returned."""
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = dict(source)
    for part, members in kept.items():
        path = out / f"{part}.parquet"
        pd.DataFrame([asdict(row) for row in members]).to_parquet(path, compression="zstd")
        about[part] = {
            "rows": len(members),
            "formulas": len({row.formula for row in members}),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    (out / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


def read_corpus(folder: Path, part: str) -> list[CrystalRow]:
    """The rows of 'train' or 'validation', checked against `corpus.json`.

    Raises InputError where a file is missing or has changed since.
    """
    path, about = folder / f"{part}.parquet", folder / ABOUT
    if not (path.is_file() and about.is_file()):
        raise InputError(
            f"no corpus at {folder}; make one: "
            f"python -m hullward.training.crystal_corpus TABLE.parquet {folder}"
        )
    expected = json.loads(about.read_text(encoding="utf-8"))[part]["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise InputError(
            f"{path} is damaged (its sha256 differs from the one in corpus.json); make it again"
        )
    return [CrystalRow(**row) for row in parquet.read_table(path).to_pylist()]


def corpus_sha256(folder: Path) -> str:
    """The hash of a corpus, all of its parts included."""
    return hashlib.sha256((folder / ABOUT).read_bytes()).hexdigest()


def _crystal_rows(rows: pd.DataFrame, left_out: Counter[str]) -> Iterator[tuple[CrystalRow, str]]:
    """(row, reduced formula) of every crystal that may be learnt; counts the others."""
    from pymatgen.core import Structure

    seen: set[str] = set()
    heights = rows["e_above_hull"] if "e_above_hull" in rows else [None] * len(rows)
    for material_id, cif, height in zip(rows["material_id"], rows["cif"], heights, strict=True):
        if material_id in seen:
            left_out["same material id"] += 1
            continue
        seen.add(material_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystal = Crystal.from_structure(Structure.from_str(cif, fmt="cif"))
            reduced = crystal.formula
        if in_quarantine(reduced, crystal.chemsys):
            left_out["quarantine"] += 1
            continue
        try:
            row = corpus_row(material_id, crystal, None if pd.isna(height) else float(height))
        except ValueError as error:
            left_out["form B: " + str(error).split(":")[0][:40]] += 1
            continue
        if row.n_sites > MAX_SITES:
            left_out[f"more than {MAX_SITES} sites"] += 1
            continue
        yield row, reduced


def corpus_row(material_id: str, crystal: Crystal, height: float | None) -> CrystalRow:
    """Both texts of a crystal; height in eV/atom.

    Raises ValueError for a crystal that the asymmetric form cannot hold.
    """
    unit = asymmetric_unit(crystal)
    text = write_asymmetric_text(unit)
    cell = parse_unit(text)
    assert isinstance(cell, AsymmetricUnit)  # writing it has checked that it reads back
    primitive = cell.to_crystal()
    if primitive.formula != crystal.formula:
        raise ValueError("another formula came back")  # a reason that corpus.json counts
    return CrystalRow(
        material_id=material_id,
        formula=flat_formula(crystal.formula),
        space_group=unit.space_group,
        e_above_hull_ev_per_atom=height,
        n_sites=primitive.n_atoms,
        unit_text=text,
        cell_text=write_cell_text(primitive),
    )


@cache
def may_be_learnt(formula: str) -> bool:
    """Whether neither a formula nor its system is in quarantine or kept for validation."""
    from pymatgen.core import Composition

    composition = Composition(formula)
    reduced = composition.reduced_formula
    return not in_quarantine(reduced, composition.chemical_system) and not _validates(reduced)


def _validates(reduced: str) -> bool:
    digest = hashlib.sha256(f"validation:{reduced}".encode()).hexdigest()
    return int(digest, 16) % VALIDATION_ONE_IN == 0
