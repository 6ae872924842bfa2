"""Probability that DFT agrees with a verdict: calibrator, features, second potentials.

A calibrator turns a height above the hull into a probability; a second opinion asks another
potential for the same decomposition energy. It changes no verdict.
"""

from hullward.tools.uncertainty.calibrator import (
    CalibrationCase,
    Calibrator,
    OwnDftResult,
    calibrators_folder,
    case_of,
    known_calibrators,
    shipped,
    updated,
)
from hullward.tools.uncertainty.dft_table import (
    DftHeight,
    outcomes,
    read_dft_heights,
    read_dft_table,
)
from hullward.tools.uncertainty.fitting import Outcome, checks_of, fit, kinds_like, left_out_fits
from hullward.tools.uncertainty.learning_curve import Learning, learning_curves
from hullward.tools.uncertainty.own_results import (
    forget_every_result,
    forget_results,
    only_writer,
    own_calibrators,
    relearnt,
    write_own,
)
from hullward.tools.uncertainty.probabilities import (
    fitting_calibrator,
    second_energies_for,
    store_probabilities,
    why_no_probability,
    why_no_second_energy,
)
from hullward.tools.uncertainty.second_opinion import SecondPotential, ask_second_potential

__all__ = [
    "CalibrationCase",
    "Calibrator",
    "DftHeight",
    "Learning",
    "Outcome",
    "OwnDftResult",
    "SecondPotential",
    "ask_second_potential",
    "calibrators_folder",
    "case_of",
    "checks_of",
    "fit",
    "fitting_calibrator",
    "forget_every_result",
    "forget_results",
    "kinds_like",
    "known_calibrators",
    "learning_curves",
    "left_out_fits",
    "only_writer",
    "outcomes",
    "own_calibrators",
    "read_dft_heights",
    "read_dft_table",
    "relearnt",
    "second_energies_for",
    "shipped",
    "store_probabilities",
    "updated",
    "why_no_probability",
    "why_no_second_energy",
    "write_own",
]
