"""Store a probability, or the reason why there is none, for every verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import PreflightError
from hullward.models.potential import potential_card
from hullward.tools.hull import Reference
from hullward.tools.records import (
    Basis,
    Calibration,
    Candidate,
    Relaxation,
    SecondEnergy,
    StabilityProbability,
)
from hullward.tools.screening import Screen
from hullward.tools.uncertainty.calibrator import (
    THRESHOLDS_EV_PER_ATOM,
    CalibrationCase,
    Calibrator,
    case_of,
    known_calibrators,
)
from hullward.tools.uncertainty.second_energies import (
    FEW,
    not_computed,
    second_energies_of,
)

# The probability and the ends of its interval, for each of THRESHOLDS_EV_PER_ATOM.
PROBABILITIES = (
    *("p_below_50mev", "p_below_50mev_low", "p_below_50mev_high"),
    *("p_below_100mev", "p_below_100mev_low", "p_below_100mev_high"),
)


def store_probabilities(screen: Screen, home: Path | None) -> None:
    """Store a probability for each verdict of the current basis that has none by this calibrator.

    One by an earlier calibrator is kept until there is a new one.
    home: where the user's own calibrators are kept; None: only the shipped one.
    """
    basis, calibrators = screen.basis, known_calibrators(home)
    with screen.hooks.timed("judge"):
        fitting, _ = fitting_calibrator(basis, calibrators)
        by = fitting.calibrator_id if fitting else None
        stored = {
            p.relaxation_id: p.calibrator_id
            for p in screen.store.load(StabilityProbability)
            if (p.reference_id, p.reference_version)
            == (basis.reference_id, basis.reference_version)
        }
        wanted = {i for i in screen.verdicts("reference") if i not in stored or stored[i] != by}
        todo = [(c, r) for c, r in screen.relaxed() if r.relaxation_id in wanted]
        if fitting is not None and todo:
            screen.store.add([calibration_record(fitting)])
    energies = {} if fitting is None else second_energies_for(screen, fitting, todo)
    with screen.hooks.timed("judge"):
        new = probabilities_of(todo, screen.reference, basis, calibrators, energies)
        kept = {i for i, earlier in stored.items() if earlier is not None and fitting is not None}
        screen.store.add(p for p in new if p.calibrator_id or p.relaxation_id not in kept)


def second_energies_for(
    screen: Screen, fitting: Calibrator, relaxed: Sequence[tuple[Candidate, Relaxation]]
) -> dict[str, SecondEnergy]:
    """Energies by a calibrator's second potential, by relaxation id; what is new is stored.

    One without a number names its failure, is not stored, and is computed again the next time.
    """
    if not fitting.reading:
        return {}
    found = {
        e.relaxation_id: e
        for e in screen.store.load(SecondEnergy)
        if e.potential_sha256 == fitting.reading_sha256
    }
    todo = [
        relaxation
        for candidate, relaxation in relaxed
        if relaxation.relaxation_id not in found
        and not why_no_probability(candidate, screen.reference, fitting)
    ]
    if not todo:
        return found
    why = "the run was stopped first"
    try:
        with screen.hooks.timed("read"):
            for energy in _computed(screen, fitting, todo):
                found[energy.relaxation_id] = energy
    except PreflightError as error:
        why = str(error)
    left = [r for r in todo if r.relaxation_id not in found]
    return found | {e.relaxation_id: e for e in not_computed(left, fitting.reading, why)}


def _computed(
    screen: Screen, fitting: Calibrator, todo: Sequence[Relaxation]
) -> Iterator[SecondEnergy]:
    """Second energies as they are computed, those with a number stored, until the run is to stop.

    Raises PreflightError where the potential is not installed, or with other weights.
    """
    hooks = screen.hooks
    if hooks.stopping():
        return
    if potential_card(fitting.reading).weights_sha256 != fitting.reading_sha256:
        raise PreflightError("its weights are not those the calibrator was fitted with")
    hooks.progress("second energy", 0, len(todo))
    energies = second_energies_of(todo, fitting.reading, screen.home, screen.workers)
    for done, energy in enumerate(energies, start=1):
        if not energy.failure:
            screen.store.add([energy])
        yield energy
        hooks.progress("second energy", done, len(todo))
        if screen.workers and len(todo) > FEW:  # else it was spent in this process
            hooks.timed.charge("read", energy.cpu_s)
        if hooks.stopping():
            return


def fitting_calibrator(
    basis: Basis, calibrators: Sequence[Calibrator]
) -> tuple[Calibrator | None, str]:
    """The first calibrator that fits, or why none does."""
    for one in calibrators:
        if not one.why_unfit(basis):
            return one, ""
    why = "; ".join(dict.fromkeys(f"{c.name}: {c.why_unfit(basis)}" for c in calibrators))
    return None, f"no calibrator fits ({why})" if why else "there is no calibrator"


def calibration_record(calibrator: Calibrator) -> Calibration:
    """What a report shows of a calibrator."""
    return Calibration(**{name: getattr(calibrator, name) for name in Calibration.model_fields})


def probabilities_of(
    judged: Sequence[tuple[Candidate, Relaxation]],
    reference: Reference,
    basis: Basis,
    calibrators: Sequence[Calibrator],
    second_energies: Mapping[str, SecondEnergy],
) -> list[StabilityProbability]:
    """A probability for each converged relaxation by the fitting calibrator, or why there is none.

    second_energies: by relaxation id, for a calibrator that uses them.
    """
    fitting, why = fitting_calibrator(basis, calibrators)
    found: list[StabilityProbability] = []
    cases: list[tuple[str, CalibrationCase]] = []
    for candidate, relaxation in judged:
        second_energy = second_energies.get(relaxation.relaxation_id)
        own = (
            why
            or why_no_probability(candidate, reference, fitting)
            or why_no_second_energy(second_energy, fitting)
        )
        if own:
            found.append(_probability(relaxation.relaxation_id, basis, reason=own))
        else:
            case = case_of(relaxation, reference, second_energy)
            cases.append((relaxation.relaxation_id, case))
    if cases:
        assert fitting is not None
        inputs = [case for _, case in cases]
        columns = [fitting.probabilities(inputs, t) for t in THRESHOLDS_EV_PER_ATOM]
        for (relaxation_id, _), row in zip(cases, np.concatenate(columns).T.tolist(), strict=True):
            numbers = dict(zip(PROBABILITIES, row, strict=True))
            by = fitting.calibrator_id
            found.append(_probability(relaxation_id, basis, calibrator_id=by, **numbers))
    return found


def why_no_probability(
    candidate: Candidate, reference: Reference, fitting: Calibrator | None
) -> str:
    """Why this one candidate gets no probability; '' where it does."""
    elements = frozenset(candidate.crystal.species)
    if reference.lacking(elements):
        return "the reference has no hull for it"
    if not reference.coverage(candidate.crystal.amounts).covered:
        return "the reference does not cover this composition"
    assert fitting is not None
    if unknown := sorted(elements - set(fitting.elements)):
        return f"the calibrator has no parameters for {', '.join(unknown)}"
    return ""


def why_no_second_energy(second_energy: SecondEnergy | None, fitting: Calibrator | None) -> str:
    """Why a second energy that is needed is missing; '' where it is there, or not needed."""
    if fitting is None or not fitting.reading:
        return ""
    failure = "not computed" if second_energy is None else second_energy.failure
    return f"no second energy by {fitting.reading}: {failure}" if failure else ""


def _probability(
    relaxation_id: str, basis: Basis, *, reason: str = "", **values: Any
) -> StabilityProbability:
    return StabilityProbability(
        relaxation_id=relaxation_id,
        reference_id=basis.reference_id,
        reference_version=basis.reference_version,
        reason=reason,
        **values,
    )
