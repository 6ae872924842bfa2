"""What a crystal generator learns from: corpus, examples, recipe, tokenizer.

Crystals that judge generators are kept out by `quarantine`. The training itself is in
`hullward.training.engine`.
"""

from hullward.training.crystals.corpus import CrystalRow, read_corpus
from hullward.training.crystals.examples import Example, example
from hullward.training.crystals.quarantine import in_quarantine, is_quarantined
from hullward.training.crystals.recipe import Recipe, Shape, read_recipe
from hullward.training.crystals.substituted import Exchange
from hullward.training.crystals.tokenizer import features, nano_tokenizer

__all__ = [
    "CrystalRow",
    "Example",
    "Exchange",
    "Recipe",
    "Shape",
    "example",
    "features",
    "in_quarantine",
    "is_quarantined",
    "nano_tokenizer",
    "read_corpus",
    "read_recipe",
]
