"""How good a crystal generator is: rates, coverage, novelty, adherence to wishes.

Every rate divides by all attempts. The package compares structures and reads screenings; it relaxes
nothing itself.
"""

from hullward.tools.evaluation.attempts import Attempt, parse_text, read_attempts
from hullward.tools.evaluation.coverage import measure_coverage
from hullward.tools.evaluation.metrics import Rate, adherence_to_height, closest_a, evaluate
from hullward.tools.evaluation.sampling import read_formulas, sample_crystals

__all__ = [
    "Attempt",
    "Rate",
    "adherence_to_height",
    "closest_a",
    "evaluate",
    "measure_coverage",
    "parse_text",
    "read_attempts",
    "read_formulas",
    "sample_crystals",
]
