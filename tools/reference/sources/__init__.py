"""Readers of references: computed entries, tables, OPTIMADE, built references.

Each reader has the phases of its format and the rule by which they cover a composition. Nothing is
fetched or computed here.
"""

from hullward.tools.reference.sources.base import Sidecar, read_records, sidecar_path
from hullward.tools.reference.sources.built import (
    BuiltPhases,
    embedded_stem,
    read_built,
    read_embedded,
    read_manifest,
    unbuilt_subsystems,
)
from hullward.tools.reference.sources.columns import column_names, read_columns
from hullward.tools.reference.sources.coverage import (
    Manifest,
    SystemTried,
    common_states_of,
    enough_tried,
    served_class,
    unserved_systems,
    untried_subsystems,
)
from hullward.tools.reference.sources.energies import mp2020_elements
from hullward.tools.reference.sources.entries import EntryPhases, why_not_mp2020
from hullward.tools.reference.sources.files import Entries, read_entries, read_file
from hullward.tools.reference.sources.relaxed import EntryWithoutEnergy
from hullward.tools.reference.sources.rows import read_rows
from hullward.tools.reference.sources.tables import TablePhases

__all__ = [
    "BuiltPhases",
    "Entries",
    "EntryPhases",
    "EntryWithoutEnergy",
    "Manifest",
    "Sidecar",
    "SystemTried",
    "TablePhases",
    "column_names",
    "common_states_of",
    "embedded_stem",
    "enough_tried",
    "mp2020_elements",
    "read_built",
    "read_columns",
    "read_embedded",
    "read_entries",
    "read_file",
    "read_manifest",
    "read_records",
    "read_rows",
    "served_class",
    "sidecar_path",
    "unbuilt_subsystems",
    "unserved_systems",
    "untried_subsystems",
    "why_not_mp2020",
]
