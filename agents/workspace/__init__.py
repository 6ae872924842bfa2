"""One open campaign directory: its settings, store, screening, language models and budget.

`open_workspace` opens it for writing. It decides nothing about what to propose.
"""

from hullward.agents.workspace.provenance import versions
from hullward.agents.workspace.references import (
    basis_fields,
    check_elements,
    fetch_for_start,
    mp_access,
    open_reference,
    refuse_the_same_twice,
    second_basis,
)
from hullward.agents.workspace.setup import make_screen, stored_settings
from hullward.agents.workspace.workspace import Workspace, read_seeds

__all__ = [
    "Workspace",
    "basis_fields",
    "check_elements",
    "fetch_for_start",
    "make_screen",
    "mp_access",
    "open_reference",
    "read_seeds",
    "refuse_the_same_twice",
    "second_basis",
    "stored_settings",
    "versions",
]
