"""Which formulas a chemical system is likely to have, the likeliest first, each with a reason.

Charges, families of intermetallics, counts of stoichiometries among known compounds and, where the
caller has an index of them, known compounds of neighbouring elements. No structures, no energies.
`python -m hullward.training.stoichiometry_counts` counts the stoichiometries.
"""

from hullward.tools.crystal.stoichiometry.counts import count_stoichiometries
from hullward.tools.crystal.stoichiometry.ranking import LikelyFormula, likely_formulas

__all__ = ["LikelyFormula", "count_stoichiometries", "likely_formulas"]
