"""From a proposal to a verdict: hard checks, labels, relaxation, verdicts, suspects, explanations.

Every proposal takes this path, whether an operator made it or a file held it. What follows a
verdict (probabilities, second opinions) is in `hullward.tools.uncertainty`.
"""

from hullward.tools.screening.explain import explain_all
from hullward.tools.screening.phonons import CheckedCell, check_shortlist
from hullward.tools.screening.screen import Screen
from hullward.tools.screening.second_reference import SecondReferenceJudge
from hullward.tools.screening.suspects import GOING_ON, RATTLE_A, Relax, store_suspects
from hullward.tools.screening.training_overlap import FORMULAS, IDS, audit, digest, learnt_formulas
from hullward.tools.screening.validate import Facts, Limits, candidate, check_crystal
from hullward.tools.screening.verdicts import suspicions

__all__ = [
    "FORMULAS",
    "GOING_ON",
    "IDS",
    "RATTLE_A",
    "CheckedCell",
    "Facts",
    "Limits",
    "Relax",
    "Screen",
    "SecondReferenceJudge",
    "audit",
    "candidate",
    "check_crystal",
    "check_shortlist",
    "digest",
    "explain_all",
    "learnt_formulas",
    "store_suspects",
    "suspicions",
]
