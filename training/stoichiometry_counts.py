"""Count the stoichiometries of known compounds for `data/stoichiometries.parquet`.

    python -m hullward.training.stoichiometry_counts TABLE… --without SYSTEMS.yaml --out FILE

A TABLE is a Parquet file with a column `formula` and perhaps `e_above_hull` (eV/atom); compounds up
to 0.05 above the hull count, each formula once. Left out are the quarantine's formulas and systems
and the systems listed anywhere in SYSTEMS.yaml.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.tools.crystal import reduced_amounts
from hullward.tools.crystal.stoichiometry import count_stoichiometries
from hullward.training.crystals import in_quarantine

MOST_ABOVE_HULL_EV_PER_ATOM = 0.05


def compounds(tables: Sequence[Path], without: frozenset[str]) -> Iterator[dict[str, int]]:
    """Reduced amounts of every compound of the tables that may be counted, each once."""
    import pyarrow.parquet as pq

    formulas: set[str] = set()
    for path in tables:
        columns = pq.read_table(path).to_pydict()
        heights = columns.get("e_above_hull") or [0.0] * len(columns["formula"])
        formulas |= {
            formula
            for formula, height in zip(columns["formula"], heights, strict=True)
            if height is not None and height <= MOST_ABOVE_HULL_EV_PER_ATOM
        }
    for formula in sorted(formulas):
        amounts = {el: round(n) for el, n in formula_amounts(formula).items()}
        system = "-".join(sorted(amounts))
        if system not in without and not in_quarantine(reduced_spelling(amounts), system):
            yield reduced_amounts(amounts)


def systems_in(document: Any) -> Iterator[str]:
    """Every system named in a YAML document, elements in alphabetical order."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        for one in document:
            yield from systems_in(one)
    else:
        yield "-".join(sorted(str(document).split("-")))


def main(arguments: Sequence[str] | None = None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hullward.models.yaml_file import read_yaml

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    parser.add_argument("--without", type=Path, metavar="SYSTEMS.yaml", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    given = parser.parse_args(arguments)
    lists = [read_yaml(path, "list of systems").data for path in given.without]
    without = frozenset(system for one in lists for system in systems_in(one))
    rows = count_stoichiometries(compounds(given.tables, without))
    levels, keys, numbers = zip(*rows, strict=True)
    table = pa.table(
        {
            "level": pa.array(levels).dictionary_encode(),
            "key": pa.array(keys),
            "compounds": pa.array(numbers, pa.int32()),
        }
    )
    pq.write_table(table, given.out, compression="zstd", compression_level=19)
    digest = hashlib.sha256(given.out.read_bytes()).hexdigest()
    print(f"{len(rows)} rows, {given.out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
