"""One engine for all crystal generators: from scratch, all weights, or adapters on any base.

The loop is our own over accelerate. transformers' Trainer keeps its optimiser and random state as
pickles and writes checkpoints in place; here they are safetensors and JSON, written aside and
renamed, and a run that was stopped goes on with the very batches, weights and random numbers it
would have had.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hullward.models.errors import PreflightError
from hullward.training.crystals import CrystalRow, Exchange, Recipe, example
from hullward.training.engine import checkpoints
from hullward.training.engine.batches import Encoded, batch_tensors, encode, plan_epoch
from hullward.training.engine.errors import TrainingError


@dataclass
class Progress:
    """How far a run is. The next batch is number `batch` of `epoch`."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0  # learnt, prompts and padding not counted
    seconds: float = 0.0


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to the final rate at the last step."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = min(1.0, (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps))
    low = recipe.final_learning_rate
    return low + (recipe.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * done))


def train(
    recipe: Recipe,
    rows: Sequence[CrystalRow],
    validation: Sequence[CrystalRow],
    corpus_sha256: str,
    out: Path,
    *,
    save_every_s: float = 600.0,
    log: Callable[[str], None] = print,
    stop: Callable[[Progress], bool] = lambda progress: False,
) -> Path:
    """Train, or go on where `out` stopped; the folder of the finished model.

    stop: asked after every step; a checkpoint is written and None of what follows done when it
    says so.  Raises TrainingError for a checkpoint of another recipe or corpus, a loss that is
    not finite, a full disk; the last good checkpoint stays.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    accelerator = Accelerator(mixed_precision=recipe.precision)
    if accelerator.num_processes > 1:
        raise PreflightError(
            f"the engine runs in one process, {accelerator.num_processes} were launched; start it "
            "with python -m, not with accelerate launch"
        )
    set_seed(recipe.seed)
    last = checkpoints.latest(out)
    model, tokenizer = checkpoints.start(recipe, last)
    model.to(accelerator.device).train()
    model.set_attn_implementation(recipe.attention)
    optimizer = _optimizer(recipe, model)
    progress = Progress()
    if last is not None:
        progress = Progress(**checkpoints.resume(last, recipe, corpus_sha256, model, optimizer))
        log(f"going on at step {progress.step} of {last}")
    model = accelerator.prepare_model(model)
    optimizer = accelerator.prepare_optimizer(optimizer)
    rows = readable(rows, tokenizer, log)
    validation = readable(validation, tokenizer, log)
    exchange = exchange_of(recipe, rows)
    steps = recipe.epochs * _steps_an_epoch(recipe, rows, tokenizer, exchange)
    saved = began = time.monotonic()
    before = progress.seconds

    def save() -> Path:
        progress.seconds = before + time.monotonic() - began
        plain = accelerator.unwrap_model(model)
        return checkpoints.save(
            out, recipe, corpus_sha256, plain, tokenizer, optimizer, asdict(progress)
        )

    recent: list[float] = []
    while progress.epoch < recipe.epochs:
        encoded = encoded_rows(recipe, rows, tokenizer, progress.epoch, exchange)
        batches = batches_of(recipe, encoded, progress.epoch)
        groups = [
            batches[i : i + recipe.accumulate] for i in range(0, len(batches), recipe.accumulate)
        ]
        for group in groups[progress.batch :]:
            rate = learning_rate(recipe, progress.step, steps)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            tensors = [
                batch_tensors([[encoded[i] for i in row] for row in batch], tokenizer.pad_token_id)
                for batch in group
            ]
            loss, learnt = _step(accelerator, model, optimizer, tensors, recipe.clip_norm)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {progress.step}; last good checkpoint: "
                    f"{checkpoints.latest(out) or 'none yet'}. Lower learning_rate in the recipe "
                    f"(now {recipe.learning_rate:g}) or use precision: 'no'"
                )
            recent.append(loss)
            progress.step += 1
            progress.batch += 1
            progress.tokens += learnt
            if progress.step % 100 == 0:
                spent = before + time.monotonic() - began
                log(
                    f"step {progress.step}/{steps} epoch {progress.epoch} loss "
                    f"{sum(recent) / len(recent):.4f} lr {rate:.2e} {spent:.0f} s "
                    f"{progress.tokens / spent:.0f} learnt tokens/s"
                )
                recent.clear()
            if stop(progress):
                return save()
            if time.monotonic() - saved > save_every_s:
                save()
                saved = time.monotonic()
        progress.epoch += 1
        progress.batch = 0
        if validation:
            loss = validation_loss(recipe, model, tokenizer, validation, accelerator)
            log(f"epoch {progress.epoch} of {recipe.epochs} done: validation loss {loss:.4f}")
    return save()


def validation_loss(
    recipe: Recipe, model: Any, tokenizer: Any, rows: Sequence[CrystalRow], accelerator: Any
) -> float:
    """Mean loss a learnt token over examples that never change."""
    import torch

    encoded = encoded_rows(recipe, rows, tokenizer, epoch=-1)
    total, learnt = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for batch in batches_of(recipe, encoded, epoch=-1):
            tensors = batch_tensors(
                [[encoded[i] for i in r] for r in batch], tokenizer.pad_token_id
            )
            count = int((tensors["labels"] != -100).sum())
            total += float(_loss_sum(accelerator, model, tensors))
            learnt += count
    model.train()
    return total / max(learnt, 1)


def readable(
    rows: Sequence[CrystalRow], tokenizer: Any, log: Callable[[str], None]
) -> list[CrystalRow]:
    """Rows whose texts the tokenizer has tokens for; says how many it has none for."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return list(rows)
    kept = [
        row
        for row in rows
        if unknown not in tokenizer.encode(row.unit_text, add_special_tokens=False)
        and unknown not in tokenizer.encode(row.cell_text, add_special_tokens=False)
    ]
    if len(kept) < len(rows):
        log(f"{len(rows) - len(kept)} of {len(rows)} crystals have numbers without a token")
    return kept


