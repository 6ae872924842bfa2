"""The training task of a crystal generator: recipe, new model, and the examples of every epoch.

This is what `hullward.training.engine` trains on. Examples are drawn from (seed, epoch, row) alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullward.training.crystals.corpus import CrystalRow, corpus_sha256, read_corpus
from hullward.training.crystals.examples import example
from hullward.training.crystals.recipe import CrystalRecipe
from hullward.training.crystals.substituted import Exchange
from hullward.training.crystals.tokenizer import features, nano_tokenizer
from hullward.training.engine import Encoded, Shape, encode


@dataclass(frozen=True)
class CrystalTask:
    """Crystals to learn from, and a recipe."""

    recipe: CrystalRecipe
    rows: Sequence[CrystalRow]
    validation: Sequence[CrystalRow]
    corpus_sha256: str

    def new_model(self) -> tuple[Any, Any]:
        """Model and tokenizer with random weights."""
        assert self.recipe.shape is not None  # the engine has checked it
        return new_model(self.recipe.shape, self.recipe.seed)

    def examples(self, tokenizer: Any, log: Callable[[str], None]) -> CrystalExamples:
        """The crystals in tokens; logs how many have texts without tokens."""
        return CrystalExamples(self, tokenizer, log)


def read_task(recipe: CrystalRecipe, corpus: Path) -> CrystalTask:
    """The task of a recipe on a corpus folder. Raises InputError where the corpus is damaged."""
    return CrystalTask(
        recipe=recipe,
        rows=read_corpus(corpus, "train"),
        validation=read_corpus(corpus, "validation"),
        corpus_sha256=corpus_sha256(corpus),
    )


class CrystalExamples:
    """The examples of a task in the tokens of one model."""

    def __init__(self, task: CrystalTask, tokenizer: Any, log: Callable[[str], None]) -> None:
        self._rows = _readable(task.rows, tokenizer, log)
        self._validation = _readable(task.validation, tokenizer, log)
        self._mixture, self._seed = task.recipe.asked(), task.recipe.seed
        self._tokenizer = tokenizer
        self._exchange = Exchange(self._rows) if self._mixture.substituted else None

    def of_epoch(self, epoch: int) -> list[Encoded]:
        """The examples of an epoch; where the mixture wants it, some with exchanged elements."""
        return [self._shown(row, epoch, i) for i, row in enumerate(self._rows)]

    def for_validation(self) -> list[Encoded]:
        """Examples of the crystals kept for validation, with their own elements."""
        return [self._encoded(row, -1, i) for i, row in enumerate(self._validation)]

    def _shown(self, row: CrystalRow, epoch: int, i: int) -> Encoded:
        if self._exchange is not None:
            rng = random.Random(f"{self._seed}:{epoch}:{i}:exchange")
            if rng.random() < self._mixture.substituted:
                exchanged = self._exchange.like(row, rng)
                try:
                    return self._encoded(exchanged, epoch, i)
                except ValueError:
                    if exchanged is row:
                        raise
                    # the exchange made a length that has no token
        return self._encoded(row, epoch, i)

    def _encoded(self, row: CrystalRow, epoch: int, i: int) -> Encoded:
        return encode(example(row, self._mixture, self._seed, epoch, i), self._tokenizer)


def _readable(
    rows: Sequence[CrystalRow], tokenizer: Any, log: Callable[[str], None]
) -> list[CrystalRow]:
    """Rows whose texts the tokenizer has tokens for; logs the number of the others."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return list(rows)
    kept = [
        row
        for row in rows
        if unknown not in tokenizer.encode(row.unit_text, add_special_tokens=False)
        and unknown not in tokenizer.encode(row.cell_text, add_special_tokens=False)
    ]
    if len(kept) < len(rows):
        log(f"{len(rows) - len(kept)} of {len(rows)} crystals have numbers without a token")
    return kept


def new_model(shape: Shape, seed: int) -> tuple[Any, Any]:
    """A Llama with random weights whose embeddings are alike for similar tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = nano_tokenizer()
    torch.manual_seed(seed)
    build: Any = LlamaForCausalLM
    model = build(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    rows = torch.tensor(features(shape.width, seed) * shape.embedding_scale, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(rows)
    return model, tokenizer
