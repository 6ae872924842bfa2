"""Checkpoints of a training run: complete or absent, and refused where they do not fit the run.

`OUT/step-000400/` holds the model as Hugging Face writes it (safetensors, config, tokenizer, or a
peft adapter), `optimizer.safetensors` and `state.json` with the sha256 of every file. A checkpoint
is written under another name and renamed; all but the last two are then deleted. Nothing is
pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hullward.models.language import quiet_transformers
from hullward.training.engine.errors import TrainingError
from hullward.training.engine.task import Task

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"
KEPT = 2


def latest(out: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = sorted(p for p in out.glob("step-*") if (p / STATE).is_file())
    return found[-1] if found else None


def save(
    out: Path, task: Task, model: Any, tokenizer: Any, optimizer: Any, progress: dict[str, Any]
) -> Path:
    """Write a checkpoint; its folder. Raises TrainingError on a full disk; older ones stay."""
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
            "recipe": task.recipe.model_dump(mode="json"),
            "recipe_sha256": task.recipe.sha256,
            "corpus_sha256": task.corpus_sha256,
            "progress": progress,
            "generators": generators,
            "files": hashes(aside),
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


def resume(last: Path, task: Task, model: Any, optimizer: Any) -> dict[str, Any]:
    """Restore optimizer and random numbers; the progress of the checkpoint.

    Raises TrainingError for a checkpoint of another recipe or corpus.
    """
    import torch
    from safetensors.torch import load_file

    state = json.loads((last / STATE).read_text(encoding="utf-8"))
    if state["recipe_sha256"] != task.recipe.sha256:
        ours = task.recipe.model_dump(mode="json")
        other = sorted(k for k in ours if state["recipe"].get(k) != ours[k])
        raise TrainingError(
            f"{last} is of another recipe (it differs in {', '.join(other) or 'fields unknown'}); "
            "give --out another folder, or the recipe it was made with"
        )
    if state["corpus_sha256"] != task.corpus_sha256:
        raise TrainingError(
            f"{last} was trained on another corpus (sha256 {state['corpus_sha256'][:12]}…, here "
            f"{task.corpus_sha256[:12]}…); give --out another folder, or the corpus it was made "
            "with"
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
    """The optimizer's state by parameter name."""
    plain = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    return {
        f"{name}::{key}": value.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        for key, value in plain.state.get(parameter, {}).items()
    }


def verify(folder: Path) -> None:
    """Raise TrainingError where a file of a checkpoint is not the one that was written."""
    try:
        files = json.loads((folder / STATE).read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError) as error:
        raise TrainingError(
            f"{folder / STATE} cannot be read ({error}); delete {folder}"
        ) from error
    found = hashes(folder)
    for name, expected in files.items():
        if found.get(name) != expected:
            raise TrainingError(
                f"{folder / name} is damaged or missing; delete {folder} and go on from the one "
                "before"
            )


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
