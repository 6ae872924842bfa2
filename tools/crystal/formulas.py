"""Formulas as amounts of elements."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts


def reduced_amounts(amounts: Mapping[str, int]) -> dict[str, int]:
    """The smallest whole numbers in the same ratio, elements in the same order.

    Not pymatgen's reduced formula, which keeps Li2O2 as it is.
    """
    divisor = math.gcd(*amounts.values())
    return {element: n // divisor for element, n in amounts.items()}


def parse_formula(formula: str) -> dict[str, int]:
    """The reduced amounts of a formula, elements as in the text.

    Raises InputError for text that is no formula of whole numbers.
    """
    amounts = formula_amounts(formula)
    if any(not n.is_integer() for n in amounts.values()):
        raise InputError(f"{formula!r} has amounts that are not whole numbers")
    return reduced_amounts({element: int(n) for element, n in amounts.items()})
