"""New crystals without a model: structure types, substitution, orderings, mutation.

It only makes structures. `hullward.agents.operators` decides which of them to try;
`hullward.tools.relax` and `hullward.tools.hull` find out whether they are low in energy.
"""

from hullward.tools.prototypes.aflow import AflowType, aflow_types
from hullward.tools.prototypes.encyclopedia import (
    INSTALL_ENCYCLOPEDIA,
    encyclopedia_types,
    require_encyclopedia,
)
from hullward.tools.prototypes.library import (
    Decorated,
    Prototype,
    anonymous_formula,
    decorate,
    element_structures,
    prototype_library,
)
from hullward.tools.prototypes.mutation import Constructed, perturb, seeded_rng, swap
from hullward.tools.prototypes.nano_types import (
    METADATA_KEY,
    NANO_PREFIX,
    nano_table,
    nano_types_for,
)
from hullward.tools.prototypes.orderings import PARENTS, best_orderings
from hullward.tools.prototypes.structure_types import (
    TypedCrystal,
    TypeLibrary,
    anonymous_letters,
    type_class,
    typed_crystal,
)
from hullward.tools.prototypes.substitution import Substitution
from hullward.tools.prototypes.textbook import (
    TextbookPhase,
    textbook_phases,
    textbook_phases_of,
)

__all__ = [
    "INSTALL_ENCYCLOPEDIA",
    "METADATA_KEY",
    "NANO_PREFIX",
    "PARENTS",
    "AflowType",
    "Constructed",
    "Decorated",
    "Prototype",
    "Substitution",
    "TextbookPhase",
    "TypeLibrary",
    "TypedCrystal",
    "aflow_types",
    "anonymous_formula",
    "anonymous_letters",
    "best_orderings",
    "decorate",
    "element_structures",
    "encyclopedia_types",
    "nano_table",
    "nano_types_for",
    "perturb",
    "prototype_library",
    "require_encyclopedia",
    "seeded_rng",
    "swap",
    "textbook_phases",
    "textbook_phases_of",
    "type_class",
    "typed_crystal",
]
