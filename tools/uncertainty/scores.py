"""Scores of probabilities: Brier skill, log-loss, calibration error, precision of the best tenth.

Brier, 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; calibration error in bins of equal mass as
Nguyen & O'Connor, 10.18653/v1/D15-1182. Intervals are percentile bootstraps over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple

import numpy as np

from hullward.tools.records import Check, Curve, LeftOut, Worst
from hullward.tools.uncertainty.model import Widths

BINS = 10
RESAMPLES = 1000
SEED = 5
CLIP = 1e-3  # a certain forecast that fails costs ln 1000, not infinity; for isotonic too


def bins_of(predicted: np.ndarray) -> list[np.ndarray]:
    """Rows in BINS bins of (nearly) equal mass by rising probability."""
    return [
        part for part in np.array_split(np.argsort(predicted, kind="stable"), BINS) if len(part)
    ]


def calibration_error(predicted: np.ndarray, found: np.ndarray) -> float:
    """Mean over rows of the distance between a bin's mean probability and its share found."""
    gaps = [len(b) * abs(predicted[b].mean() - found[b].mean()) for b in bins_of(predicted)]
    return float(sum(gaps) / len(predicted))


def calibration_floor(
    predicted: np.ndarray, true: np.ndarray | None = None, seed: int = SEED
) -> np.ndarray:
    """(RESAMPLES,) calibration errors on outcomes drawn anew: the noise of so few rows.

    predicted: (n,).  true: (RESAMPLES, n) probabilities to draw outcomes by; None: predicted.
    """
    rng = np.random.default_rng(seed)
    draws = rng.random((RESAMPLES, len(predicted))) < (predicted if true is None else true)
    return np.array([calibration_error(predicted, d) for d in draws])


def calibration_error_interval(predicted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """95 % of the calibration error, by bootstrap over rows."""
    picks = _resampled(len(predicted))
    return _ends([calibration_error(predicted[rows], found[rows]) for rows in picks])


def left_out_scores(
    predicted: np.ndarray,
    found: np.ndarray,
    moved: Callable[[np.ndarray], np.ndarray],
    shift_sd: float,
    widths: Widths,
    seed: int,
) -> tuple[LeftOut, np.ndarray]:
    """The calibration of one left-out generator, and what perfect forecasts would have.

    moved: (m, n) probabilities if the generator were known to be off by each of (m,) shifts,
    eV/atom.  shift_sd: eV/atom, of the training generators.  The array: (RESAMPLES,) calibration
    errors in worlds where the generator is off by an unseen shift.
    """
    shifts = np.random.default_rng(seed).normal(0.0, shift_sd, RESAMPLES)
    floor = calibration_floor(predicted)
    shifted = calibration_floor(predicted, moved(shifts), seed + 1)
    part = LeftOut(
        rows=len(predicted),
        base_rate=_short(found.mean()),
        calibration_error=_short(calibration_error(predicted, found)),
        calibration_error_interval=calibration_error_interval(predicted, found),
        floor=_short(floor.mean()),
        floor_95=_short(np.percentile(floor, 95)),
        shifted_floor=_short(shifted.mean()),
        shifted_floor_95=_short(np.percentile(shifted, 95)),
        shift_sd_ev_per_atom=_short(shift_sd),
        widths=astuple(widths),
    )
    return part, shifted


def worst_of(parts: dict[str, LeftOut], shifted: Sequence[np.ndarray]) -> Worst:
    """The worst generator, and the worst to expect where each is off by an unseen shift.

    shifted: (RESAMPLES,) calibration errors of each generator in such worlds.
    """
    name = max(parts, key=lambda n: parts[n].calibration_error)
    error = parts[name].calibration_error
    worlds = np.max(shifted, axis=0)
    median, p70, p90, p95 = np.percentile(worlds, [50, 70, 90, 95])
    return Worst(
        generator=name,
        calibration_error=error,
        shifted=(_short(median), _short(p70), _short(p90), _short(p95)),
        shifted_as_bad=_short((worlds >= error).mean()),
    )


def log_losses(predicted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(n,) natural units."""
    p = np.clip(predicted, CLIP, 1 - CLIP)
    return np.asarray(-np.log(np.where(found, p, 1 - p)))


def isotonic(heights: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share found as a falling function of height: knots to interpolate between.

    Sorted heights and fitted shares, (n,) each.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(heights, kind="stable")
    return heights[order], isotonic_regression(found[order].astype(float), increasing=False).x


def scores_of(
    threshold: float,
    predicted: np.ndarray,
    found: np.ndarray,
    heights: np.ndarray,
    by_generator: dict[str, LeftOut],
    worst: Worst,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Check:
    """All scores of one threshold over the rows that a fold left out.

    predicted: (n,), NaN where no fold did.  folds: (training, left-out) rows, for isotonic
    regression as well.
    """
    rival = np.full(len(predicted), np.nan)
    for training, out in folds:
        rival[out] = np.interp(heights[out], *isotonic(heights[training], found[training]))
    there = ~np.isnan(predicted)
    predicted, found, heights, rival = predicted[there], found[there], heights[there], rival[there]
    base = float(found.mean())
    ours, theirs = log_losses(predicted, found), log_losses(rival, found)
    top = max(1, round(len(predicted) / 10))
    return Check(
        threshold_ev_per_atom=threshold,
        rows=len(predicted),
        base_rate=_short(base),
        brier_skill=_short(1 - ((predicted - found) ** 2).mean() / (base * (1 - base))),
        log_loss=_short(ours.mean()),
        log_loss_isotonic=_short(theirs.mean()),
        log_loss_gain=_ends([(theirs[r] - ours[r]).mean() for r in _resampled(len(predicted))]),
        calibration_error=_short(calibration_error(predicted, found)),
        calibration_error_interval=calibration_error_interval(predicted, found),
        calibration_error_floor=_short(calibration_floor(predicted).mean()),
        by_generator=by_generator,
        worst=worst,
        precision_top_tenth=_short(found[np.argsort(-predicted, kind="stable")[:top]].mean()),
        precision_top_tenth_by_height=_short(
            found[np.argsort(heights, kind="stable")[:top]].mean()
        ),
        curve=Curve(
            threshold_ev_per_atom=threshold,
            said=tuple(_short(predicted[b].mean()) for b in bins_of(predicted)),
            found=tuple(_short(found[b].mean()) for b in bins_of(predicted)),
            rows=tuple(len(b) for b in bins_of(predicted)),
        ),
    )


def _resampled(count: int) -> np.ndarray:
    """(RESAMPLES, count) row numbers, drawn with replacement."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return _short(low), _short(high)


def _short(value: float) -> float:
    return round(float(value), 5)
