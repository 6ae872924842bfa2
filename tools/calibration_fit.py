"""Fitting a calibrator to DFT heights, and asking it about generators it has not seen.

Folds leave out one generator at a time, and every formula of it: what the fit saw is neither the
same source nor the same compound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hullward.models.registry import MPTRJ_ELEMENTS, potential_card
from hullward.tools import calibration_model as model
from hullward.tools.calibration import (
    THRESHOLDS_EV_PER_ATOM,
    Calibrator,
    Case,
    parameters,
)
from hullward.tools.calibration_features import STATE
from hullward.tools.calibration_scores import check
from hullward.tools.records import Protocol
from hullward.tools.records_trust import Check

KINDS = ("file", "materials_project")  # hulls of DFT energies
OWN_KINDS = ("embedded", "built")  # hulls of the potential's own energies
ELEMENTS = tuple(sorted(MPTRJ_ELEMENTS))


@dataclass(frozen=True)
class Outcome:
    """One structure, and what DFT found."""

    case: Case
    generator: str
    formula: str  # reduced
    dft_ev_per_atom: float  # above the hull, signed


def fit(
    outcomes: Sequence[Outcome],
    *,
    name: str,
    potential: str,
    protocol: Protocol,
    kinds: Sequence[str] = KINDS,
    statement: str = "",
    checks: Sequence[Check] = (),
    shift_sd_ev_per_atom: float | None = None,
) -> Calibrator:
    """A calibrator for what these outcomes are like.

    shift_sd_ev_per_atom: how far a whole generator may lie off; None: as these generators say.
    """
    card = potential_card(potential)
    cases = [o.case for o in outcomes]
    state = np.array([[c.state[n] for n in STATE] for c in cases])
    if shift_sd_ev_per_atom is None:
        shift_sd_ev_per_atom = between_generators(outcomes, potential, protocol)
    scales = state.std(axis=0)
    blank = Calibrator(
        name=name,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=protocol,
        reference_kinds=tuple(kinds),
        statement=statement,
        rows=len(outcomes),
        centres=tuple(float(f"{x:.7g}") for x in state.mean(axis=0)),
        scales=tuple(float(f"{x:.7g}") for x in np.where(scales > 1e-6, scales, 1.0)),
        elements=ELEMENTS,
        mean=(),
        precision=(),
        shift_sd_ev_per_atom=shift_sd_ev_per_atom,
        checks=tuple(checks),
    )
    centre, width = blank.design(cases)
    heights = np.array([c.height_ev_per_atom for c in cases])
    gap = np.array([o.dft_ev_per_atom for o in outcomes]) - heights
    after = model.update(model.prior(len(STATE), len(ELEMENTS)), centre, width, gap)
    return blank.model_copy(update=parameters(after))


def kinds_like(kind: str) -> tuple[str, ...]:
    """The kinds of reference whose hulls are made as this kind's is."""
    return OWN_KINDS if kind in OWN_KINDS else KINDS


def between_generators(outcomes: Sequence[Outcome], potential: str, protocol: Protocol) -> float:
    """Standard deviation, eV/atom, of the shift a left-out generator shows, beyond its noise."""
    shifts, noise = [], []
    for training, left_out in folds(outcomes):
        rest = [outcomes[i] for i in training]
        there = [outcomes[i] for i in left_out]
        if len(there) < 2 or not rest:
            continue
        fitted = fit(
            rest, name="fold", potential=potential, protocol=protocol, shift_sd_ev_per_atom=0.0
        )
        centre, width = fitted.design([o.case for o in there])
        mean, k = np.array(fitted.mean), centre.shape[1]
        sigma = np.exp(width @ mean[k:])
        gap = np.array([o.dft_ev_per_atom - o.case.height_ev_per_atom for o in there])
        off = gap - centre @ mean[:k]
        shift = float(np.median(off))
        for _ in range(50):  # the likeliest common shift of t-distributed residuals
            weight = (model.FREEDOM + 1) / (model.FREEDOM * sigma**2 + (off - shift) ** 2)
            shift = float((weight * off).sum() / weight.sum())
        shifts.append(shift)
        noise.append((model.FREEDOM + 3) / (model.FREEDOM + 1) / float((sigma**-2).sum()))
    if len(shifts) < 2:
        return 0.0
    excess = float(np.mean(np.square(shifts))) - float(np.mean(noise))
    return float(max(excess, 0.0) ** 0.5)


def folds(outcomes: Sequence[Outcome]) -> list[tuple[list[int], list[int]]]:
    """(training rows, left-out rows) for each generator; no formula is on both sides."""
    found = []
    for generator in sorted({o.generator for o in outcomes}):
        left_out = [i for i, o in enumerate(outcomes) if o.generator == generator]
        formulas = {outcomes[i].formula for i in left_out}
        training = [
            i
            for i, o in enumerate(outcomes)
            if o.generator != generator and o.formula not in formulas
        ]
        found.append((training, left_out))
    return found


def left_out_chances(
    outcomes: Sequence[Outcome], potential: str, protocol: Protocol
) -> dict[float, np.ndarray]:
    """For each threshold (n,): what a fit without the row's generator says of it."""
    said = {t: np.full(len(outcomes), np.nan) for t in THRESHOLDS_EV_PER_ATOM}
    for training, left_out in folds(outcomes):
        fitted = fit(
            [outcomes[i] for i in training], name="fold", potential=potential, protocol=protocol
        )
        for threshold, column in said.items():
            cases = [outcomes[i].case for i in left_out]
            column[left_out] = fitted.chances(cases, threshold)[0]
    return said


def evaluate(outcomes: Sequence[Outcome], potential: str, protocol: Protocol) -> list[Check]:
    """The checks on left-out generators, one a threshold."""
    said = left_out_chances(outcomes, potential, protocol)
    heights = np.array([o.case.height_ev_per_atom for o in outcomes])
    dft = np.array([o.dft_ev_per_atom for o in outcomes])
    generators = [o.generator for o in outcomes]
    return [check(t, p, dft <= t, heights, generators, folds(outcomes)) for t, p in said.items()]
