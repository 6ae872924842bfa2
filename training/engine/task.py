"""What the engine needs from a corpus: a recipe, a starting model, and the examples of an epoch.

The engine reads no corpus. `hullward.training.crystals` provides a `Task` for crystals; another
corpus plugs in by providing one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hullward.training.engine.recipe import Recipe


@dataclass(frozen=True)
class Example:
    """A prompt, the answer, and whether the prompt's tokens are learnt too."""

    prompt: str
    answer: str
    learn_prompt: bool = False


@dataclass(frozen=True)
class Encoded:
    """One example in tokens; the first `n_prompt` are given, not learnt."""

    ids: tuple[int, ...]
    n_prompt: int


class Examples(Protocol):
    """A corpus in the tokens of one model."""

    def of_epoch(self, epoch: int) -> Sequence[Encoded]:
        """The examples of an epoch: the same ones whenever the same epoch is asked for."""

    def for_validation(self) -> Sequence[Encoded]:
        """Examples that are never learnt and never change; may be empty."""


class Task(Protocol):
    """What a run trains, and on what."""

    @property
    def recipe(self) -> Recipe:
        """How the run is done."""

    @property
    def corpus_sha256(self) -> str:
        """The hash of the corpus; a checkpoint goes on with the same one only."""

    def new_model(self) -> tuple[Any, Any]:
        """Model and tokenizer with random weights, for a recipe that names a shape."""

    def examples(self, tokenizer: Any, log: Callable[[str], None]) -> Examples:
        """The corpus in tokens; logs what the tokenizer cannot express."""


def encode(example: Example, tokenizer: Any) -> Encoded:
    """Prompt, answer and end in tokens; with a start token where the tokenizer sets one.

    Raises ValueError for an answer that the tokenizer has no tokens for.
    """
    prompt = tokenizer.encode(example.prompt, add_special_tokens=True)
    while prompt and prompt[-1] == tokenizer.eos_token_id:
        prompt.pop()  # some tokenizers close what they encode
    answer = tokenizer.encode(example.answer, add_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in answer:
        raise ValueError(f"the tokenizer has no token for part of {example.answer[:80]!r}")
    ids = (*prompt, *answer, tokenizer.eos_token_id)
    return Encoded(ids, 0 if example.learn_prompt else len(prompt))
