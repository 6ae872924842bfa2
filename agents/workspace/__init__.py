"""One open campaign directory: its settings, store, screening, language models and budget.

`open_workspace` opens it for writing. It decides nothing about what to propose.
"""

from hullward.agents.workspace.dry_run import Preview, preview
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
    loading_words,
    make_screen,
    open_workspace,
    record_basis,
    stored_settings,
)
from hullward.agents.workspace.workspace import Workspace, read_seeds

__all__ = [
    "Preview",
    "Publisher",
    "Workspace",
    "basis_fields",
    "check_elements",
    "check_potentials",
    "fetch_for_start",
    "kind_of",
    "loading_words",
    "make_screen",
    "mp_access",
    "open_reference",
    "open_workspace",
    "preview",
    "read_seeds",
    "record_basis",
    "stored_settings",
    "versions",
]
