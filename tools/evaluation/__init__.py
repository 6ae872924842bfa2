"""How good a crystal generator is: rates, coverage, novelty, adherence to what was asked.

Every rate divides by all attempts. It compares structures and reads what a screening found; it
relaxes nothing itself.
"""

from hullward.tools.evaluation.attempts import Attempt, parse_text, read_attempts
from hullward.tools.evaluation.coverage import measure_coverage
from hullward.tools.evaluation.height_adherence import adherence_to_height
from hullward.tools.evaluation.metrics import Rate, closest_a, evaluate
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
