"""Readers of reference files: computed entries, tables, OPTIMADE, built references.

Each gives a `Reference` and the rule by which it covers a composition. It neither fetches nor
computes energies.
"""

from hullward.tools.reference.sources.base import Sidecar, sidecar_path
from hullward.tools.reference.sources.built import (
    BuiltPhases,
    embedded_stem,
    read_built,
    read_embedded,
    read_manifest,
)
from hullward.tools.reference.sources.coverage import (
    Manifest,
    SystemTried,
    common_states_of,
    enough_tried,
    is_alloy,
    served_class,
    unserved,
    untried,
)
from hullward.tools.reference.sources.entries import EntryPhases, off_scale
from hullward.tools.reference.sources.files import Entries, read_entries, read_file
from hullward.tools.reference.sources.relaxed import Unjudged
from hullward.tools.reference.sources.tables import TablePhases, mp2020_elements

__all__ = [
    "BuiltPhases",
    "Entries",
    "EntryPhases",
    "Manifest",
    "Sidecar",
    "SystemTried",
    "TablePhases",
    "Unjudged",
    "common_states_of",
    "embedded_stem",
    "enough_tried",
    "is_alloy",
    "mp2020_elements",
    "off_scale",
    "read_built",
    "read_embedded",
    "read_entries",
    "read_file",
    "read_manifest",
    "served_class",
    "sidecar_path",
    "unserved",
    "untried",
]
