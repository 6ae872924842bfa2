"""Calibration error on a new generator after some of its DFT results were used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hullward.tools.uncertainty import model
from hullward.tools.uncertainty.calibrator import THRESHOLDS_EV_PER_ATOM
from hullward.tools.uncertainty.folds import DftRows, Fitted, Fold
from hullward.tools.uncertainty.scores import SEED, calibration_error

SIZES = (0, 10, 20, 40, 80)  # DFT results of the left-out generator
DRAWS = 40  # of each size


@dataclass(frozen=True)
class Learning:
    """Calibration errors of one left-out generator after some of its DFT results were seen."""

    threshold_ev_per_atom: float
    generator: str
    results: int
    mean: float  # over draws, each on the rows not drawn
    sd: float


def learning_curves(
    rows: DftRows, folds: Sequence[Fold], sizes: Sequence[int] = SIZES, draws: int = DRAWS
) -> list[Learning]:
    """By threshold, generator and size, up to half the rows of the generator."""
    found = [point for fold in folds for point in _curve(rows, fold, sizes, draws)]
    return sorted(found, key=lambda p: (p.threshold_ev_per_atom, p.generator, p.results))


def _curve(rows: DftRows, fold: Fold, sizes: Sequence[int], draws: int) -> Iterator[Learning]:
    generator = str(rows.generators[fold.left_out[0]])
    for size in sizes:
        if 2 * size > len(fold.left_out):
            return
        rng = np.random.default_rng([SEED, size])
        errors = []
        for _ in range(draws if size else 1):
            order = rng.permutation(fold.left_out)
            fitted, rest = after(fold.fitted, rows, order[:size]), np.sort(order[size:])
            errors.append(
                [
                    calibration_error(fitted.probabilities(rows, rest, t), rows.dft[rest] <= t)
                    for t in THRESHOLDS_EV_PER_ATOM
                ]
            )
        for k, threshold in enumerate(THRESHOLDS_EV_PER_ATOM):
            own = np.array(errors)[:, k]
            mean, sd = (round(float(x), 5) for x in (own.mean(), own.std()))
            yield Learning(threshold, generator, size, mean, sd)


def after(fitted: Fitted, rows: DftRows, seen: np.ndarray) -> Fitted:
    """The fit after seeing rows of a new generator: as `calibrator.updated` does.

    seen: (n,) indices of rows.
    """
    if not len(seen):
        return fitted
    gap = (rows.dft - rows.heights)[seen]
    posterior = model.update(fitted.posterior, *fitted.design(rows, seen), gap)
    return replace(fitted, posterior=posterior)
