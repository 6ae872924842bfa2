"""Known phases: embedded, built by our recipe, from files, from the Materials Project.

`load_reference` turns a name into a `Reference` of `hullward.tools.hull`, and `load_known_index`
reads which structures and compounds are known. Readers of formats are in `sources`, the Materials
Project's client in `materials_project`, the recipe that builds a reference with CHGNet in `recipe`,
and the index of known structures in `known`. No candidate is judged here.
"""

from hullward.tools.reference.catalogue import available, show
from hullward.tools.reference.energy_check import (
    NOTABLE_OFFSET_EV_PER_ATOM,
    check_canaries,
    element_offsets,
    offset_note,
    require_known_energies,
)
from hullward.tools.reference.heights import judge_entries, parse_open
from hullward.tools.reference.known import IndexedPhase, KnownIndex, load_known_index
from hullward.tools.reference.names import (
    built_folder,
    import_file,
    load_reference,
    read_embedded_once,
)
from hullward.tools.reference.sources import unbuilt_subsystems
from hullward.tools.reference.structure_words import element_structures

__all__ = [
    "NOTABLE_OFFSET_EV_PER_ATOM",
    "IndexedPhase",
    "KnownIndex",
    "available",
    "built_folder",
    "check_canaries",
    "element_offsets",
    "element_structures",
    "import_file",
    "judge_entries",
    "load_known_index",
    "load_reference",
    "offset_note",
    "parse_open",
    "read_embedded_once",
    "require_known_energies",
    "show",
    "unbuilt_subsystems",
]
