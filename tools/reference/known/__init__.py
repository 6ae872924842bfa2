"""The index of known structures and formulas: facts and hashes, no structures.

`load_known_index` reads the index that ships, which tells whether a structure or a compound is
known. `python -m hullward.tools.reference.known` makes it from tables. It knows no energies, and
whether a candidate counts as new is decided by `hullward.tools.screening`.
"""

from hullward.tools.reference.known.index import IndexedPhase, KnownIndex, load_known_index

__all__ = ["IndexedPhase", "KnownIndex", "load_known_index"]
