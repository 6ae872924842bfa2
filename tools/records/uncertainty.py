"""Records of uncertainty: probabilities, calibrations, second opinions and second energies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hullward.tools.records.base import Count, Record


class StabilityProbability(Record):
    """The probability that DFT finds a relaxed structure near the hull, or why there is none.

    It is that of DFT's own height, given the height over this version of this reference. Intervals
    are 95 % intervals of the probability itself. Missing numbers have a reason.
    """

    relaxation_id: str
    reference_id: str
    reference_version: str
    calibrator_id: str | None = None
    p_below_50mev: float | None = Field(default=None, ge=0, le=1)
    p_below_50mev_low: float | None = None
    p_below_50mev_high: float | None = None
    p_below_100mev: float | None = Field(default=None, ge=0, le=1)
    p_below_100mev_low: float | None = None
    p_below_100mev_high: float | None = None
    reason: str = ""


class Curve(Record):
    """Predicted against found, in bins of equal size, for one threshold, on left-out generators."""

    threshold_ev_per_atom: float
    said: tuple[float, ...]
    found: tuple[float, ...]
    rows: tuple[int, ...]


class LeftOut(Record):
    """One generator, seen by neither the fit nor the choice of its prior. None: not measured."""

    rows: int
    base_rate: float
    calibration_error: float
    calibration_error_interval: tuple[float, float] | None = None  # 95 %
    # The error of exactly right probabilities on so many rows: mean, 95 % quantile.
    floor: float
    floor_95: float | None = None
    # The same if the whole generator is shifted by an unseen amount, of the size found between the
    # others.
    shifted_floor: float | None = None
    shifted_floor_95: float | None = None
    shift_sd_ev_per_atom: float | None = None
    widths: tuple[float, ...] = ()  # chosen by the others: state, elements, log width, freedom


class Worst(Record):
    """The left-out generator with the largest calibration error, and how bad the worst may be."""

    generator: str
    calibration_error: float
    # The worst generator if all probabilities are right but for unseen shifts: median, 70 %,
    # 90 % and 95 % quantiles, and the share of such worlds whose worst is at least as bad.
    shifted: tuple[float, float, float, float] | None = None
    shifted_as_bad: float | None = None


class Check(Record):
    """The performance of the fit on left-out generators, for one threshold."""

    threshold_ev_per_atom: float
    rows: int
    base_rate: float
    brier_skill: float
    log_loss: float
    log_loss_isotonic: float
    log_loss_gain: tuple[float, float]  # isotonic minus ours, 95 % interval
    calibration_error: float
    calibration_error_interval: tuple[float, float]
    calibration_error_floor: float  # mean error if these probabilities were exactly right
    by_generator: dict[str, LeftOut]
    worst: Worst
    precision_top_tenth: float
    precision_top_tenth_by_height: float
    curve: Curve

    @model_validator(mode="before")
    @classmethod
    def _four_numbers(cls, value: Any) -> Any:
        """Checks written before 2026-11-25 hold only rows, base rate, error and floor."""
        if not isinstance(value, dict) or "worst" in value:
            return value
        names = ("rows", "base_rate", "calibration_error", "floor")
        parts = {
            name: dict(zip(names, part, strict=True))
            for name, part in value.get("by_generator", {}).items()
        }
        name = max(parts, key=lambda n: parts[n]["calibration_error"], default="")
        error = parts[name]["calibration_error"] if parts else 0.0
        worst = {"generator": name, "calibration_error": error}
        return {**value, "by_generator": parts, "worst": worst}


class Calibration(Record):
    """A calibrator in use, and its performance on generators that it was not fitted to."""

    calibrator_id: str
    name: str
    potential: str
    statement: str
    rows: int  # DFT results in the fit
    reading: str = ""  # the potential whose second energies it uses
    reading_sha256: str = ""
    checks: tuple[Check, ...]


class SecondOpinion(Record):
    """Another potential's verdict on a relaxed candidate, beside the first one's.

    Decomposition energies are computed wholly within each potential: candidate and competing
    phases alike. Over a reference without structures only geometry is compared.
    """

    relaxation_id: str  # of the first potential
    reference_id: str
    reference_version: str
    potential: str
    potential_sha256: str
    kind: Literal["decomposition", "geometry"]
    first_ev_per_atom: float | None  # the candidate over what it would decompose into
    second_ev_per_atom: float | None
    difference_ev_per_atom: float | None  # second minus first
    margin_ev_per_atom: float
    disputed: bool | None  # they differ by more than the margin; None: nothing to compare
    volume_ratio: float | None  # relaxed by the second over relaxed by the first
    same_structure: bool | None  # StructureMatcher's tolerances, after both relaxations
    rms_a: float | None  # normalised, of that match
    failure: str  # why the result is missing or incomplete
    force_calls: Count  # of the second potential, competing phases included


class SecondEnergy(Record):
    """A second potential's energy of a structure as the first one relaxed it.

    Missing numbers have a reason in `failure`.
    """

    relaxation_id: str  # of the first potential
    potential: str
    potential_sha256: str
    energy_ev_per_atom: float | None = None  # as computed
    correction_ev_per_atom: float | None = None  # to the first one's scale
    higher_ev_per_atom: float | None = None  # corrected, minus the first one's
    largest_force_ev_per_a: float | None = None  # largest norm over atoms
    cpu_s: float = 0.0
    failure: str = ""
