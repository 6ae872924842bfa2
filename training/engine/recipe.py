"""A recipe: everything that decides what a training run makes, apart from the corpus.

Recipes are YAML files. Two with the same hash, on the same corpus, make the same model. A task adds
fields of its own in a subclass (`hullward.training.crystals.recipe`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hullward.models.validated import validated
from hullward.models.yaml_file import read_yaml


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shape(_Frozen):
    """The size of a Llama that is trained from scratch."""

    width: int = 192
    layers: int = 6
    heads: int = 6
    hidden: int = 512  # of the feed-forward blocks
    embedding_scale: float = 0.08
    context: int = 512  # tokens


class Lora(_Frozen):
    """Low-rank adapters (doi:10.48550/arXiv.2106.09685)."""

    r: int = Field(default=8, ge=1)
    alpha: int = 32
    dropout: float = Field(default=0.05, ge=0, lt=1)
    targets: tuple[str, ...] | None = None  # None: peft's default for the architecture
    base_8bit: bool = False  # needs the package bitsandbytes and a GPU


class Recipe(_Frozen):
    """Starting model, method, batches and optimizer.

    Either `base`, a folder or a Hugging Face id, or `shape`, a new model.
    """

    name: str
    base: str | None = None
    shape: Shape | None = None
    lora: Lora | None = None  # None: all weights are trained
    epochs: int = Field(default=10, ge=1)
    max_tokens: int = Field(default=512, ge=16)  # of an example; longer ones are left out
    batch_tokens: int = Field(default=1536, ge=16)  # of one forward pass, padding included
    accumulate: int = Field(default=1, ge=1)  # forward passes a step
    batching: Literal["bucket", "pack"] = "bucket"
    attention: Literal["sdpa", "eager"] = "sdpa"  # eager is faster for short rows on a CPU
    learning_rate: float = Field(default=1e-4, gt=0)
    final_learning_rate: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if (self.base is None) == (self.shape is None):
            raise ValueError("name either base (a model to start from) or shape (a new model)")
        if self.lora is not None and self.base is None:
            raise ValueError("lora needs a base: adapters on random weights learn nothing")
        if self.shape is not None and self.shape.context < self.max_tokens:
            raise ValueError(
                f"max_tokens {self.max_tokens} exceed the context of {self.shape.context}"
            )
        return self

    @property
    def sha256(self) -> str:
        """The hash of every field that is not a default, however the file was written."""
        chosen = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The recipe in a YAML file.

        Raises InputError for a field that is missing, unknown or out of range.
        """
        file = read_yaml(path, "recipe")
        return validated(cls, file.data, f"recipe {path}", file.line)
