"""Scores of probabilities: Brier skill, log-loss, calibration error, precision of the best tenth.

Brier, 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; calibration error in bins of equal mass as
Nguyen & O'Connor, 10.18653/v1/D15-1182. Intervals are percentile bootstraps over rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hullward.tools.records_trust import Check, Curve

BINS = 10
RESAMPLES = 1000
SEED = 5
CLIP = 1e-3  # a certain forecast that fails costs ln 1000, not infinity; ours and theirs alike


def bins_of(said: np.ndarray) -> list[np.ndarray]:
    """Rows in BINS bins of (nearly) equal mass by rising probability."""
    return [part for part in np.array_split(np.argsort(said, kind="stable"), BINS) if len(part)]


def calibration_error(said: np.ndarray, found: np.ndarray) -> float:
    """Mean over rows of the distance between a bin's mean probability and its share found."""
    gaps = [len(b) * abs(said[b].mean() - found[b].mean()) for b in bins_of(said)]
    return float(sum(gaps) / len(said))


def calibration_floor(said: np.ndarray) -> float:
    """The mean calibration error if every probability were exactly right: noise of so few rows."""
    rng = np.random.default_rng(SEED)
    draws = rng.random((RESAMPLES, len(said))) < said
    return float(np.mean([calibration_error(said, d) for d in draws]))


def log_losses(said: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(n,) natural units."""
    p = np.clip(said, CLIP, 1 - CLIP)
    return np.asarray(-np.log(np.where(found, p, 1 - p)))


def isotonic(heights: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share found as a falling function of height: knots to interpolate between.

    Pool adjacent violators (Barlow et al. 1972): sorted heights and fitted shares, (n,) each.
    """
    order = np.argsort(heights, kind="stable")
    blocks: list[list[float]] = []  # mean, rows
    for value in found[order].astype(float):
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            rows = last[1] + before[1]
            blocks.append([(last[0] * last[1] + before[0] * before[1]) / rows, rows])
    return heights[order], np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])


def check(
    threshold: float,
    said: np.ndarray,
    found: np.ndarray,
    heights: np.ndarray,
    generators: Sequence[str],
    folds: Sequence[tuple[list[int], list[int]]],
) -> Check:
    """All scores of one threshold. The rival, isotonic regression, sees the same folds."""
    rival = np.full(len(said), np.nan)
    for training, left_out in folds:
        rival[left_out] = np.interp(
            heights[left_out], *isotonic(heights[training], found[training])
        )
    base = float(found.mean())
    ours, theirs = log_losses(said, found), log_losses(rival, found)
    rng = np.random.default_rng(SEED)
    gains, errors = [], []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(said), len(said))
        gains.append((theirs[rows] - ours[rows]).mean())
        errors.append(calibration_error(said[rows], found[rows]))
    top = max(1, round(len(said) / 10))
    names = np.array(generators)
    parts = {name: names == name for name in sorted(set(generators))}
    return Check(
        threshold_ev_per_atom=threshold,
        rows=len(said),
        base_rate=_short(base),
        brier_skill=_short(1 - ((said - found) ** 2).mean() / (base * (1 - base))),
        log_loss=_short(ours.mean()),
        log_loss_isotonic=_short(theirs.mean()),
        log_loss_gain=_ends(gains),
        calibration_error=_short(calibration_error(said, found)),
        calibration_error_interval=_ends(errors),
        calibration_error_floor=_short(calibration_floor(said)),
        by_generator={
            name: (
                int(rows.sum()),
                _short(found[rows].mean()),
                _short(calibration_error(said[rows], found[rows])),
                _short(calibration_floor(said[rows])),
            )
            for name, rows in parts.items()
        },
        precision_top_tenth=_short(found[np.argsort(-said, kind="stable")[:top]].mean()),
        precision_top_tenth_by_height=_short(
            found[np.argsort(heights, kind="stable")[:top]].mean()
        ),
        curve=Curve(
            threshold_ev_per_atom=threshold,
            said=tuple(_short(said[b].mean()) for b in bins_of(said)),
            found=tuple(_short(found[b].mean()) for b in bins_of(said)),
            rows=tuple(len(b) for b in bins_of(said)),
        ),
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return _short(low), _short(high)


def _short(value: float) -> float:
    return round(float(value), 5)
