"""The error that stops a training run."""

from hullward.models.errors import HullwardError


class TrainingError(HullwardError):
    """A run that cannot go on; the message names the cause and the last good checkpoint."""

    exit_code = 3
