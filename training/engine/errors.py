"""What can stop a training run."""

from hullward.models.errors import HullwardError


class TrainingError(HullwardError):
    """A run that cannot go on: what happened, and which checkpoint is good."""

    exit_code = 3
