"""Run a campaign: the graph, resuming and stopping, the next cycle prepared ahead, screening a file.

It knows the order of things and leaves each step to the packages below.
"""

from hullward.agents.campaign import screen_file
from hullward.agents.campaign.commands import rejudge_directory
from hullward.agents.campaign.opening import kind_of
from hullward.agents.campaign.runner import run

__all__ = ["kind_of", "rejudge_directory", "run", "screen_file"]
