"""From a proposal to a verdict: hard checks, labels, relaxation, verdicts, suspects, explanations.

Every proposal takes this path, whether an operator made it or a file held it. What follows a
verdict (probabilities, second opinions) is in `hullward.tools.uncertainty`.
"""

from hullward.tools.screening.explain import explain_all
from hullward.tools.screening.phonons import Checked, check_shortlist
from hullward.tools.screening.screen import Screen
from hullward.tools.screening.second_reference import Beside
from hullward.tools.screening.suspects import GOING_ON, RATTLE_A, Relax, doubt_all
from hullward.tools.screening.training_overlap import FORMULAS, IDS, audit, digest, learnt_formulas
from hullward.tools.screening.validate import Facts, Limits, candidate, check
from hullward.tools.screening.verdicts import suspicions

__all__ = [
    "FORMULAS",
    "GOING_ON",
    "IDS",
    "RATTLE_A",
    "Beside",
    "Checked",
    "Facts",
    "Limits",
    "Relax",
    "Screen",
    "audit",
    "candidate",
    "check",
    "check_shortlist",
    "digest",
    "doubt_all",
    "explain_all",
    "learnt_formulas",
    "suspicions",
]
