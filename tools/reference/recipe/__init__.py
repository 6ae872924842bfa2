"""The recipe of built references: try structure types in a chemical system, keep the low phases.

`python -m hullward.tools.reference.recipe` makes the embedded reference with it. Built
references are read by `hullward.tools.reference.sources`.
"""

from hullward.tools.reference.recipe.build import build_systems, log_progress
from hullward.tools.reference.recipe.trials import Trial, all_trials, expected_formulas

__all__ = ["Trial", "all_trials", "build_systems", "expected_formulas", "log_progress"]
