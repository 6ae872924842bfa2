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
from hullward.tools.screening import OVER_REFERENCE, PROPOSED_ORDER, RELAXED, Screen
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

BATCH = 2000  # verdicts looked at at once

# The probability and the ends of its interval, for each of THRESHOLDS_EV_PER_ATOM.
PROBABILITIES = (
    *("p_below_50mev", "p_below_50mev_low", "p_below_50mev_high"),
    *("p_below_100mev", "p_below_100mev_low", "p_below_100mev_high"),
)


def store_probabilities(screen: Screen, home: Path | None) -> None:
    """Store a probability for each verdict of the current basis that has none by this calibrator.

    A calibrator is new until its record is stored: then every verdict is looked at, and one that it
    gives no number keeps that of an earlier calibrator. So it is, once a run, where a stored number
    is by a calibrator that is no longer there. Later only verdicts without any are looked at, and
    once a run those that lack their second energy.
    home: where the user's own calibrators are kept; None: only the shipped one.
    """
    calibrators = known_calibrators(home)
    with screen.hooks.timed("judge"):
        fitting, _ = fitting_calibrator(screen.basis, calibrators)
        is_new = fitting is not None and not screen.store.load(Calibration, [fitting.calibrator_id])
        everything = is_new or fitting is None or _by_others(screen, calibrators)
        missing = _without_probability(screen, fitting, everything=everything)
    for start in range(0, len(missing), BATCH):
        _store_some(screen, calibrators, fitting, missing[start : start + BATCH])
    if fitting is None:
        return
    if missing and is_new:
        screen.store.add([calibration_record(fitting)])
    if fitting.reading:
        _try_again(screen, calibrators, fitting, {row["relaxation_id"] for row in missing})


def _store_some(
    screen: Screen,
    calibrators: Sequence[Calibrator],
    fitting: Calibrator | None,
    rows: Sequence[dict[str, Any]],
) -> list[StabilityProbability]:
    """Store the probabilities of some verdicts, or why they have none, and return these."""
    with screen.hooks.timed("judge"):
        pairs = screen.pairs([row["relaxation_id"] for row in rows])
    energies = {} if fitting is None else second_energies_for(screen, fitting, pairs)
    with screen.hooks.timed("judge"):
        new = probabilities_of(pairs, screen.reference, screen.basis, calibrators, energies)
        kept = {row["relaxation_id"] for row in rows if row["calibrator_id"] and fitting}
        screen.store.add(p for p in new if p.calibrator_id or p.relaxation_id not in kept)
    return new


def _by_others(screen: Screen, calibrators: Sequence[Calibrator]) -> bool:
    """Whether a number is by a calibrator that is no longer there; asked once a run."""
    task = f"calibrators {screen.basis.reference_id} {screen.basis.reference_version}"
    if task in screen.tried:
        return False
    screen.tried.add(task)
    there = {one.calibrator_id for one in calibrators}
    rows = screen.store.rows(
        f"""SELECT DISTINCT calibrator_id FROM probabilities
            WHERE {OVER_REFERENCE} AND calibrator_id IS NOT NULL""",
        dict(screen.judged_by),
    )
    return any(row["calibrator_id"] not in there for row in rows)


def _without_probability(
    screen: Screen, fitting: Calibrator | None, *, everything: bool
) -> list[dict[str, Any]]:
    """Verdicts without a probability by a calibrator, in the order of proposing.

    everything: those too with a record that is not by this calibrator.
    """
    other = "k.relaxation_id IS NULL"
    if everything:
        other += " OR k.calibrator_id IS DISTINCT FROM $by"
    return screen.store.rows(
        f"""SELECT v.relaxation_id, k.calibrator_id
            FROM (FROM verdicts WHERE height = 'reference' AND {OVER_REFERENCE}) v
            LEFT JOIN (FROM probabilities WHERE {OVER_REFERENCE}) k USING (relaxation_id)
            JOIN (FROM relaxations WHERE {RELAXED}) r USING (relaxation_id)
            JOIN candidates c USING (candidate_id) JOIN proposals p USING (proposal_id)
            WHERE {other} ORDER BY {PROPOSED_ORDER}""",
        {
            **screen.judged_by,
            **screen.relaxed_by,
            **({"by": fitting.calibrator_id if fitting else None} if everything else {}),
        },
    )


def _try_again(
    screen: Screen, calibrators: Sequence[Calibrator], fitting: Calibrator, just_tried: set[str]
) -> None:
    """Compute second energies that an earlier run lacked, unless all fail for the same reason."""
    task = f"second energies {screen.basis.reference_id} {screen.basis.reference_version}"
    if task in screen.tried:
        return
    screen.tried.add(task)
    rows = screen.store.rows(
        f"""SELECT relaxation_id, calibrator_id FROM probabilities
            WHERE {OVER_REFERENCE} AND (calibrator_id <> $by
                OR (calibrator_id IS NULL AND starts_with(reason, $lacking)))
            ORDER BY relaxation_id""",
        {
            **screen.judged_by,
            "by": fitting.calibrator_id,
            "lacking": f"no second energy by {fitting.reading}:",
        },
    )
    rows = [row for row in rows if row["relaxation_id"] not in just_tried]
    for start in range(0, len(rows), FEW):
        new = _store_some(screen, calibrators, fitting, rows[start : start + FEW])
        if len({p.reason for p in new}) == 1 and not new[0].calibrator_id:
            return


def second_energies_for(
    screen: Screen, fitting: Calibrator, relaxed: Sequence[tuple[Candidate, Relaxation]]
) -> dict[str, SecondEnergy]:
    """Energies by a calibrator's second potential, by relaxation id; what is new is stored.

    One without a number names its failure and is not stored.
    """
    if not fitting.reading:
        return {}
    found = {
        e.relaxation_id: e
        for e in screen.store.load(SecondEnergy, [r.relaxation_id for _, r in relaxed])
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
    energies = second_energies_of(todo, fitting.reading, screen.executor, hooks.stopping)
    for done, energy in enumerate(energies, start=1):
        if not energy.failure:
            screen.store.add([energy])
        yield energy
        hooks.progress("second energy", done, len(todo))
        if (
            not screen.executor.in_this_process and len(todo) > FEW
        ):  # else it was spent in this process
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
