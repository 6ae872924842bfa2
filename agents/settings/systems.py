"""Elements and chemical systems as users write them: read, or refused with what may be meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hullward.models.formulas import ELEMENTS, element_hint


def read_system(text: str) -> str:
    """A chemical system such as 'Na-Fe-P-O', each element once, in the order of the user.

    Raises ValueError: what is wrong, and what may have been meant.
    """
    return "-".join(dict.fromkeys(real_elements(_hyphenated(text).split("-"))))


def real_elements(symbols: Iterable[Any]) -> list[str]:
    """The symbols, checked; raises ValueError naming the nearest real element."""
    found = list(symbols)
    for symbol in found:
        if symbol not in ELEMENTS:
            raise ValueError(f"{symbol!r} is not an element{element_hint(str(symbol))}")
    return found


def _hyphenated(system: str) -> str:
    """The system as it is; raises ValueError where other dashes stand for hyphens."""
    plain = re.sub("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]", "-", system)
    if plain != system:
        raise ValueError(f"{system!r} has dashes: write hyphens, {plain}")
    return system
