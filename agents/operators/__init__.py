"""Operators: the ways to make proposals, in one table, with their builders.

An operator turns its share of a plan into crystals, or into questions for a language model. The
plan, made in `hullward.agents.planning`, sets how much each operator proposes. A new operator is a
row of `table`, a name in `OperatorName` (`settings/campaign.py`) and, where no model writes the
crystals, a function of `hullward.tools.prototypes`.
"""

from hullward.agents.operators.table import propose

__all__ = ["propose"]
