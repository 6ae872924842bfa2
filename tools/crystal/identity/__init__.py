"""What stays of a crystal when its structure is left out, to recognise it again.

The Wyckoff positions of each element, and a hash of the powder pattern of each pair of elements.
Which crystals count as one structure is decided by `hullward.tools.reference.known`.
"""

from hullward.tools.crystal.identity.powder_pattern import PowderPattern, packed, unpacked
from hullward.tools.crystal.identity.protostructure import Protostructure, find_protostructure

__all__ = ["PowderPattern", "Protostructure", "find_protostructure", "packed", "unpacked"]
