"""A base in eight bits, where bitsandbytes and a GPU are there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from hullward.models.errors import PreflightError


def quantisation() -> Any:
    """How a base is loaded in eight bits. Raises PreflightError where it cannot run."""
    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise PreflightError(
            "lora.base_8bit needs the package bitsandbytes: pip install bitsandbytes, or set it "
            "to false in the recipe"
        )
    if not torch.cuda.is_available():
        raise PreflightError("lora.base_8bit needs a GPU; set it to false in the recipe")
    build: Any = BitsAndBytesConfig
    return build(load_in_8bit=True)
