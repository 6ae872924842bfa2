"""Further computations on what a campaign lists first: symmetrised cells, vibrations.

They come after the verdicts, each once for a relaxed cell, and no verdict changes. The stages that
lead to the verdicts are in `hullward.tools.screening`.
Public: `symmetrise_candidates`, `check_shortlist` with its `CheckedCell`.
"""

from hullward.tools.screening.shortlist.phonons import CheckedCell, check_shortlist
from hullward.tools.screening.shortlist.symmetrise import (
    MOST_EV_PER_ATOM,
    TOLERANCES_A,
    symmetrise_candidates,
)

__all__ = [
    "MOST_EV_PER_ATOM",
    "TOLERANCES_A",
    "CheckedCell",
    "check_shortlist",
    "symmetrise_candidates",
]
