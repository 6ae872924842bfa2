"""Training of crystal generators: corpus, examples, recipe, tokenizer, and the engine's task.

Crystals that judge generators are kept out by `quarantine`. The training loop itself is in
`hullward.training.engine`.
"""

from hullward.training.crystals.corpus import CrystalRow, build_corpus, read_corpus
from hullward.training.crystals.examples import example
from hullward.training.crystals.quarantine import in_quarantine, is_quarantined
from hullward.training.crystals.recipe import CrystalRecipe
from hullward.training.crystals.substituted import Exchange
from hullward.training.crystals.task import CrystalTask, read_task
from hullward.training.crystals.tokenizer import nano_tokenizer

__all__ = [
    "CrystalRecipe",
    "CrystalRow",
    "CrystalTask",
    "Exchange",
    "build_corpus",
    "example",
    "in_quarantine",
    "is_quarantined",
    "nano_tokenizer",
    "read_corpus",
    "read_task",
]
