"""Where known phases come from: embedded, built by our recipe, files, the Materials Project.

`load_reference` turns a name into a `Reference` of `hullward.tools.hull`. Readers of formats are in
`sources`, the Materials Project's client in `materials_project`, the recipe that builds a
reference with CHGNet in `recipe`. No candidate is judged here.
"""

from hullward.tools.reference.catalogue import available, show
from hullward.tools.reference.energy_check import (
    OFFSET_WORTH_SAYING_EV_PER_ATOM,
    element_offsets,
    offset_note,
    read_canaries,
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
    "OFFSET_WORTH_SAYING_EV_PER_ATOM",
    "available",
    "built_folder",
    "element_offsets",
    "import_file",
    "judge_entries",
    "load_reference",
    "offset_note",
    "parse_open",
    "read_canaries",
    "read_embedded_once",
    "require_known_energies",
    "show",
]
