"""Run a campaign: graph, resuming and stopping, preparing the next cycle, screening a file.

It knows the order of things and leaves each step to the packages below.
"""

from hullward.agents.campaign import screen_file
from hullward.agents.campaign.commands import rejudge_directory
from hullward.agents.campaign.dry_run import Preview, preview
from hullward.agents.campaign.runner import run

__all__ = ["Preview", "preview", "rejudge_directory", "run", "screen_file"]
