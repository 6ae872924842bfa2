"""The recipe of a crystal generator: how it is trained, and what is asked of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from hullward.training.crystals.examples import Mixture
from hullward.training.engine import Recipe


class CrystalRecipe(Recipe):
    """A recipe with the mixture of prompts that a crystal generator learns to answer."""

    mixture: dict[str, Any] = Field(default_factory=dict)  # fields of examples.Mixture

    @model_validator(mode="after")
    def _mixture_is_one(self) -> CrystalRecipe:
        try:
            Mixture(**self.mixture)
        except TypeError as error:
            raise ValueError(f"mixture: {error}") from error
        return self

    def asked(self) -> Mixture:
        """What is asked of the model."""
        return Mixture(**self.mixture)
