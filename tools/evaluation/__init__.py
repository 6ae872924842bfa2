"""How good a crystal generator is: rates, coverage, novelty, adherence to what was asked.

Every rate divides by all attempts. It compares structures and reads what a screening found; it
relaxes nothing itself.
"""

from hullward.tools.evaluation.attempts import Wish, parse_text, read_attempts
from hullward.tools.evaluation.coverage import coverage
from hullward.tools.evaluation.height_adherence import height_adherence
from hullward.tools.evaluation.metrics import Share, closest_a, evaluate
from hullward.tools.evaluation.sampling import read_formulas, sample_crystals

__all__ = [
    "Share",
    "Wish",
    "closest_a",
    "coverage",
    "evaluate",
    "height_adherence",
    "parse_text",
    "read_attempts",
    "read_formulas",
    "sample_crystals",
]
