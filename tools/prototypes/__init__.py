"""New crystals without a model: structure types, substitution, orderings, mutation.

It makes structures only. Which of them to try is decided by `hullward.agents.operators.table`, and
whether they are low in energy by `hullward.tools.relax.stream` and `hullward.tools.hull`.
"""

from hullward.tools.prototypes.encyclopedia import INSTALL, encyclopedia_types, require_encyclopedia
from hullward.tools.prototypes.generated import ABOUT, PREFIX, table, types_for
from hullward.tools.prototypes.library import (
    Decorated,
    Prototype,
    anonymous_formula,
    decorate,
    element_structures,
    prototype_library,
)
from hullward.tools.prototypes.mutation import Constructed, generator, perturb, swap
from hullward.tools.prototypes.orderings import PARENTS, best_orderings
from hullward.tools.prototypes.structure_types import Typed, Types, letters, type_class, typed
from hullward.tools.prototypes.substitution import Substitution

__all__ = [
    "ABOUT",
    "INSTALL",
    "PARENTS",
    "PREFIX",
    "Constructed",
    "Decorated",
    "Prototype",
    "Substitution",
    "Typed",
    "Types",
    "anonymous_formula",
    "best_orderings",
    "decorate",
    "element_structures",
    "encyclopedia_types",
    "generator",
    "letters",
    "perturb",
    "prototype_library",
    "require_encyclopedia",
    "swap",
    "table",
    "type_class",
    "typed",
    "types_for",
]
