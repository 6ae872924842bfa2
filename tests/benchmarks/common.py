"""What several benchmarks share: options, timing, real data, stored records. Measures nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from pymatgen.core import Composition, Structure

from hullward.models.crystal import Crystal
from hullward.tools.hull import Phase
from hullward.tools.store import TABLES, decode

MP2020_HULL = Path("hull", "mp2020_whole_database_hull.parquet")  # in the folder of real data
LLAMAT2_OUTPUTS = Path("known", "llamat2_generated.parquet")
MP_STRUCTURES = Path("structures", "mp_structures.parquet")


def options(docstring: str | None) -> argparse.ArgumentParser:
    """A parser whose help starts with the first line of a script's docstring."""
    return argparse.ArgumentParser(description=(docstring or "").splitlines()[0])


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds, result) of a call."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table, with an attribute for each column."""
    return table.itertuples()


def workload(path: Path) -> list[Structure]:
    """The structures of a JSON Lines file, one {"structure": pymatgen's dictionary} a line."""
    lines = path.read_text().splitlines()
    return [Structure.from_dict(json.loads(line)["structure"]) for line in lines]


def known_phases(data: Path) -> list[Crystal]:
    """The Materials Project's structures at hand."""
    cifs = pd.read_parquet(data / MP_STRUCTURES, columns=["cif"])["cif"]
    return [read_plain_cif(text) for text in cifs]


def read_plain_cif(text: str) -> Crystal:
    """The P1 files of that table: pymatgen's writer, seven columns a site. Much faster."""
    words = {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.strip()}
    lengths = [float(words[f"_cell_length_{x}"]) for x in "abc"]
    angles = [float(words[f"_cell_angle_{x}"]) for x in ("alpha", "beta", "gamma")]
    rows = np.array(text.split("_atom_site_occupancy")[1].split()).reshape(-1, 7)
    return Crystal.from_parameters(lengths, angles, rows[:, 0].tolist(), rows[:, 3:6].astype(float))


def mp20_test_set(data: Path) -> list[Crystal]:
    """The part of MP-20's test set at hand, in its order."""
    table = pd.read_parquet(data / MP_STRUCTURES)
    cifs = table.cif[table.source == "mp_20/test"]
    return [Crystal.from_structure(Structure.from_str(cif, fmt="cif")) for cif in cifs]


def llamat2_crystals(data: Path) -> Iterator[Crystal]:
    """What LLaMat-2-CIF wrote, without empty rows and angles that close no cell."""
    table = pd.read_parquet(data / LLAMAT2_OUTPUTS)
    for row in table[["lengths", "angles", "species", "coords"]].itertuples(index=False):
        try:
            yield Crystal.from_parameters(*(json.loads(cell) for cell in row))
        except (TypeError, ValueError):
            continue


def scattered(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same cell with the same atoms at random places."""
    return Crystal.from_arrays(crystal.lattice, crystal.species, rng.random((crystal.n_atoms, 3)))


def amounts_of(formula: str) -> dict[str, float]:
    """Atoms of each element."""
    return {str(el): float(n) for el, n in Composition(formula).get_el_amt_dict().items()}


def phase(name: str, amounts: dict[str, float], energy_ev_per_atom: float) -> Phase:
    """A phase without a structure."""
    return Phase(
        phase_id=name,
        formula=Composition(amounts).reduced_formula,
        composition=amounts,
        energy_ev_per_atom=energy_ev_per_atom,
        source="benchmark",
    )


def phases(rows: Iterable[tuple[str, dict[str, float], float]]) -> list[Phase]:
    """Phases of (id, amounts, eV/atom), ids made distinct."""
    return [phase(f"{name}#{n}", amounts, energy) for n, (name, amounts, energy) in enumerate(rows)]


def open_snapshot(directory: Path) -> duckdb.DuckDBPyConnection:
    """The snapshot of a campaign or screening, read only."""
    return duckdb.connect(str(directory / "snapshot.duckdb"), read_only=True)


def records(snapshot: duckdb.DuckDBPyConnection, kind: str, where: str = "true") -> Sequence[Any]:
    """Stored records of a kind, such as 'Relaxation'."""
    table = TABLES[kind]
    answer = snapshot.execute(f"SELECT * FROM {table.name} WHERE {where}")
    names = [column[0] for column in answer.description]
    return [decode(table.record, dict(zip(names, row, strict=True))) for row in answer.fetchall()]
