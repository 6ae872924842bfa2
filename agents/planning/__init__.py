"""What to propose next: outcomes of earlier cycles, and the plan made from them.

`rules` gives every operator its share of the proposals; a chat model (`chat`) may change the shares
within the same limits. Nothing is proposed or stored here.
"""

from hullward.agents.planning.chat import Brief, make_brief, plan_by_chat
from hullward.agents.planning.evidence import Evidence, read_evidence
from hullward.agents.planning.ledger import read_outcomes
from hullward.agents.planning.rules import SHOWN_FORMULAS, make_plan

__all__ = [
    "SHOWN_FORMULAS",
    "Brief",
    "Evidence",
    "make_brief",
    "make_plan",
    "plan_by_chat",
    "read_evidence",
    "read_outcomes",
]
