"""Count the stoichiometries of known compounds in tables of formulas.

    python -m hullward.tools.crystal.stoichiometry TABLE… --out data/stoichiometries.parquet

A TABLE is a Parquet file with a column `formula`; where it has a column `kind`, rows of kind
`exact_hull_point` are points of a tie line and no compounds. Every formula counts once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hullward.models.errors import InputError
from hullward.tools.crystal.formulas import parse_formula
from hullward.tools.crystal.stoichiometry.counts import Rows, count

NO_COMPOUND = "exact_hull_point"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}
    for path in given.tables:
        before = len(found)
        for formula in formulas_of(path):
            try:
                amounts = parse_formula(formula)
            except InputError:
                continue
            found[tuple(sorted(amounts.items()))] = amounts
        print(f"{path.name}: {len(found) - before:,} more formulas")
    write_table(count(found.values()), given.out)
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")


def formulas_of(path: Path) -> list[str]:
    """The formulas of compounds in a table; raises InputError where it has no such column."""
    table = pq.read_table(path)
    if "formula" not in table.column_names:
        raise InputError(f"{path} has no column `formula`, but {', '.join(table.column_names)}")
    formulas = table["formula"].to_pylist()
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else [""] * len(formulas)
    pairs = zip(formulas, kinds, strict=True)
    return [formula for formula, kind in pairs if formula and kind != NO_COMPOUND]


def write_table(rows: Rows, path: Path) -> None:
    """Write (level, key, compounds), the same bytes for the same rows."""
    level, key, compounds = zip(*rows, strict=True)
    table = pa.table(
        {"level": level, "key": key, "compounds": pa.array(compounds, type=pa.int32())}
    )
    pq.write_table(table, path, compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
