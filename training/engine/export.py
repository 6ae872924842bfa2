"""Export the newest checkpoint of a run as a folder that transformers and vLLM load directly.

Adapters are merged into their base. Optimizer state is left out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hullward.models.errors import InputError
from hullward.models.language import quiet_transformers
from hullward.training.engine import checkpoints
from hullward.training.engine.loading import load_trained
from hullward.training.engine.recipe import Recipe


def export_model(
    run: Path, out: Path, kind: type[Recipe], arrays: Mapping[str, np.ndarray], dtype: str
) -> Path:
    """Write `out`, complete or not at all; the checkpoint it came from.

    kind: the recipe's class.  arrays: what is stored beside the weights, by file name.
    Raises InputError where the run has no checkpoint, TrainingError where it is damaged.
    """
    import torch

    last = checkpoints.latest(run)
    if last is None:
        raise InputError(f"no checkpoint in {run}; name the --out of a training run")
    state = json.loads((last / checkpoints.STATE).read_text(encoding="utf-8"))
    recipe = kind.model_validate(state["recipe"])
    model, tokenizer = load_trained(recipe, last)
    if recipe.lora is not None:
        model = model.merge_and_unload()
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    model.config.use_cache = True
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet_transformers():
        model.to(getattr(torch, dtype)).save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    for name, array in arrays.items():
        np.save(aside / name, array)
    about = {
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "corpus_sha256": state["corpus_sha256"],
        "progress": state["progress"],
        "files": checkpoints.hashes(aside),
    }
    (aside / "training.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if (out / "README.md").is_file():  # the model card is written by hand
        shutil.copy(out / "README.md", aside / "README.md")
    for path in aside.iterdir():
        path.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(aside, out)
    return last
