"""From a training checkpoint to a folder that transformers, vLLM and our own backend load as it is.

    python -m hullward.training.engine.export RUN OUT --corpus FOLDER [--dtype bfloat16]

RUN is the `--out` of a training run; its newest checkpoint is taken. Adapters are merged into their
base. `learnt_ids.npy` and `learnt_formulas.npy` say what the model has seen without saying it: the
first 8 bytes of the sha256 of every material id and flat formula of training and validation, in
order (`hullward.tools.screening.training_overlap` asks them). Optimiser state stays behind; no code of ours is needed
to load the rest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hullward.models.errors import HullwardError, InputError
from hullward.models.language import quiet_transformers
from hullward.tools.screening import FORMULAS, IDS, digest
from hullward.training.crystals import CrystalRow, Recipe, read_corpus
from hullward.training.engine import checkpoints


def export_model(run: Path, out: Path, rows: Sequence[CrystalRow], dtype: str = "bfloat16") -> Path:
    """Write OUT, whole or not at all; the checkpoint it came from.

    Raises InputError where the run has no checkpoint, TrainingError where it is damaged.
    """
    import torch

    last = checkpoints.latest(run)
    if last is None:
        raise InputError(f"no checkpoint in {run}; train one: hullward.training.crystal_train")
    state = json.loads((last / checkpoints.STATE).read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(state["recipe"])
    model, tokenizer = checkpoints.start(recipe, last)
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
    np.save(aside / IDS, _digests(row.material_id for row in rows))
    np.save(aside / FORMULAS, _digests(row.formula for row in rows))
    about = {
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "corpus_sha256": state["corpus_sha256"],
        "progress": state["progress"],
        "files": {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(aside.iterdir())
        },
    }
    (aside / "training.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if (out / "README.md").is_file():  # the model card is written by hand
        shutil.copy(out / "README.md", aside / "README.md")
    for path in aside.iterdir():
        path.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(aside, out)
    return last


def _digests(words: Iterable[str]) -> np.ndarray:
    return np.array(sorted({digest(word) for word in words}), dtype=np.uint64)


def main(arguments: list[str] | None = None) -> int:
    """Export from the command line; the exit code."""
    parser = argparse.ArgumentParser(description="a trained crystal generator, ready to serve")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    given = parser.parse_args(arguments)
    try:
        rows = [*read_corpus(given.corpus, "train"), *read_corpus(given.corpus, "validation")]
        last = export_model(given.run, given.out, rows, given.dtype)
    except HullwardError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{last} -> {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
