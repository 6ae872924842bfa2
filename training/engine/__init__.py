"""The training engine: batches, checkpoints, trainer, cost plan, export of the finished model.

One engine for training from scratch, of all weights, or of adapters on any base. It reads no
corpus: a `Task` hands it a recipe, a starting model and the examples of every epoch.
"""

from hullward.training.engine.errors import TrainingError
from hullward.training.engine.export import export_model
from hullward.training.engine.plan import estimate_cost
from hullward.training.engine.recipe import Recipe, Shape
from hullward.training.engine.task import Encoded, Example, Task, encode
from hullward.training.engine.trainer import train

__all__ = [
    "Encoded",
    "Example",
    "Recipe",
    "Shape",
    "Task",
    "TrainingError",
    "encode",
    "estimate_cost",
    "export_model",
    "train",
]
