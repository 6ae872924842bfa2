"""Geometry, symmetry, charges and matching of crystals.

Everything here works on one or two crystals, without energies or campaigns. `charges` balances
charges and recognises peroxides by formula.
`hullward.tools.crystal.text` reads and writes the text forms of language models,
`hullward.tools.crystal.files` reads CIF, tables and other files, `hullward.tools.crystal.identity`
describes a crystal by a few facts.
"""

from hullward.tools.crystal.anonymous_match import (
    LANTHANIDES,
    AnonymousFormula,
    PrototypeLibrary,
    PrototypeMatch,
    anonymous_amounts,
    merge_lanthanides,
)
from hullward.tools.crystal.charges import (
    METALLOIDS,
    States,
    charge_balance,
    charge_balanced_formulas,
    has_bonded_carbon,
    is_alloy,
)
from hullward.tools.crystal.disorder import shared_sites
from hullward.tools.crystal.formulas import parse_formula, reduced_amounts
from hullward.tools.crystal.geometry import compact_cell, nearest_pairs, plane_spacings_a
from hullward.tools.crystal.input_checks import shorten
from hullward.tools.crystal.matching import (
    ComparedCrystal,
    LibraryEntry,
    Match,
    StructureLibrary,
    group_equal,
)
from hullward.tools.crystal.parent_lattice import OrderedLattice, may_share, shared_by
from hullward.tools.crystal.radii import bond_length, bond_scale, is_anion, packing_fraction
from hullward.tools.crystal.symmetry import (
    SymmetrisedCrystal,
    find_symmetry,
    space_group,
    space_group_symbol,
    symmetrised,
)

__all__ = [
    "LANTHANIDES",
    "METALLOIDS",
    "AnonymousFormula",
    "ComparedCrystal",
    "LibraryEntry",
    "Match",
    "OrderedLattice",
    "PrototypeLibrary",
    "PrototypeMatch",
    "States",
    "StructureLibrary",
    "SymmetrisedCrystal",
    "anonymous_amounts",
    "bond_length",
    "bond_scale",
    "charge_balance",
    "charge_balanced_formulas",
    "compact_cell",
    "find_symmetry",
    "group_equal",
    "has_bonded_carbon",
    "is_alloy",
    "is_anion",
    "may_share",
    "merge_lanthanides",
    "nearest_pairs",
    "packing_fraction",
    "parse_formula",
    "plane_spacings_a",
    "reduced_amounts",
    "shared_by",
    "shared_sites",
    "shorten",
    "space_group",
    "space_group_symbol",
    "symmetrised",
]
