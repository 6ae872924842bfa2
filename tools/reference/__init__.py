"""Known phases: embedded, built by our recipe, from files, from the Materials Project.

`load_reference` turns a name into a `Reference` of `hullward.tools.hull`. Readers of formats are in
`sources`, the Materials Project's client in `materials_project`, and the recipe that builds a
reference with CHGNet in `recipe`. No candidate is judged here.
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
from hullward.tools.reference.names import (
    built_folder,
    import_file,
    load_reference,
    read_embedded_once,
)

__all__ = [
    "NOTABLE_OFFSET_EV_PER_ATOM",
    "available",
    "built_folder",
    "check_canaries",
    "element_offsets",
    "import_file",
    "judge_entries",
    "load_reference",
    "offset_note",
    "parse_open",
    "read_embedded_once",
    "require_known_energies",
    "show",
]
