"""How far DFT lies above CHGNet's height: a Student t whose centre and width depend on features.

    E_hull(DFT) - E_hull(potential) ~ centre(x) + width(x) t(ν),   log width linear in x too

Heavy tails because a few structures are something else for DFT. Parameters are normal a posteriori
(Laplace's approximation with the expected information, so that it is always a proper one); the
posterior of one fit is the prior of the next, and data once seen are not needed again. For the
linear heteroscedastic t see Lange, Little & Taylor, 10.1080/01621459.1989.10478852.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FREEDOM = 4.0  # ν: tails heavy enough for outliers, yet with a variance
PRIOR_EV_PER_ATOM = 0.1  # of a standardised feature's effect on the centre
ELEMENT_PRIOR_EV_PER_ATOM = 0.3  # per root of an atomic fraction
WIDTH_PRIOR = 0.45  # of a standardised feature's effect on the log width
START_WIDTH_EV = 0.1
VAGUE = 10.0  # intercepts: no opinion
STEPS, TOLERANCE = 1000, 1e-5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)


@dataclass(frozen=True)
class Posterior:
    """mean: (k + q,) centre coefficients, then those of the log width.  precision: its inverse
    covariance.
    """

    mean: np.ndarray
    precision: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        return np.asarray(np.linalg.inv(self.precision))


def prior(n_state: int, n_elements: int) -> Posterior:
    """What is believed before any data; centre: 1, state, elements; log width: 1, state."""
    spread = np.concatenate(
        [
            [VAGUE],
            np.full(n_state, PRIOR_EV_PER_ATOM),
            np.full(n_elements, ELEMENT_PRIOR_EV_PER_ATOM),
            [VAGUE],
            np.full(n_state, WIDTH_PRIOR),
        ]
    )
    mean = np.zeros(len(spread))
    mean[1 + n_state + n_elements] = np.log(START_WIDTH_EV)
    return Posterior(mean, np.diag(spread**-2))


def update(before: Posterior, centre: np.ndarray, width: np.ndarray, gap: np.ndarray) -> Posterior:
    """The posterior after seeing rows, by Fisher scoring.

    centre: (n, k), width: (n, q) rows of features with a leading 1.  gap: (n,) DFT height minus
    the potential's, eV/atom.  Raises ArithmeticError if it does not settle.
    """
    k = centre.shape[1]
    theta = before.mean.copy()
    value = _loss(theta, before, centre, width, gap)
    for _ in range(STEPS):
        u, sigma = _standardised(theta, k, centre, width, gap)
        pull = (FREEDOM + 1) * u / (FREEDOM + u * u)
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
            return Posterior(theta, _information(before, centre, width, sigma))
        value = now
    raise ArithmeticError(f"the fit did not settle in {STEPS} steps")


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
    misfit = np.log(sigma) + (FREEDOM + 1) / 2 * np.log1p(u * u / FREEDOM)
    return float(misfit.sum() + away @ before.precision @ away / 2)


def _information(
    before: Posterior, centre: np.ndarray, width: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    """Prior precision plus the expected information of the rows; centre and width do not mix."""
    k = centre.shape[1]
    total = before.precision.copy()
    weighted = centre / sigma[:, None]
    total[:k, :k] += (FREEDOM + 1) / (FREEDOM + 3) * weighted.T @ weighted
    total[k:, k:] += 2 * FREEDOM / (FREEDOM + 3) * width.T @ width
    return total


def chances(
    mean: np.ndarray,
    covariance: np.ndarray,
    centre: np.ndarray,
    width: np.ndarray,
    heights: np.ndarray,
    threshold: float,
    shift_sd: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(DFT height <= threshold), (n,), with the ends of its 95 % interval, each (n,).

    heights: (n,) the potential's, eV/atom.  shift_sd: eV/atom, how far a new kind of source may
    lie off as a whole. The probability is the mean over the posterior; the interval says how well
    it is known (first order in the parameters).
    """
    from scipy.special import stdtr

    k = centre.shape[1]
    sigma = np.exp(width @ mean[k:])
    u = (threshold - heights - centre @ mean[:k]) / sigma
    of_centre = np.einsum("ni,ij,nj->n", centre, covariance[:k, :k], centre) + shift_sd**2
    of_width = np.einsum("ni,ij,nj->n", width, covariance[k:, k:], width)
    both = np.einsum("ni,ij,nj->n", centre, covariance[:k, k:], width)
    sd = np.sqrt(np.maximum(of_centre / sigma**2 + u**2 * of_width + 2 * u * both / sigma, 0.0))
    spread = stdtr(FREEDOM, u[:, None] + sd[:, None] * NODES)
    return (
        spread @ WEIGHTS / WEIGHTS.sum(),
        stdtr(FREEDOM, u - 1.96 * sd),
        stdtr(FREEDOM, u + 1.96 * sd),
    )
