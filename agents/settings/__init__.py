"""Settings: the campaign file, the models it names, and the machine it runs on.

A key of the campaign file is a field of `Campaign`; `Campaign.limits` hands the hard limits to
`hullward.tools.screening`. `machine` is the only module of the project that reads the environment.
"""

from hullward.agents.settings.backends import Backend, CrystalBackend, check_url
from hullward.agents.settings.campaign import (
    BY_PARENT,
    Budget,
    Campaign,
    Phonons,
    Screening,
    SecondOpinionSettings,
    Settings,
    StopAfter,
)
from hullward.agents.settings.file import (
    absolute_reference,
    campaign_of,
    find_campaign,
    parse_protocol,
    parse_settings,
    read_campaign,
)
from hullward.agents.settings.machine import Machine, read_machine
from hullward.agents.settings.template import campaign_template

__all__ = [
    "BY_PARENT",
    "Backend",
    "Budget",
    "Campaign",
    "CrystalBackend",
    "Machine",
    "Phonons",
    "Screening",
    "SecondOpinionSettings",
    "Settings",
    "StopAfter",
    "absolute_reference",
    "campaign_of",
    "campaign_template",
    "check_url",
    "find_campaign",
    "parse_protocol",
    "parse_settings",
    "read_campaign",
    "read_machine",
]
