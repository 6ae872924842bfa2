"""Make the index of known structures from tables.

    python -m hullward.tools.reference.known TABLE… --out data/known_structures.zip

Each TABLE holds structures (Parquet or CSV with a column `cif` or `structure`; JSON Lines of
computed entries) or formulas alone (a column `formula`). The embedded reference, what it tried,
the phases of textbooks and the lists of structure types are added. The same call continues after
a stop.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from hullward.models.errors import InputError, PreflightError
from hullward.tools.reference.known.build import MATERIALS_PROJECT, Origin, build_index


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, NAME.zip")
    parser.add_argument("--source", default=MATERIALS_PROJECT.source, help="who made the tables")
    parser.add_argument("--licence", help="licence of the tables; needed with --source")
    parser.add_argument("--tables-only", action="store_true", help="add nothing to the tables")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    origin = MATERIALS_PROJECT
    if asked.source != origin.source or asked.licence:
        if not asked.licence:
            parser.error("--source needs --licence")
        origin = Origin(asked.source, asked.licence)
    try:
        made = build_index(
            asked.tables,
            asked.out,
            origin,
            with_embedded=not asked.tables_only,
            workers=asked.workers,
        )
    except (InputError, PreflightError) as error:
        sys.exit(f"error: {error}")
    for part in made["sources"]:
        print(
            f"{part['table']}: {part['structures_read']:,} structures read, "
            f"{part['structures_taken']:,} taken, {part['formulas']:,} formulas "
            f"({part['source']}, {part['licence']})"
        )
    print(
        f"{asked.out}: {made['structures']:,} structures, {made['formulas']:,} formulas, "
        f"{made['arrangements']:,} arrangements, {asked.out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
