"""Probabilities for everything judged: stored beside the verdicts, or the reason there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from hullward.tools.uncertainty.second_energies import FEW, read, unread


def store_probabilities(screen: Screen, home: Path | None) -> None:
    """Store a probability for each verdict of the current basis that has none by this calibrator.

    One by an earlier calibrator stands until there is a new one.
    home: where the user's own calibrators are kept; None: only the shipped one.
    """
    basis, calibrators = screen.basis, known_calibrators(home)
    with screen.hooks.timed("judge"):
        fitting, _ = fitting_calibrator(basis, calibrators)
        said = _said(screen)
        todo = _unanswered(screen, fitting, said)
        if fitting is not None and todo:
            screen.store.add([calibration_record(fitting)])
    readings = {} if fitting is None else readings_for(screen, fitting, todo)
    with screen.hooks.timed("judge"):
        new = probabilities_of(todo, screen.reference, basis, calibrators, readings)
        stands = {i for i, by in said.items() if by is not None and fitting is not None}
        screen.store.add(c for c in new if c.calibrator_id or c.relaxation_id not in stands)


def _said(screen: Screen) -> dict[str, str | None]:
    """Which calibrator gave each relaxation its probability over this reference; None: none did."""
    key = (screen.basis.reference_id, screen.basis.reference_version)
    return {
        c.relaxation_id: c.calibrator_id
        for c in screen.store.load(StabilityProbability)
        if (c.reference_id, c.reference_version) == key
    }


def _unanswered(
    screen: Screen, fitting: Calibrator | None, said: Mapping[str, str | None]
) -> list[tuple[Candidate, Relaxation]]:
    """What is judged and has no probability by this calibrator, or no reason where none fits."""
    by = fitting.calibrator_id if fitting else None
    asked = {i for i in screen.verdicts("reference") if i not in said or said[i] != by}
    return [(c, r) for c, r in screen.relaxed() if r.relaxation_id in asked]


def readings_for(
    screen: Screen, fitting: Calibrator, asked: Sequence[tuple[Candidate, Relaxation]]
) -> dict[str, SecondEnergy]:
    """What a calibrator's other potential reads, by relaxation id; what is new is stored.

    What gave no number says why, is not stored, and is asked again the next time.
    """
    if not fitting.reading:
        return {}
    found = {
        r.relaxation_id: r
        for r in screen.store.load(SecondEnergy)
        if r.potential_sha256 == fitting.reading_sha256
    }
    todo = [
        relaxation
        for candidate, relaxation in asked
        if relaxation.relaxation_id not in found
        and not why_no_probability(candidate, screen.reference, fitting)
    ]
    if not todo:
        return found
    why = "not asked, for the run was stopped"
    try:
        with screen.hooks.timed("read"):
            for reading in _taken(screen, fitting, todo):
                found[reading.relaxation_id] = reading
    except PreflightError as error:
        why = str(error)
    left = [r for r in todo if r.relaxation_id not in found]
    return found | {r.relaxation_id: r for r in unread(left, fitting.reading, why)}


def _taken(
    screen: Screen, fitting: Calibrator, todo: Sequence[Relaxation]
) -> Iterator[SecondEnergy]:
    """Readings as they are taken, each stored that has a number, until the run is to stop.

    Raises PreflightError where the potential is not installed, or with other weights.
    """
    if screen.hooks.stopping():
        return
    if potential_card(fitting.reading).weights_sha256 != fitting.reading_sha256:
        raise PreflightError("its weights are not those the calibrator was fitted with")
    screen.hooks.progress("read", 0, len(todo))
    taken = read(todo, fitting.reading, screen.home, screen.workers)
    for done, reading in enumerate(taken, start=1):
        if not reading.failure:
            screen.store.add([reading])
        yield reading
        screen.hooks.progress("read", done, len(todo))
        if screen.workers and len(todo) > FEW:  # else it was spent in this process
            screen.hooks.timed.charge("read", reading.cpu_s)
        if screen.hooks.stopping():
            return


def fitting_calibrator(
    basis: Basis, calibrators: Sequence[Calibrator]
) -> tuple[Calibrator | None, str]:
    """The first calibrator that fits, or why none does."""
    for one in calibrators:
        if not one.unfit(basis):
            return one, ""
    told = "; ".join(dict.fromkeys(f"{c.name}: {c.unfit(basis)}" for c in calibrators))
    return None, f"no calibrator fits ({told})" if told else "there is no calibrator"


def calibration_record(calibrator: Calibrator) -> Calibration:
    """What a report says of a calibrator."""
    return Calibration(
        calibrator_id=calibrator.calibrator_id,
        name=calibrator.name,
        potential=calibrator.potential,
        statement=calibrator.statement,
        rows=calibrator.rows,
        reading=calibrator.reading,
        reading_sha256=calibrator.reading_sha256,
        checks=calibrator.checks,
    )


def probabilities_of(
    judged: Sequence[tuple[Candidate, Relaxation]],
    reference: Reference,
    basis: Basis,
    calibrators: Sequence[Calibrator],
    readings: Mapping[str, SecondEnergy],
) -> list[StabilityProbability]:
    """What the fitting calibrator says of each converged relaxation, or why none says anything.

    readings: by relaxation id, for a calibrator that looks at them.
    """
    fitting, why = fitting_calibrator(basis, calibrators)
    found: list[StabilityProbability] = []
    asked: list[tuple[str, CalibrationCase]] = []
    for candidate, relaxation in judged:
        reading = readings.get(relaxation.relaxation_id)
        own = (
            why
            or why_no_probability(candidate, reference, fitting)
            or reading_trouble(reading, fitting)
        )
        if own:
            found.append(_chance(relaxation.relaxation_id, basis, reason=own))
        else:
            asked.append((relaxation.relaxation_id, case_of(relaxation, reference, reading)))
    if asked:
        assert fitting is not None
        said = [fitting.chances([c for _, c in asked], t) for t in THRESHOLDS_EV_PER_ATOM]
        for row, (relaxation_id, _) in enumerate(asked):
            (p50, low50, high50), (p100, low100, high100) = (
                [float(part[row]) for part in one] for one in said
            )
            found.append(
                _chance(
                    relaxation_id,
                    basis,
                    calibrator_id=fitting.calibrator_id,
                    p_below_50mev=p50,
                    p_below_50mev_low=low50,
                    p_below_50mev_high=high50,
                    p_below_100mev=p100,
                    p_below_100mev_low=low100,
                    p_below_100mev_high=high100,
                )
            )
    return found


def why_no_probability(
    candidate: Candidate, reference: Reference, fitting: Calibrator | None
) -> str:
    """Why this one candidate gets no probability; '' where it does."""
    elements = frozenset(candidate.crystal.species)
    if reference.lacking(elements):
        return "the reference has no hull for it"
    amounts = {el: float(candidate.crystal.species.count(el)) for el in elements}
    if not reference.coverage(amounts).covered:
        return "the reference does not cover this composition"
    assert fitting is not None
    if strange := sorted(elements - set(fitting.elements)):
        return f"the calibrator knows nothing of {', '.join(strange)}"
    return ""


def reading_trouble(reading: SecondEnergy | None, fitting: Calibrator | None) -> str:
    """Why there is no reading where one is needed; '' where there is, or none is needed."""
    if fitting is None or not fitting.reading:
        return ""
    if reading is None:
        return f"{fitting.reading} was not asked"
    return f"{fitting.reading} gave no reading: {reading.failure}" if reading.failure else ""


def _chance(
    relaxation_id: str, basis: Basis, *, reason: str = "", **said: Any
) -> StabilityProbability:
    return StabilityProbability(
        relaxation_id=relaxation_id,
        reference_id=basis.reference_id,
        reference_version=basis.reference_version,
        reason=reason,
        **said,
    )
