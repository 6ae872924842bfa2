"""References from the Materials Project: fetched once through mp-api, checked, stored by version.

The only code that contacts the Materials Project. A fetch needs the user's key; reading a stored
reference needs no network. `stored.THERMO_TYPE` names the thermo type; `read_fetched` and
`read_stable` state its energy scheme: change them together.
"""

from hullward.tools.reference.materials_project.fetch import (
    fetch_stable,
    fetch_systems,
    whole_systems,
)
from hullward.tools.reference.materials_project.session import Access
from hullward.tools.reference.materials_project.stored import (
    NOT_FETCHED,
    STABLE,
    FetchedPhases,
    best_version,
    fetched_last,
    holds,
    read_fetched,
    read_stable,
    versions,
)

__all__ = [
    "NOT_FETCHED",
    "STABLE",
    "Access",
    "FetchedPhases",
    "best_version",
    "fetch_stable",
    "fetch_systems",
    "fetched_last",
    "holds",
    "read_fetched",
    "read_stable",
    "versions",
    "whole_systems",
]
