"""Probability that DFT finds a candidate within 50 or 100 meV/atom of the hull.

A calibrator belongs to one potential (by the hash of its weights), one protocol, some kinds of
reference and their covered compositions. Where none fits there is a reason instead of a
probability. The shipped one is a posterior: DFT results update it (`updated`) without the data
that it was fitted on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from hullward.models.errors import InputError, first_problem, system_reason
from hullward.tools.hull import HullDistance, Reference
from hullward.tools.records import Basis, Check, Protocol, Record, Relaxation, SecondEnergy
from hullward.tools.store import unsealed
from hullward.tools.uncertainty import model
from hullward.tools.uncertainty.features import STATE, share_roots, state_features
from hullward.tools.uncertainty.second_energies import second_energy_features

THRESHOLDS_EV_PER_ATOM = (0.05, 0.1)
SHIPPED = "calibration_chgnet_mp2020.json"


class OwnDftResult(Record):
    """One DFT height of the user's own, with the input of the calibrator that it is for."""

    candidate_id: str
    formula: str
    dft_ev_per_atom: float
    height_ev_per_atom: float  # of the potential, over the campaign's reference
    state: dict[str, float]
    amounts: dict[str, float]
    source: str  # the table and its row
    campaign: str  # the directory
    since: str  # UTC

    @property
    def case(self) -> CalibrationCase:
        return CalibrationCase(self.state, self.amounts, self.height_ev_per_atom)


