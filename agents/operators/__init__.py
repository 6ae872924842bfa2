"""Operators: the ways to make proposals, in one table, with their builders.

An operator turns a share of the plan into questions for a language model or into crystals. How
much each may propose is decided in `hullward.agents.planning`.
"""

from hullward.agents.operators.table import propose

__all__ = ["propose"]
