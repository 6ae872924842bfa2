"""The gap between DFT's height and CHGNet's: a Student t with centre and width by features.

    E_hull(DFT) - E_hull(potential) ~ centre(x) + width(x) t(ν),   log width linear in x too

Its tails are heavy because DFT relaxes a few structures into something else. Parameters are normal
a posteriori (Laplace's approximation with the expected information, so that it is always a proper
one); the posterior of one fit is the prior of the next, and data once seen are not needed again.
For the linear heteroscedastic t see Lange, Little & Taylor, 10.1080/01621459.1989.10478852.

Rows come in groups (a generator's structures), and a whole group may lie off by a shift of its own,
normal around zero. How far groups do is the likeliest value given the rows (empirical Bayes by
expectation and maximisation: Laird & Ware, 10.2307/2529876); a group not seen before is off by an
unknown shift of that size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

FREEDOM = 4.0  # ν: tails heavy enough for outliers, yet with a variance
START_WIDTH_EV = 0.1
START_SHIFT_EV = 0.03  # between groups: where the search begins
SHIFT_STEPS, SHIFT_TOLERANCE_EV = 30, 5e-4
VAGUE = 10.0  # standard deviation of the intercepts: no prior knowledge
STEPS, TOLERANCE = 1000, 1e-5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)


@dataclass(frozen=True, order=True)
class Widths:
    """The prior: standard deviations of effects around zero, and ν."""

    state_ev_per_atom: float = 0.1  # of a standardised feature's effect on the centre
    element_ev_per_atom: float = 0.2  # per root of an atomic fraction
    log_width: float = 0.45  # of a standardised feature's effect on the log width
    freedom: float = FREEDOM


@dataclass(frozen=True)
class Posterior:
    """mean: (k + q,) centre coefficients, then those of the log width.  precision: its inverse
    covariance.  freedom: ν of the t.
    """

    mean: np.ndarray
    precision: np.ndarray
    freedom: float = FREEDOM

    @cached_property
    def covariance(self) -> np.ndarray:
        return np.asarray(np.linalg.inv(self.precision))


def prior(n_state: int, n_elements: int, widths: Widths) -> Posterior:
    """The posterior before any data; centre: 1, state, elements; log width: 1, state."""
    spread = np.concatenate(
        [
            [VAGUE],
            np.full(n_state, widths.state_ev_per_atom),
            np.full(n_elements, widths.element_ev_per_atom),
            [VAGUE],
            np.full(n_state, widths.log_width),
        ]
    )
    mean = np.zeros(len(spread))
    mean[1 + n_state + n_elements] = np.log(START_WIDTH_EV)
    return Posterior(mean, np.diag(spread**-2), widths.freedom)


def design(
    state: np.ndarray, roots: np.ndarray, centres: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) rows of features for the centre and (n, q) for the width.

    state: (n, s) features, standardised by centres and scales.  roots: (n, e) of atomic fractions.
    """
    width = np.hstack([np.ones((len(state), 1)), (state - centres) / scales])
    return np.hstack([width, roots]), width


def update(
    before: Posterior,
    centre: np.ndarray,
    width: np.ndarray,
    gap: np.ndarray,
    start: np.ndarray | None = None,
) -> Posterior:
    """The posterior after seeing rows, by Fisher scoring.

    centre: (n, k), width: (n, q) rows of features with a leading 1.  gap: (n,) DFT height minus
    the potential's, eV/atom.  start: (k + q,) where the search begins; None: the prior's mean.
    Raises ArithmeticError if it does not settle.
    """
    k, freedom = centre.shape[1], before.freedom
    theta = before.mean.copy() if start is None else start.copy()
    value = _loss(theta, before, centre, width, gap)
    for _ in range(STEPS):
        u, sigma = _standardised(theta, k, centre, width, gap)
        pull = (freedom + 1) * u / (freedom + u * u)
        slope = before.precision @ (theta - before.mean)
        slope[:k] -= centre.T @ (pull / sigma)
        slope[k:] += width.T @ (1 - pull * u)
        step = np.linalg.solve(_information(before, centre, width, sigma), slope)
        share = 1.0
        while (now := _loss(theta - share * step, before, centre, width, gap)) > value:
            share /= 2
            if share < 1e-6:
                break
        if share < 1e-6:
            now = value
        else:
            theta = theta - share * step
        if value - now < TOLERANCE:
            _, sigma = _standardised(theta, k, centre, width, gap)
            return Posterior(theta, _information(before, centre, width, sigma), freedom)
        value = now
    raise ArithmeticError(f"the fit did not settle in {STEPS} steps")


