"""One open campaign directory: its settings, store, screening, language models and budget.

`open_workspace` opens it for writing. It decides nothing about what to propose.
"""

from hullward.agents.workspace.provenance import versions
from hullward.agents.workspace.publishing import Publisher
from hullward.agents.workspace.references import (
    basis_fields,
    check_elements,
    fetch_for_start,
    mp_access,
    open_reference,
)
from hullward.agents.workspace.setup import (
    check_potentials,
    kind_of,
    known_index,
    loading_words,
    make_screen,
    open_workspace,
    record_basis,
    stored_settings,
)
from hullward.agents.workspace.workspace import Workspace, read_seeds, reasons_of_formulas

__all__ = [
    "Publisher",
    "Workspace",
    "basis_fields",
    "check_elements",
    "check_potentials",
    "fetch_for_start",
    "kind_of",
    "known_index",
    "loading_words",
    "make_screen",
    "mp_access",
    "open_reference",
    "open_workspace",
    "read_seeds",
    "reasons_of_formulas",
    "record_basis",
    "stored_settings",
    "versions",
]
