"""Probability that DFT agrees with a verdict: calibrator, features, second potentials.

A calibrator turns a height above the hull into a probability; a second opinion asks another
potential for the same decomposition energy. It changes no verdict.
"""

from hullward.tools.uncertainty.calibrator import (
    CalibrationCase,
    Calibrator,
    calibrators_folder,
    case_of,
    known_calibrators,
    shipped,
    updated,
)
from hullward.tools.uncertainty.dft_table import (
    DFT_COLUMNS,
    outcomes,
    pick,
    read_dft_table,
    read_table,
)
from hullward.tools.uncertainty.fitting import Outcome, checks_of, fit, kinds_like, left_out_fits
from hullward.tools.uncertainty.learning_curve import Learning, learning_curves
from hullward.tools.uncertainty.probabilities import (
    fitting_calibrator,
    second_energies_for,
    store_probabilities,
    why_no_probability,
    why_no_second_energy,
)
from hullward.tools.uncertainty.second_opinion import SecondPotential, ask_second_potential

__all__ = [
    "DFT_COLUMNS",
    "CalibrationCase",
    "Calibrator",
    "Learning",
    "Outcome",
    "SecondPotential",
    "ask_second_potential",
    "calibrators_folder",
    "case_of",
    "checks_of",
    "fit",
    "fitting_calibrator",
    "kinds_like",
    "known_calibrators",
    "learning_curves",
    "left_out_fits",
    "outcomes",
    "pick",
    "read_dft_table",
    "read_table",
    "second_energies_for",
    "shipped",
    "store_probabilities",
    "updated",
    "why_no_probability",
    "why_no_second_energy",
]
