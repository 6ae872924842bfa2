"""From a table of known crystals to the texts a generator learns from.

    python -m hullward.training.crystals.corpus TABLE.parquet OUT

reads columns `material_id`, `cif` and, where known, `e_above_hull` (eV/atom), and writes
`OUT/train.parquet`, `OUT/validation.parquet` and `OUT/corpus.json`. A material id enters once; what
quarantine holds back never enters. One formula in fifty is kept for validation. Rows that form B
cannot hold are counted by reason, not repaired.
"""

from __future__ import annotations

import argparse
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
    unit_text: str  # form B
    cell_text: str  # form A: standard primitive cell and origin, sites in formula order


def build_corpus(table: Path, out: Path) -> dict[str, Any]:
    """Write the corpus of a table; what entered and what did not, by reason.

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
    """Write the parts 'train' and 'validation', and what is known of their source; that."""
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

    Raises InputError where the files are missing or are not those that were written.
    """
    path, about = folder / f"{part}.parquet", folder / ABOUT
    if not (path.is_file() and about.is_file()):
        raise InputError(
            f"no corpus at {folder}; make one: "
            f"python -m hullward.training.crystals.corpus TABLE.parquet {folder}"
        )
    expected = json.loads(about.read_text(encoding="utf-8"))[part]["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise InputError(f"{path} is damaged (its sha256 is not corpus.json's); make it again")
    frame = pd.read_parquet(path)
    heights = [None if pd.isna(x) else float(x) for x in frame.e_above_hull_ev_per_atom]
    records = frame.assign(e_above_hull_ev_per_atom=0.0).to_dict("records")
    return [
        CrystalRow(**{**{str(k): v for k, v in record.items()}, "e_above_hull_ev_per_atom": height})
        for record, height in zip(records, heights, strict=True)
    ]


def corpus_sha256(folder: Path) -> str:
    """The hash of a corpus, all of its parts included."""
    return hashlib.sha256((folder / ABOUT).read_bytes()).hexdigest()


def _crystal_rows(rows: pd.DataFrame, left_out: Counter[str]) -> Iterator[tuple[CrystalRow, str]]:
    """(row, reduced formula) of what may be learnt from; counts the rest."""
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
    """Both texts of a crystal; height in eV/atom. Raises ValueError for what form B cannot hold."""
    unit = asymmetric_unit(crystal)
    text = write_asymmetric_text(unit)
    cell = parse_unit(text)
    assert isinstance(cell, AsymmetricUnit)  # write has read it back
    primitive = cell.to_crystal()
    if primitive.formula != crystal.formula:
        raise ValueError("another formula came back")
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
    """Whether a formula is neither in quarantine, nor its system, nor kept for validation."""
    from pymatgen.core import Composition

    composition = Composition(formula)
    reduced = composition.reduced_formula
    return not in_quarantine(reduced, composition.chemical_system) and not _validates(reduced)


def _validates(reduced: str) -> bool:
    digest = hashlib.sha256(f"validation:{reduced}".encode()).hexdigest()
    return int(digest, 16) % VALIDATION_ONE_IN == 0


def main() -> None:
    """Build a corpus from the command line."""
    parser = argparse.ArgumentParser(description="texts of known crystals to train on")
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    print(json.dumps(build_corpus(given.table, given.out), indent=1))


if __name__ == "__main__":
    main()
