"""Whether probabilities hold for structures that do not start at DFT's own minimum.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/calibration_rattled.py DATA [--rattle 0.15]

The DFT results of DATA are of structures that DFT had relaxed; a campaign's starts are not. Here
random ones are displaced (by the standard deviation of each coordinate, Å), relaxed again, and
judged by fits that saw neither their generator nor its formulas. Prints the rows of RESULTS.md.
Relaxations are cached under HULLWARD_HOME, where it is set.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from common import MP2020_HULL, options

from hullward.tools.records import Protocol
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor
from hullward.tools.uncertainty import left_out_fits, outcomes, read_dft_table
from hullward.tools.uncertainty.calibrator import THRESHOLDS_EV_PER_ATOM
from hullward.tools.uncertainty.fitting import rows_of
from hullward.tools.uncertainty.folds import DftRows, Fold
from hullward.tools.uncertainty.scores import calibration_error, log_losses
from hullward.tools.uncertainty.second_energies import SECOND

HOME = Path(os.environ["HULLWARD_HOME"]) if "HULLWARD_HOME" in os.environ else None
MOST_ATOMS = 24


def main(data: Path, count: int, rattle_a: float) -> None:
    table = read_dft_table(data / "known" / "generated_dft_decomposition.parquet")
    reference = load_reference(f"file:{data / MP2020_HULL}", None)

    def asked(rows: list, protocol: Protocol) -> list:
        return outcomes(
            rows, "chgnet-0.3.0", protocol, reference, Executor(home=HOME), reading=SECOND
        )[0]

    every, folds = left_out_fits(asked(table, Protocol()))
    small = [r for r in table if not r.problem and r.crystal and r.crystal.n_atoms <= MOST_ATOMS]
    picks = np.random.default_rng(0).choice(len(small), min(count, len(small)), replace=False)
    chosen = [small[i] for i in sorted(picks)]
    found = {}
    for name, protocol in (
        ("as DFT left them", Protocol()),
        ("displaced", Protocol(rattle_a=rattle_a)),
    ):
        found[name] = rows_of(asked(chosen, protocol))
        report(name, found[name], every, folds)
    print(f"{len(chosen)} structures")


def report(name: str, rows: DftRows, every: DftRows, folds: list[Fold]) -> None:
    """Print one line for each threshold."""
    for threshold in THRESHOLDS_EV_PER_ATOM:
        said = np.full(len(rows.dft), np.nan)
        for fold in folds:
            own = np.flatnonzero(rows.generators == every.generators[fold.left_out[0]])
            said[own] = fold.fitted.probabilities(rows, own, threshold)
        hit = rows.dft <= threshold
        base = hit.mean()
        skill = 1 - ((said - hit) ** 2).mean() / (base * (1 - base))
        top = hit[np.argsort(-said)[: len(hit) // 10]].mean()
        worst = max(
            (calibration_error(said[own], hit[own]), str(generator))
            for generator in np.unique(rows.generators)
            for own in [rows.generators == generator]
        )
        print(
            f"{name}, {1000 * threshold:.0f} meV/atom: {len(hit)} rows, Brier skill {skill:.3f}, "
            f"log-loss {log_losses(said, hit).mean():.4f}, top tenth {100 * top:.0f} %, "
            f"calibration error {calibration_error(said, hit):.3f}, "
            f"worst {worst[0]:.3f} ({worst[1]})"
        )


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rattle", type=float, default=0.15, help="Å")
    given = parser.parse_args()
    main(given.data, given.rows, given.rattle)
