"""The training engine: batches, checkpoints, trainer, cost plan, export of the finished model.

One engine for training from scratch, of all weights, or of adapters on any base.
"""

from hullward.training.engine.plan import estimate_cost
from hullward.training.engine.trainer import train

__all__ = ["estimate_cost", "train"]