def _step(
    accelerator: Any, model: Any, optimizer: Any, tensors: list[dict[str, Any]], clip: float
) -> tuple[float, int]:
    """(mean loss a learnt token, learnt tokens) of one step; the weights are not touched where
    the loss or the gradient is not finite.
    """
    learnt = sum(int((one["labels"] != -100).sum()) for one in tensors)
    total = 0.0
    optimizer.zero_grad()
    for one in tensors:
        loss = _loss_sum(accelerator, model, one) / learnt
        total += float(loss.detach())
        accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    if not math.isfinite(total):
        return total, learnt
    if norm is not None and not math.isfinite(float(norm)):
        return float("nan"), learnt
    optimizer.step()
    return total, learnt


def _loss_sum(accelerator: Any, model: Any, tensors: dict[str, Any]) -> Any:
    """Sum over learnt tokens, so that batches of any size weigh each token alike."""
    import torch

    on = {name: tensor.to(accelerator.device) for name, tensor in tensors.items()}
    labels = on.pop("labels")
    with accelerator.autocast():
        hidden = model(**on, use_cache=False).logits[:, :-1]
    wanted = labels[:, 1:]
    keep = wanted != -100
    return torch.nn.functional.cross_entropy(hidden[keep].float(), wanted[keep], reduction="sum")


def exchange_of(recipe: Recipe, rows: Sequence[CrystalRow]) -> Exchange | None:
    """What exchanges elements, where the recipe asks for that."""
    return Exchange(rows) if recipe.asked().substituted else None


def encoded_rows(
    recipe: Recipe,
    rows: Sequence[CrystalRow],
    tokenizer: Any,
    epoch: int,
    exchange: Exchange | None = None,
) -> list[Encoded]:
    """The examples of an epoch in tokens; with an exchange, some of other elements."""
    mixture = recipe.asked()
    found = []
    for i, row in enumerate(rows):
        shown = row
        if exchange is not None:
            rng = random.Random(f"{recipe.seed}:{epoch}:{i}:exchange")
            if rng.random() < mixture.substituted:
                shown = exchange.like(row, rng)
        try:
            one = encode(example(shown, mixture, recipe.seed, epoch, i), tokenizer)
        except ValueError:
            if shown is row:
                raise
            # the exchange made a length that has no token
            one = encode(example(row, mixture, recipe.seed, epoch, i), tokenizer)
        found.append(one)
    return found


def batches_of(recipe: Recipe, encoded: Sequence[Encoded], epoch: int) -> list[list[list[int]]]:
    return plan_epoch(
        [len(one.ids) for one in encoded],
        tokens=recipe.batch_tokens,
        batching=recipe.batching,
        max_tokens=recipe.max_tokens,
        seed=recipe.seed,
        epoch=epoch,
    )


def _steps_an_epoch(
    recipe: Recipe, rows: Sequence[CrystalRow], tokenizer: Any, exchange: Exchange | None
) -> int:
    """Of the first epoch; the others differ by a few steps."""
    encoded = encoded_rows(recipe, rows, tokenizer, 0, exchange)
    return math.ceil(len(batches_of(recipe, encoded, 0)) / recipe.accumulate)


def _optimizer(recipe: Recipe, model: Any) -> Any:
    """AdamW; no decay on embeddings, norms and biases, which it would only wear down."""
    import torch

    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    worn = [p for p in trained if p.ndim > 1 and id(p) not in embeddings]
    kept = [p for p in trained if p.ndim <= 1 or id(p) in embeddings]
    groups = [{"params": worn, "weight_decay": recipe.weight_decay}]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas)
