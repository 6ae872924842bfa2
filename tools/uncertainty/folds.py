"""Fits that leave one generator out, and all its formulas, to be scored on it.

The widths of the prior are chosen inside each fold, from the training generators alone: each of
these is left out in turn, and widths whose fits lose least on them are taken (nested
cross-validation: Varma & Simon, 10.1186/1471-2105-7-91). What is left out influences nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from hullward.tools.uncertainty import model
from hullward.tools.uncertainty.model import Posterior, Widths
from hullward.tools.uncertainty.scores import log_losses

# Values to choose each width from.
CHOICES: dict[str, tuple[float, ...]] = {
    "state_ev_per_atom": (0.02, 0.05, 0.1, 0.2),
    "element_ev_per_atom": (0.1, 0.2, 0.3, 0.4),
    "log_width": (0.2, 0.45, 1.0),
    "freedom": (3.0, 4.0, 6.0),
}
SWEEPS = 3


@dataclass(frozen=True)
class DftRows:
    """DFT results as arrays of n rows.

    state: (n, s) features.  roots: (n, e) of atomic fractions.  heights, dft: (n,) above the hull
    by the potential and by DFT, eV/atom.  generators, formulas: (n,) of text.
    """

    state: np.ndarray
    roots: np.ndarray
    heights: np.ndarray
    dft: np.ndarray
    generators: np.ndarray
    formulas: np.ndarray

    def folds(self, among: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, left-out rows) for each generator; no formula is on both sides."""
        for generator in np.unique(self.generators[among]):
            out = self.generators[among] == generator
            shared = np.isin(self.formulas[among], self.formulas[among[out]])
            yield among[~out & ~shared], among[out]


@dataclass(frozen=True)
class Fitted:
    """A posterior, and how its features are scaled.

    centres, scales: (s,) of the state features.  shift_sd: eV/atom, between generators.
    """

    posterior: Posterior
    centres: np.ndarray
    scales: np.ndarray
    shift_sd: float
    widths: Widths

    def design(self, rows: DftRows, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) and (n, q): rows for the centre and for the width."""
        return model.design(rows.state[which], rows.roots[which], self.centres, self.scales)

    def probabilities(self, rows: DftRows, which: np.ndarray, threshold: float) -> np.ndarray:
        """P(DFT height <= threshold), (n,), of rows of a generator not seen before."""
        design, heights = self.design(rows, which), rows.heights[which]
        return model.probabilities(self.posterior, *design, heights, threshold, self.shift_sd)[0]

    def moved(
        self, rows: DftRows, which: np.ndarray, threshold: float, shifts: np.ndarray
    ) -> np.ndarray:
        """(m, n): the same if the generator were known to be off by each of m shifts, eV/atom."""
        from scipy.special import stdtr

        u, sigma = model.margins(
            self.posterior, *self.design(rows, which), rows.heights[which], threshold
        )
        return np.asarray(stdtr(self.posterior.freedom, u - shifts[:, None] / sigma))


def fit_rows(
    rows: DftRows,
    which: np.ndarray,
    widths: Widths,
    shift_sd: float | None = None,
    like: Fitted | None = None,
) -> Fitted:
    """A fit to some rows.

    shift_sd: eV/atom between generators; None: the likeliest.  like: a fit that is near.
    """
    state = rows.state[which]
    scales = state.std(axis=0)
    blank = Fitted(
        posterior=model.prior(state.shape[1], rows.roots.shape[1], widths),
        centres=state.mean(axis=0),
        scales=np.where(scales > 1e-6, scales, 1.0),
        shift_sd=0.0,
        widths=widths,
    )
    posterior, shift_sd = model.update_grouped(
        blank.posterior,
        *blank.design(rows, which),
        (rows.dft - rows.heights)[which],
        rows.generators[which],
        shift_sd,
        None if like is None else (like.posterior.mean, like.shift_sd),
    )
    return Fitted(posterior, blank.centres, blank.scales, shift_sd, widths)


def choose_widths(
    rows: DftRows,
    among: np.ndarray,
    thresholds: Sequence[float],
    choices: Mapping[str, Sequence[float]] = CHOICES,
) -> Widths:
    """Widths whose fits lose least, in log-loss, on generators of `among` left out in turn.

    One width is varied at a time until none helps. The loss is the mean over rows and thresholds.
    A single generator cannot choose: it gets the widths that the search begins at.
    """
    folds = [(a, b) for a, b in rows.folds(among) if len(a)]
    best = Widths()
    if len(folds) < 2:
        return best
    near: list[Fitted | None] = [None] * len(folds)

    @cache
    def loss(widths: Widths) -> float:
        lost = []
        for number, (training, left_out) in enumerate(folds):
            near[number] = fitted = fit_rows(rows, training, widths, like=near[number])
            for threshold in thresholds:
                predicted = fitted.probabilities(rows, left_out, threshold)
                lost.append(log_losses(predicted, rows.dft[left_out] <= threshold))
        return float(np.concatenate(lost).mean())

    for _ in range(SWEEPS):
        before = best
        for name, values in choices.items():
            changes: list[dict[str, Any]] = [{name: value} for value in values]
            best = min([best, *(replace(best, **change) for change in changes)], key=loss)
        if best == before:
            break
    return best


@dataclass(frozen=True)
class Fold:
    """One generator left out: the fit to the others, with widths that the others chose."""

    fitted: Fitted
    training: np.ndarray
    left_out: np.ndarray


def left_out_folds(
    rows: DftRows, thresholds: Sequence[float], choices: Mapping[str, Sequence[float]] = CHOICES
) -> list[Fold]:
    """A fold for each generator that leaves anything to train on."""
    found = []
    for training, left_out in rows.folds(np.arange(len(rows.dft))):
        if len(training):
            widths = choose_widths(rows, training, thresholds, choices)
            found.append(Fold(fit_rows(rows, training, widths), training, left_out))
    return found
