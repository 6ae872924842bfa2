"""Open a Hugging Face checkpoint from a local folder, or refuse one that does not fit together.

Weights come from safetensors only. Nothing is downloaded, nothing is unpickled, and no code
beside the weights is ever run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullward.models.errors import PreflightError
from hullward.models.language.answer_text import parse_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model ready to run, with the facts that decoding needs."""

    model: Any  # transformers.PreTrainedModel in eval mode
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    name: str  # folder and hash of its files
    context: int  # tokens, prompt and completion together
    vocabulary: int  # number of tokens that the tokenizer knows
    ends: frozenset[int]  # tokens that end a text; may be empty


def open_checkpoint(folder: Path, *, device: str = "cpu", dtype: str | None = None) -> Checkpoint:
    """Load a model and its tokenizer.

    dtype: 'float32', 'bfloat16' or 'float16'; None takes float32 on a CPU and the checkpoint's
    own elsewhere.  Raises PreflightError for a folder that is no checkpoint, a damaged or missing
    shard, weights of another architecture, or a tokenizer that does not fit the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _files(folder)  # raises for a missing one
    wanted = dtype or ("float32" if device == "cpu" else "auto")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library may raise anything
        raise PreflightError(f"the tokenizer in {folder} cannot be read: {_line(error)}") from error
    try:
        with quiet_transformers():
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=getattr(torch, wanted, wanted),
                output_loading_info=True,
            )
    except Exception as error:
        raise PreflightError(
            f"the weights in {folder} cannot be loaded: {_line(error)}; copy the checkpoint again"
        ) from error
    absent = sorted({*loading["missing_keys"], *map(str, loading["mismatched_keys"])})
    strange = sorted(loading["unexpected_keys"])
    if absent or strange:
        what = f"lacks {absent[0]}" if absent else f"holds the unknown {strange[0]}"
        raise PreflightError(
            f"the weights in {folder} are of another model than its config.json: it {what} "
            f"({len(absent)} missing, {len(strange)} unknown)"
        )
    rows, known = int(model.get_input_embeddings().weight.shape[0]), len(tokenizer)
    if known > rows:
        raise PreflightError(
            f"tokenizer and model in {folder} do not fit: the tokenizer has {known} tokens, the "
            f"model {rows}; use the tokenizer the model was trained with"
        )
    ends = _ends(model, tokenizer)
    if wrong := sorted(e for e in ends if not 0 <= e < rows):
        raise PreflightError(
            f"tokenizer and model in {folder} do not fit: the text ends with token {wrong[0]}, "
            f"the model has {rows}"
        )
    return Checkpoint(
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=tokenizer,
        name=checkpoint_name(folder),
        context=_context(model, folder),
        vocabulary=known,
        ends=ends,
    )


def checkpoint_name(folder: Path) -> str:
    """Folder and hash of a checkpoint: the `model` of its completions. Raises PreflightError."""
    return f"{folder.resolve().name}@{_digest(_files(folder))}"


def _files(folder: Path) -> list[Path]:
    """The files of the checkpoint; raises PreflightError that names a missing one."""
    if not (folder / "config.json").is_file():
        raise PreflightError(f"{folder} is no checkpoint: it has no config.json")
    try:
        parse_json((folder / "config.json").read_text(encoding="utf-8"))
        shards = [SINGLE]
        if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():
            index = parse_json((folder / INDEX).read_text(encoding="utf-8"))
            shards = sorted(set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise PreflightError(f"the checkpoint {folder} cannot be read: {_line(error)}") from error
    for shard in shards:
        if not (folder / shard).is_file():
            raise PreflightError(
                f"{folder} lacks the weights {shard}; only safetensors are read: convert others "
                "with save_pretrained(safe_serialization=True) where you trust them"
            )
    tokenizer = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    if not tokenizer:
        raise PreflightError(f"{folder} has no tokenizer: expected one of {', '.join(TOKENIZERS)}")
    return [folder / "config.json", *tokenizer, *(folder / shard for shard in shards)]


def _digest(files: list[Path]) -> str:
    """A hash of the content of all files."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for holder in (model.generation_config, model.config, tokenizer):
        value = getattr(holder, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)


def _context(model: Any, folder: Path) -> int:
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 2:
        raise PreflightError(f"{folder}/config.json names no context (max_position_embeddings)")
    return limit


def _line(error: Exception) -> str:
    """The first line of a library's message."""
    text = str(error).strip() or "no detail"
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the messages and progress bars of transformers: what matters raises an error."""
    from transformers.utils import logging as transformers_logging

    library: Any = transformers_logging
    level = library.get_verbosity()
    bars = library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
