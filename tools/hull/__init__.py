"""Convex hulls of known phases, closed or open to some elements, and the type `Reference`.

Pure thermodynamics: energies in, signed heights and decompositions out. It reads no files and
knows no campaign. Phases come from `hullward.tools.reference`.
"""

from hullward.tools.hull.convex_hull import Hull, HullDistance, Phase
from hullward.tools.hull.grand_potential import OpenHull
from hullward.tools.hull.mp2020 import correction_ev_per_atom
from hullward.tools.hull.reference import (
    MP2020,
    Coverage,
    Reference,
    check_compatible,
    check_scheme,
    height_over,
    low_structures,
    split_chemsys,
)

__all__ = [
    "MP2020",
    "Coverage",
    "Hull",
    "HullDistance",
    "OpenHull",
    "Phase",
    "Reference",
    "check_compatible",
    "check_scheme",
    "correction_ev_per_atom",
    "height_over",
    "low_structures",
    "split_chemsys",
]
