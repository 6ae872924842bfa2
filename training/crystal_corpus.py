"""Make the texts that a crystal generator learns from out of a table of known crystals.

    python -m hullward.training.crystal_corpus TABLE.parquet OUT

`hullward.training.crystals.corpus` describes the columns of TABLE and the files in OUT.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hullward.training.crystals import build_corpus


def main() -> None:
    """Build a corpus from the command line."""
    parser = argparse.ArgumentParser(description="texts of known crystals to train on")
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    print(json.dumps(build_corpus(given.table, given.out), indent=1))


if __name__ == "__main__":
    main()