def update_grouped(
    before: Posterior,
    centre: np.ndarray,
    width: np.ndarray,
    gap: np.ndarray,
    groups: np.ndarray,
    shift_sd: float | None = None,
    start: tuple[np.ndarray, float] | None = None,
) -> tuple[Posterior, float]:
    """The posterior after seeing grouped rows, and the standard deviation of the groups' shifts.

    groups: (n,) which group a row is of.  shift_sd: eV/atom, standard deviation of the shifts;
    None: the likeliest one, or 0 where there is a single group.  start: where
    the search begins, both of what is returned.  The shifts of the groups seen are integrated out.
    Other arguments and errors are those of `update`.
    """
    names = np.unique(groups)
    theta, guess = (None, START_SHIFT_EV) if start is None else start
    searched = shift_sd is None
    if shift_sd is None:
        shift_sd = max(guess, SHIFT_TOLERANCE_EV) if len(names) > 1 else 0.0
    if shift_sd <= 0.0:
        return update(before, centre, width, gap, theta), 0.0
    k, count = centre.shape[1], len(names)
    wide = np.hstack([centre, groups[:, None] == names])
    shifts = slice(k, k + count)
    kept = np.r_[:k, k + count : len(before.mean) + count]
    grown = np.zeros((len(before.mean) + count,) * 2)
    grown[np.ix_(kept, kept)] = before.precision
    mean = np.insert(before.mean, [k] * count, 0.0)
    theta = None if theta is None else np.insert(theta, [k] * count, 0.0)
    for _ in range(SHIFT_STEPS):
        grown[shifts, shifts] = np.eye(count) / shift_sd**2
        after = update(Posterior(mean, grown, before.freedom), wide, width, gap, theta)
        theta = after.mean
        spread = np.diag(np.linalg.inv(after.precision))[shifts]
        likelier = float(np.sqrt(np.mean(theta[shifts] ** 2 + spread)))
        if not searched or abs(likelier - shift_sd) < SHIFT_TOLERANCE_EV:
            break
        shift_sd = likelier
    whole = after.precision
    across = whole[np.ix_(kept, np.arange(k, k + count))]
    inner = whole[np.ix_(kept, kept)] - across @ np.linalg.solve(whole[shifts, shifts], across.T)
    return Posterior(after.mean[kept], (inner + inner.T) / 2, before.freedom), shift_sd


def _standardised(
    theta: np.ndarray, k: int, centre: np.ndarray, width: np.ndarray, gap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    sigma = np.exp(np.clip(width @ theta[k:], -9.0, 3.0))
    return (gap - centre @ theta[:k]) / sigma, sigma


def _loss(
    theta: np.ndarray, before: Posterior, centre: np.ndarray, width: np.ndarray, gap: np.ndarray
) -> float:
    u, sigma = _standardised(theta, centre.shape[1], centre, width, gap)
    away = theta - before.mean
    misfit = np.log(sigma) + (before.freedom + 1) / 2 * np.log1p(u * u / before.freedom)
    return float(misfit.sum() + away @ before.precision @ away / 2)


def _information(
    before: Posterior, centre: np.ndarray, width: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    """Prior precision plus the expected information of the rows; centre and width do not mix."""
    k, freedom = centre.shape[1], before.freedom
    total = before.precision.copy()
    weighted = centre / sigma[:, None]
    total[:k, :k] += (freedom + 1) / (freedom + 3) * weighted.T @ weighted
    total[k:, k:] += 2 * freedom / (freedom + 3) * width.T @ width
    return total


def probabilities(
    posterior: Posterior,
    centre: np.ndarray,
    width: np.ndarray,
    heights: np.ndarray,
    threshold: float,
    shift_sd: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(DFT height <= threshold), (n,), with the ends of its 95 % interval, each (n,).

    heights: (n,) the potential's, eV/atom.  shift_sd: eV/atom, standard deviation of a new
    group's shift. The probability is the mean over the posterior and that shift; the interval
    is that of its uncertainty (first order in the parameters).
    """
    from scipy.special import stdtr

    k, freedom, covariance = centre.shape[1], posterior.freedom, posterior.covariance
    u, sigma = margins(posterior, centre, width, heights, threshold)
    of_centre = np.einsum("ni,ij,nj->n", centre, covariance[:k, :k], centre) + shift_sd**2
    of_width = np.einsum("ni,ij,nj->n", width, covariance[k:, k:], width)
    both = np.einsum("ni,ij,nj->n", centre, covariance[:k, k:], width)
    sd = np.sqrt(np.maximum(of_centre / sigma**2 + u**2 * of_width + 2 * u * both / sigma, 0.0))
    spread = stdtr(freedom, u[:, None] + sd[:, None] * NODES)
    return (
        spread @ WEIGHTS / WEIGHTS.sum(),
        stdtr(freedom, u - 1.96 * sd),
        stdtr(freedom, u + 1.96 * sd),
    )


def margins(
    posterior: Posterior,
    centre: np.ndarray,
    width: np.ndarray,
    heights: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(Threshold minus expected DFT height, in widths; the widths, eV/atom), each (n,)."""
    k = centre.shape[1]
    sigma = np.exp(width @ posterior.mean[k:])
    return (threshold - heights - centre @ posterior.mean[:k]) / sigma, sigma
