"""Train a crystal generator from a recipe.

    python -m hullward.training.crystal_train RECIPE.yaml --corpus FOLDER --out FOLDER [--plan]

`hullward.training.crystals.corpus` makes the corpus. Where a run was stopped, the same command
goes on with it. `--plan` prints what the run would cost, and trains nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hullward.models.errors import HullwardError
from hullward.training.crystals import CrystalRecipe, read_task
from hullward.training.engine import estimate_cost, train


def main(arguments: list[str] | None = None) -> int:
    """Train or plan; the exit code."""
    parser = argparse.ArgumentParser(description="train a crystal generator")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--save-every-s", type=float, default=600.0)
    parser.add_argument("--plan", action="store_true", help="print what it would cost, and stop")
    parser.add_argument("--flops", type=float, help="operations per second, for --plan")
    given = parser.parse_args(arguments)
    try:
        task = read_task(CrystalRecipe.read(given.recipe), given.corpus)
        if given.plan:
            print("\n".join(estimate_cost(task, given.flops).lines()))
            return 0
        done = train(
            task, given.out,
            save_every_s=given.save_every_s, log=lambda line: print(line, flush=True),
        )  # fmt: skip
    except HullwardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"done: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
