"""Fit a calibrator to DFT heights, and score such fits on generators they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np

from hullward.models.potential import MPTRJ_ELEMENTS, potential_card
from hullward.tools.records import Check, LeftOut, Protocol
from hullward.tools.uncertainty.calibrator import (
    THRESHOLDS_EV_PER_ATOM,
    CalibrationCase,
    Calibrator,
    parameters,
)
from hullward.tools.uncertainty.features import STATE, share_roots
from hullward.tools.uncertainty.folds import (
    CHOICES,
    DftRows,
    Fold,
    choose_widths,
    fit_rows,
    left_out_folds,
)
from hullward.tools.uncertainty.model import Widths
from hullward.tools.uncertainty.scores import left_out_scores, scores_of, worst_of
from hullward.tools.uncertainty.second_energies import SECOND_ENERGY_STATE

KINDS = ("file", "materials_project")  # hulls of DFT energies
OWN_KINDS = ("embedded", "built")  # hulls of the potential's own energies
ELEMENTS = tuple(sorted(MPTRJ_ELEMENTS))


@dataclass(frozen=True)
class Outcome:
    """One structure with its DFT height."""

    case: CalibrationCase
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
    reading: str = "",
    widths: Widths | None = None,
    shift_sd_ev_per_atom: float | None = None,
) -> Calibrator:
    """A calibrator fitted to these outcomes.

    reading: the second potential, where these outcomes have second energies; else ''.
    widths: of the prior; None: those that do best on these generators, left out in turn.
    shift_sd_ev_per_atom: of shifts between generators; None: the likeliest one.
    """
    card = potential_card(potential)
    rows = rows_of(outcomes)
    every = np.arange(len(outcomes))
    if widths is None:
        widths = choose_widths(rows, every, THRESHOLDS_EV_PER_ATOM)
    fitted = fit_rows(rows, every, widths, shift_sd_ev_per_atom)
    return Calibrator(
        name=name,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=protocol,
        reference_kinds=tuple(kinds),
        statement=statement,
        rows=len(outcomes),
        reading=reading,
        reading_sha256=potential_card(reading).weights_sha256 if reading else "",
        state=_state_names(outcomes),
        centres=tuple(float(f"{x:.7g}") for x in fitted.centres),
        scales=tuple(float(f"{x:.7g}") for x in fitted.scales),
        elements=ELEMENTS,
        freedom=widths.freedom,
        prior_widths=astuple(widths)[:3],
        shift_sd_ev_per_atom=float(f"{fitted.shift_sd:.7g}"),
        checks=tuple(checks),
        **parameters(fitted.posterior),
    )


def rows_of(outcomes: Sequence[Outcome]) -> DftRows:
    """Outcomes as arrays, in their order; all of them have second energies, or none."""
    names = _state_names(outcomes)
    return DftRows(
        state=np.array([[o.case.state[name] for name in names] for o in outcomes]),
        roots=np.array([share_roots(o.case.amounts, ELEMENTS) for o in outcomes]),
        heights=np.array([o.case.height_ev_per_atom for o in outcomes]),
        dft=np.array([o.dft_ev_per_atom for o in outcomes]),
        generators=np.array([o.generator for o in outcomes]),
        formulas=np.array([o.formula for o in outcomes]),
    )


def _state_names(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    second = bool(outcomes) and SECOND_ENERGY_STATE[0] in outcomes[0].case.state
    return STATE + SECOND_ENERGY_STATE if second else STATE


def kinds_like(kind: str) -> tuple[str, ...]:
    """The kinds of reference whose hulls are made as this kind's is."""
    return OWN_KINDS if kind in OWN_KINDS else KINDS


def left_out_fits(
    outcomes: Sequence[Outcome], choices: Mapping[str, Sequence[float]] = CHOICES
) -> tuple[DftRows, list[Fold]]:
    """Outcomes as rows, and a fit without each generator."""
    rows = rows_of(outcomes)
    return rows, left_out_folds(rows, THRESHOLDS_EV_PER_ATOM, choices)


def checks_of(rows: DftRows, folds: Sequence[Fold]) -> list[Check]:
    """The checks on folds that leave out a generator each, one a threshold."""
    return [_check(rows, folds, threshold) for threshold in THRESHOLDS_EV_PER_ATOM]


def _check(rows: DftRows, folds: Sequence[Fold], threshold: float) -> Check:
    """One threshold's scores; a generator that left nothing to train on is not among its rows."""
    predicted = np.full(len(rows.dft), np.nan)
    found = rows.dft <= threshold
    parts: dict[str, LeftOut] = {}
    shifted = []
    for number, fold in enumerate(folds):
        out = fold.left_out
        predicted[out] = fold.fitted.probabilities(rows, out, threshold)
        moved = partial(fold.fitted.moved, rows, out, threshold)
        part, errors = left_out_scores(
            predicted[out], found[out], moved, fold.fitted.shift_sd, fold.fitted.widths, 2 * number
        )
        parts[str(rows.generators[out[0]])] = part
        shifted.append(errors)
    return scores_of(
        threshold,
        predicted,
        found,
        rows.heights,
        parts,
        worst_of(parts, shifted),
        [(f.training, f.left_out) for f in folds],
    )