class Calibrator(Record):
    """A posterior and what it may be used for."""

    format: Literal["hullward-calibrator-1"] = "hullward-calibrator-1"
    name: str
    potential: str
    potential_sha256: str
    energy_scheme: str
    protocol: Protocol
    reference_kinds: tuple[str, ...]
    covered: bool = True  # compositions the reference covers, and only these
    statement: str
    rows: int  # DFT results it has seen, all in all
    seen: tuple[str, ...] = ()  # candidate ids among them: none counts twice
    reading: str = ""  # the second potential, whose energies it uses too
    reading_sha256: str = ""
    state: tuple[str, ...] = STATE
    centres: tuple[float, ...]  # of the state features, and their scales
    scales: tuple[float, ...]
    elements: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]  # lower triangle, a row each
    freedom: float = model.FREEDOM  # of the t
    prior_widths: tuple[float, ...] = ()  # it began with: state, elements, log width
    shift_sd_ev_per_atom: float  # between generators
    checks: tuple[Check, ...] = ()
    base: Calibrator | None = None  # before DFT results of the user's own, and these results
    results: tuple[OwnDftResult, ...] = ()

    @cached_property
    def calibrator_id(self) -> str:
        """A hash of its content, apart from what its posterior was computed from."""
        content = self.model_dump_json(exclude={"base", "results"}).encode()
        return "cal-" + hashlib.blake2b(content, digest_size=8).hexdigest()

    @cached_property
    def posterior(self) -> model.Posterior:
        size = len(self.mean)
        lower = np.zeros((size, size))
        for k, row in enumerate(self.precision):
            lower[k, : k + 1] = row
        whole = lower + np.tril(lower, -1).T
        return model.Posterior(np.array(self.mean), whole, self.freedom)

    def changed(self, **changes: Any) -> Calibrator:
        """A copy with these fields changed; `model_copy` would keep what is cached here."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})

    def why_unfit(self, basis: Basis) -> str:
        """Why it gives no probability for verdicts of that basis; '' where it does."""
        if basis.potential_sha256 != self.potential_sha256:
            return f"it is for {self.potential}, not {basis.potential}"
        if basis.protocol != self.protocol:
            return "it is for the default protocol of relaxation, not this one"
        if basis.reference_kind not in self.reference_kinds:
            kinds = " or ".join(self.reference_kinds)
            words = f"it was fitted to {kinds} references, not to {basis.reference_kind} ones"
            return words.replace("materials_project", "Materials Project")
        return ""

    def design(self, cases: Sequence[CalibrationCase]) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) rows for the centre and (n, q) rows for the width."""
        state = np.array([[case.state[name] for name in self.state] for case in cases])
        roots = np.array([share_roots(case.amounts, self.elements) for case in cases])
        return model.design(state, roots, np.array(self.centres), np.array(self.scales))

    def probabilities(
        self, cases: Sequence[CalibrationCase], threshold_ev_per_atom: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability and the ends of its 95 % interval, (n,) each."""
        centre, width = self.design(cases)
        heights = np.array([c.height_ev_per_atom for c in cases])
        shift_sd = self.shift_sd_ev_per_atom
        return model.probabilities(
            self.posterior, centre, width, heights, threshold_ev_per_atom, shift_sd
        )


@dataclass(frozen=True)
class CalibrationCase:
    """One relaxed candidate over one reference: the input of a calibrator."""

    state: dict[str, float]
    amounts: dict[str, float]
    height_ev_per_atom: float


def case_of(
    relaxation: Relaxation, reference: Reference, second_energy: SecondEnergy | None = None
) -> CalibrationCase:
    """The input of a calibrator for one relaxation; the reference must have a hull for it.

    second_energy: for a calibrator that uses one; it must have numbers.
    """
    crystal = relaxation.crystal
    assert crystal is not None  # a converged relaxation has both
    assert relaxation.energy_ev_per_atom is not None
    amounts = crystal.amounts
    hull = reference.hull(crystal.chemsys)
    distance: HullDistance = hull.distance(amounts, relaxation.energy_ev_per_atom)
    elements = float(hull.fractions([amounts])[0] @ hull.element_energies)
    state = state_features(relaxation, amounts, distance, crystal.formula, elements)
    if second_energy is not None:
        state |= second_energy_features(second_energy)
    return CalibrationCase(state, amounts, distance.e_above_hull_ev_per_atom)


def updated(
    calibrator: Calibrator, cases: Sequence[CalibrationCase], dft_heights_ev_per_atom: np.ndarray
) -> Calibrator:
    """The calibrator after seeing DFT heights, (n,), of these cases."""
    centre, width = calibrator.design(cases)
    gap = dft_heights_ev_per_atom - np.array([c.height_ev_per_atom for c in cases])
    after = model.update(calibrator.posterior, centre, width, gap)
    return calibrator.changed(rows=calibrator.rows + len(cases), **parameters(after))


def parameters(posterior: model.Posterior) -> dict[str, Any]:
    """Mean and precision of a calibrator, rounded to seven digits."""
    digits = [[float(f"{x:.7g}") for x in row] for row in posterior.precision]
    return {
        "mean": tuple(float(f"{x:.7g}") for x in posterior.mean),
        "precision": tuple(tuple(row[: k + 1]) for k, row in enumerate(digits)),
    }


def read_calibrator(path: Path) -> Calibrator:
    """A calibrator from a file; raises InputError where it is missing or broken."""
    try:
        return Calibrator.model_validate_json(unsealed(path.read_bytes(), required=False))
    except OSError as error:
        raise InputError(f"calibrator {path} cannot be read: {system_reason(error)}") from error
    except ValidationError as error:
        raise InputError(f"{path} is no calibrator: {first_problem(error)}") from None
    except ValueError as error:
        raise InputError(
            f"calibrator {path} is damaged: {error}; put it back, or delete it and "
            "`hullward calibrate` again"
        ) from None


def shipped() -> Calibrator | None:
    """The calibrator that comes with the package; None where it is missing."""
    path = files("hullward.data") / SHIPPED
    if not path.is_file():
        return None
    return Calibrator.model_validate(json.loads(path.read_text(encoding="utf-8")))


def calibrators_folder(home: Path) -> Path:
    """Where `hullward calibrate` writes updated calibrators."""
    return home / "calibrators"


def known_calibrators(home: Path | None) -> list[Calibrator]:
    """The user's own first, then the shipped one."""
    own = sorted(calibrators_folder(home).glob("*.json")) if home else []
    there = shipped()
    return [*(read_calibrator(path) for path in own), *([there] if there else [])]
