"""Checkpoints of a training run: whole or not there, and refused where they do not fit.

`OUT/step-000400/` holds the model as Hugging Face writes it (safetensors, config, tokenizer, or a
peft adapter), `optimizer.safetensors` and `state.json` with the sha256 of every file. It is written
beside its place and renamed, then older ones go, all but the one before. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError, PreflightError
from hullward.models.language import quiet_transformers
from hullward.training.crystals import Recipe, Shape
from hullward.training.engine.errors import TrainingError

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"
KEPT = 2


def latest(out: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = sorted(p for p in out.glob("step-*") if (p / STATE).is_file())
    return found[-1] if found else None


def start(recipe: Recipe, last: Path | None) -> tuple[Any, Any]:
    """Model and tokenizer to train: those of a checkpoint, of the base, or new ones.

    Raises PreflightError where they cannot be loaded or do not fit together.
    """
    if last is not None:
        _verify(last)
    if recipe.shape is not None:
        if last is not None:
            return _load(str(last))
        return new_model(recipe.shape, recipe.seed)
    assert recipe.base is not None  # the recipe has checked it
    if recipe.lora is None:
        return _load(str(last) if last is not None else recipe.base)
    model, tokenizer = _load(recipe.base, eight_bit=recipe.lora.base_8bit)
    return _adapted(model, recipe, last), tokenizer


def new_model(shape: Shape, seed: int) -> tuple[Any, Any]:
    """A Llama with random weights and embeddings that put like beside like."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hullward.training.crystals import features, nano_tokenizer

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


def save(
    out: Path,
    recipe: Recipe,
    corpus_sha256: str,
    model: Any,
    tokenizer: Any,
    optimizer: Any,
    progress: dict[str, Any],
) -> Path:
    """Write a checkpoint. Raises TrainingError where the disk takes none; older ones stay."""
    import torch
    from safetensors.torch import save_file

    place = out / f"step-{progress['step']:06d}"
    aside = out / f".{place.name}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        with quiet_transformers():
            model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        save_file(_moments(model, optimizer), aside / OPTIMIZER)
        generators = {"cpu": torch.get_rng_state().numpy().tobytes().hex()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
        state = {
            "recipe": recipe.model_dump(mode="json"),
            "recipe_sha256": recipe.sha256,
            "corpus_sha256": corpus_sha256,
            "progress": progress,
            "generators": generators,
            "files": {p.name: _sha256(p) for p in sorted(aside.iterdir())},
        }
        with (aside / STATE).open("w", encoding="utf-8") as file:
            json.dump(state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    except Exception as error:  # OSError, or what a library makes of a full disk
        shutil.rmtree(aside, ignore_errors=True)
        free = shutil.disk_usage(out if out.is_dir() else out.parent).free
        raise TrainingError(
            f"no checkpoint could be written to {place} ({str(error).splitlines()[0]}); "
            f"{free / 1e6:.0f} MB are free there; last good checkpoint: {latest(out) or 'none yet'}"
        ) from error
    for old in sorted(out.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)
    return place


def resume(
    last: Path, recipe: Recipe, corpus_sha256: str, model: Any, optimizer: Any
) -> dict[str, Any]:
    """Put optimiser and random numbers back; the progress of the checkpoint.

    Raises TrainingError for a checkpoint of another recipe or corpus.
    """
    import torch
    from safetensors.torch import load_file

    state = json.loads((last / STATE).read_text(encoding="utf-8"))
    if state["recipe_sha256"] != recipe.sha256:
        ours = recipe.model_dump(mode="json")
        other = sorted(k for k in ours if state["recipe"].get(k) != ours[k])
        raise TrainingError(
            f"{last} is of another recipe (it differs in {', '.join(other) or 'fields unknown'}); "
            "give --out another folder, or the recipe it was made with"
        )
    if state["corpus_sha256"] != corpus_sha256:
        raise TrainingError(
            f"{last} was trained on another corpus (sha256 {state['corpus_sha256'][:12]}…, here "
            f"{corpus_sha256[:12]}…); give --out another folder, or the corpus it was made with"
        )
    stored = load_file(last / OPTIMIZER)
    for name, parameter in model.named_parameters():
        if f"{name}::exp_avg" in stored:
            optimizer.state[parameter] = {
                key: stored[f"{name}::{key}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    generators = {k: bytearray.fromhex(v) for k, v in state["generators"].items()}
    torch.set_rng_state(torch.frombuffer(generators["cpu"], dtype=torch.uint8))
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(generators["cuda"], dtype=torch.uint8))
    return dict(state["progress"])


def _moments(model: Any, optimizer: Any) -> dict[str, Any]:
    """The optimiser's state by parameter name."""
    plain = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    return {
        f"{name}::{key}": value.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        for key, value in plain.state.get(parameter, {}).items()
    }


def _verify(folder: Path) -> None:
    """Every file of a checkpoint is the one that was written."""
    try:
        files = json.loads((folder / STATE).read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError) as error:
        raise TrainingError(
            f"{folder / STATE} cannot be read ({error}); delete {folder}"
        ) from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise TrainingError(
                f"{path} is damaged or missing; delete {folder} and go on from the one before"
            )


def _load(source: str, eight_bit: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer in float32, from a folder or the cache of Hugging Face."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    extra: dict[str, Any] = {}
    if eight_bit:
        from hullward.training.engine.eight_bit import quantisation

        extra["quantization_config"] = quantisation()
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


def _adapted(model: Any, recipe: Recipe, last: Path | None) -> Any:
    """The base with adapters: new ones, or those of a checkpoint."""
    import peft
    from peft import LoraConfig, PeftModel, get_peft_model

    assert recipe.lora is not None
    if recipe.lora.base_8bit:
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model)
    if last is not None:
        return PeftModel.from_pretrained(model, last, is_trainable=True)
    return get_peft_model(
        model,
        LoraConfig(
            r=recipe.lora.r,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            target_modules=list(recipe.lora.targets) if recipe.lora.targets else None,
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
