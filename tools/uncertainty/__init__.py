"""How likely DFT is to agree with a verdict: calibrator, features, second potentials.

A calibrator turns a height above the hull into a probability; a second opinion asks another
potential for the same decomposition energy. It changes no verdict.
"""

from hullward.tools.uncertainty.calibrator import (
    Calibrator,
    Case,
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
from hullward.tools.uncertainty.fitting import checks_of, fit, kinds_like, left_out_fits
from hullward.tools.uncertainty.learning_curve import Learning, learning_curves
from hullward.tools.uncertainty.probabilities import (
    reading_trouble,
    readings_for,
    say_chances,
    unsaid,
    which,
)
from hullward.tools.uncertainty.second_opinion import Adviser, advise

__all__ = [
    "DFT_COLUMNS",
    "Adviser",
    "Calibrator",
    "Case",
    "Learning",
    "advise",
    "calibrators_folder",
    "case_of",
    "checks_of",
    "fit",
    "kinds_like",
    "known_calibrators",
    "learning_curves",
    "left_out_fits",
    "outcomes",
    "pick",
    "read_dft_table",
    "read_table",
    "reading_trouble",
    "readings_for",
    "say_chances",
    "shipped",
    "unsaid",
    "updated",
    "which",
]
