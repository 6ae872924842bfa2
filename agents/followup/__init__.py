"""After the verdicts: suspects, novelty, probabilities, second opinions, phonons, DFT results.

Each step reads what is stored and adds records of its own; no verdict changes.
"""

from hullward.agents.followup.after_judging import assess_candidates
from hullward.agents.followup.checks import audit_directory, check_directory, run_phonons
from hullward.agents.followup.dft_results import forget, kept_results, learn
from hullward.agents.followup.second_opinions import close_with_opinions, opinions_of

__all__ = [
    "assess_candidates",
    "audit_directory",
    "check_directory",
    "close_with_opinions",
    "forget",
    "kept_results",
    "learn",
    "opinions_of",
    "run_phonons",
]
