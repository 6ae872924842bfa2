"""Settings: the campaign file, the models it names, and the machine it runs on.

A key of the campaign file is a field of `Campaign`; `Campaign.limits` hands the hard limits to
`hullward.tools.screening`. `machine` is the only module of the project that reads the environment.
"""

from hullward.agents.settings.backends import Backend, CrystalBackend, check_url
from hullward.agents.settings.campaign import (
    Campaign,
    Phonons,
    Screening,
    SecondOpinionSettings,
    Settings,
    StopAfter,
)
from hullward.agents.settings.file import (
    absolute_reference,
    parse_protocol,
    parse_settings,
    read_campaign,
)
from hullward.agents.settings.machine import Machine, read_machine

__all__ = [
    "Backend",
    "Campaign",
    "CrystalBackend",
    "Machine",
    "Phonons",
    "Screening",
    "SecondOpinionSettings",
    "Settings",
    "StopAfter",
    "absolute_reference",
    "check_url",
    "parse_protocol",
    "parse_settings",
    "read_campaign",
    "read_machine",
]
