"""One training loop for every task: from scratch, all weights, or adapters on any base.

The loop is our own, over accelerate. transformers' Trainer pickles its optimizer and random state
and writes checkpoints in place; here they are safetensors and JSON, renamed when complete, and a
run that was stopped goes on with the very batches, weights and random numbers it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hullward.models.errors import PreflightError
from hullward.training.engine import checkpoints
from hullward.training.engine.batches import IGNORED, Batch, batch_tensors, batches_of
from hullward.training.engine.errors import TrainingError
from hullward.training.engine.loading import load_start
from hullward.training.engine.recipe import Recipe
from hullward.training.engine.task import Task

LOGGED_STEPS = 100  # a line of the log each


@dataclass
class Progress:
    """How far a run is. The next step is number `batch` of `epoch`."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0  # learnt, prompts and padding not counted
    seconds: float = 0.0


def train(
    task: Task,
    out: Path,
    *,
    save_every_s: float = 600.0,
    log: Callable[[str], None] = print,
    stop: Callable[[Progress], bool] = lambda progress: False,
) -> Path:
    """Train, or go on where `out` stopped; the folder of the last checkpoint.

    stop: called after every step; where it returns True, a checkpoint is written and training
    ends.  Raises TrainingError for a checkpoint of another recipe or corpus, a loss that is not
    finite, a full disk; the last good checkpoint stays.
    """
    run = TrainingRun(task, out, log)
    saved = time.monotonic()
    while run.progress.epoch < task.recipe.epochs:
        for batches in run.steps_left_in_epoch():
            run.step(batches)
            if run.progress.step % LOGGED_STEPS == 0:
                log(run.recent())
            if stop(run.progress):
                return run.save()
            if time.monotonic() - saved > save_every_s:
                run.save()
                saved = time.monotonic()
        run.finish_epoch(log)
    return run.save()


class TrainingRun:
    """A training run in memory: model, optimizer, examples, and how far it is."""

    def __init__(self, task: Task, out: Path, log: Callable[[str], None]) -> None:
        from accelerate.utils import set_seed

        self.task, self.recipe, self.out = task, task.recipe, out
        self.accelerator = _accelerator(self.recipe)
        set_seed(self.recipe.seed)
        last = checkpoints.latest(out)
        model, self.tokenizer = load_start(task, last)
        model.to(self.accelerator.device).train()
        model.set_attn_implementation(self.recipe.attention)
        optimizer = _optimizer(self.recipe, model)
        self.progress = Progress()
        if last is not None:
            self.progress = Progress(**checkpoints.resume(last, task, model, optimizer))
            log(f"going on at step {self.progress.step} of {last}")
        self.model = self.accelerator.prepare_model(model)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.examples = task.examples(self.tokenizer, log)
        # counted in the first epoch; the others differ by a few steps
        self.steps = self.recipe.epochs * len(self._steps_of_epoch(0))
        self.rate = 0.0
        self._began = time.monotonic() - self.progress.seconds
        self._losses: list[float] = []

    def steps_left_in_epoch(self) -> list[list[Batch]]:
        """What is left of this epoch: for every step, the batches whose gradients add up."""
        return self._steps_of_epoch(self.progress.epoch)[self.progress.batch :]

    def _steps_of_epoch(self, epoch: int) -> list[list[Batch]]:
        batches = batches_of(self.recipe, self.examples.of_epoch(epoch), epoch)
        each = self.recipe.accumulate
        return [batches[i : i + each] for i in range(0, len(batches), each)]

    def step(self, batches: Sequence[Batch]) -> None:
        """One step of the optimizer. Raises TrainingError where the loss is not finite."""
        self.rate = learning_rate(self.recipe, self.progress.step, self.steps)
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.rate
        tensors = [batch_tensors(batch, self.tokenizer.pad_token_id) for batch in batches]
        loss, learnt = _step(
            self.accelerator, self.model, self.optimizer, tensors, self.recipe.clip_norm
        )
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.progress.step}; last good checkpoint: "
                f"{checkpoints.latest(self.out) or 'none yet'}. Lower learning_rate in the recipe "
                f"(now {self.recipe.learning_rate:g}) or use precision: 'no'"
            )
        self._losses.append(loss)
        self.progress.step += 1
        self.progress.batch += 1
        self.progress.tokens += learnt

    def recent(self) -> str:
        """A line for the log: the mean loss since the last one, and the speed so far."""
        done, spent = self.progress, time.monotonic() - self._began
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return (
            f"step {done.step}/{self.steps} epoch {done.epoch} loss {loss:.4f} "
            f"lr {self.rate:.2e} {spent:.0f} s {done.tokens / spent:.0f} learnt tokens/s"
        )

    def finish_epoch(self, log: Callable[[str], None]) -> None:
        """Go on to the next epoch; logs the validation loss."""
        self.progress.epoch += 1
        self.progress.batch = 0
        loss = self.validation_loss()
        if loss is not None:
            done, epochs = self.progress.epoch, self.recipe.epochs
            log(f"epoch {done} of {epochs} done: validation loss {loss:.4f}")

    def validation_loss(self) -> float | None:
        """Mean loss of a learnt token over the validation examples; None where there are none."""
        import torch

        examples = self.examples.for_validation()
        if not examples:
            return None
        total, learnt = 0.0, 0
        self.model.eval()
        with torch.inference_mode():
            for batch in batches_of(self.recipe, examples, epoch=-1):
                tensors = batch_tensors(batch, self.tokenizer.pad_token_id)
                total += float(_loss_sum(self.accelerator, self.model, tensors))
                learnt += _n_learnt(tensors)
        self.model.train()
        return total / max(learnt, 1)

    def save(self) -> Path:
        """Write a checkpoint; its folder."""
        self.progress.seconds = time.monotonic() - self._began
        plain, progress = self.accelerator.unwrap_model(self.model), asdict(self.progress)
        return checkpoints.save(
            self.out, self.task, plain, self.tokenizer, self.optimizer, progress
        )


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to the final rate at the last step."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = min(1.0, (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps))
    low = recipe.final_learning_rate
    return low + (recipe.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * done))


def _accelerator(recipe: Recipe) -> Any:
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=recipe.precision)
    if accelerator.num_processes > 1:
        raise PreflightError(
            f"the engine runs in one process, {accelerator.num_processes} were launched; start it "
            "with python -m, not with accelerate launch"
        )
    return accelerator


def _optimizer(recipe: Recipe, model: Any) -> Any:
    """AdamW, without weight decay on embeddings, norms and biases."""
    import torch

    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in embeddings]
    kept = [p for p in trained if p.ndim <= 1 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas)


def _step(
    accelerator: Any, model: Any, optimizer: Any, tensors: list[dict[str, Any]], clip: float
) -> tuple[float, int]:
    """(mean loss of a learnt token, learnt tokens) of one step.

    The weights stay as they are where the loss or the gradient is not finite.
    """
    learnt = sum(map(_n_learnt, tensors))
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


def _n_learnt(tensors: dict[str, Any]) -> int:
    return int((tensors["labels"] != IGNORED).sum())


def _loss_sum(accelerator: Any, model: Any, tensors: dict[str, Any]) -> Any:
    """Sum over learnt tokens, so that each token has the same weight in batches of any size."""
    import torch

    on = {name: tensor.to(accelerator.device) for name, tensor in tensors.items()}
    labels = on.pop("labels")
    with accelerator.autocast():
        hidden = model(**on, use_cache=False).logits[:, :-1]
    wanted = labels[:, 1:]
    keep = wanted != IGNORED
    return torch.nn.functional.cross_entropy(hidden[keep].float(), wanted[keep], reduction="sum")
