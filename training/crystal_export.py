"""Export a trained crystal generator as a folder that transformers, vLLM and `nano` load directly.

    python -m hullward.training.crystal_export RUN OUT --corpus FOLDER [--dtype bfloat16]

RUN is the `--out` of a training run; its newest checkpoint is exported. `learnt_ids.npy` and
`learnt_formulas.npy` hold, in order, the first 8 bytes of the sha256 of every material id and flat
formula of training and validation: `hullward audit` looks there for what the model has seen, and
no crystal can be read back from them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hullward.models.errors import HullwardError
from hullward.tools.screening import FORMULAS, IDS, digest
from hullward.training.crystals import CrystalRecipe, CrystalRow, read_corpus
from hullward.training.engine import export_model


def export_generator(
    run: Path, out: Path, rows: Sequence[CrystalRow], dtype: str = "bfloat16"
) -> Path:
    """Write `out` with the hashes of what the model learnt; the checkpoint it came from."""
    learnt = {
        IDS: _digests(row.material_id for row in rows),
        FORMULAS: _digests(row.formula for row in rows),
    }
    return export_model(run, out, CrystalRecipe, learnt, dtype)


def _digests(words: Iterable[str]) -> np.ndarray:
    return np.array(sorted({digest(word) for word in words}), dtype=np.uint64)


def main(arguments: list[str] | None = None) -> int:
    """Export from the command line; the exit code."""
    parser = argparse.ArgumentParser(description="export a trained crystal generator")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    given = parser.parse_args(arguments)
    try:
        rows = [*read_corpus(given.corpus, "train"), *read_corpus(given.corpus, "validation")]
        last = export_generator(given.run, given.out, rows, given.dtype)
    except HullwardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{last} -> {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
