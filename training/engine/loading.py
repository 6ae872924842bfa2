"""Load the model that a run starts from, or the one in a checkpoint: new, a base, or adapters."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError, PreflightError
from hullward.training.engine.checkpoints import verify
from hullward.training.engine.recipe import Lora, Recipe
from hullward.training.engine.task import Task


def load_start(task: Task, last: Path | None) -> tuple[Any, Any]:
    """Model and tokenizer to train: those of a checkpoint, of the base, or new ones.

    Raises PreflightError where they cannot be loaded or do not fit together.
    """
    if last is None and task.recipe.base is None:
        return task.new_model()
    return load_trained(task.recipe, last)


def load_trained(recipe: Recipe, last: Path | None) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint, or of the base; adapters come on their base.

    Raises TrainingError where a checkpoint is damaged, PreflightError where the base cannot be
    loaded.
    """
    if last is not None:
        verify(last)
    if recipe.lora is None:
        return _load(str(last or recipe.base))
    return _load_adapted(str(recipe.base), recipe.lora, last)


def _load(source: str, eight_bit: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer in float32, from a folder or the cache of Hugging Face."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    extra: dict[str, Any] = {"quantization_config": _eight_bit()} if eight_bit else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, **extra
        )
    except Exception as error:  # the libraries raise anything
        first = str(error).strip().splitlines()[:1]
        raise PreflightError(
            f"the base {source} cannot be loaded: {first[0] if first else error!r}"
        ) from error
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        raise PreflightError(
            f"tokenizer and model of {source} do not fit: {len(tokenizer)} tokens, "
            f"{rows} rows; use the tokenizer the model was trained with"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {source} has no end of text (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _load_adapted(base: str, lora: Lora, last: Path | None) -> tuple[Any, Any]:
    """The base with adapters, new ones or those of a checkpoint, and the tokenizer."""
    import peft
    from peft import LoraConfig, PeftModel, get_peft_model

    model, tokenizer = _load(base, eight_bit=lora.base_8bit)
    if lora.base_8bit:
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model)
    if last is not None:
        return PeftModel.from_pretrained(model, last, is_trainable=True), tokenizer
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) if lora.targets else None,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config), tokenizer


def _eight_bit() -> Any:
    """How a base is loaded in eight bits. Raises PreflightError where that cannot run."""
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
