"""What a training run would cost, before it starts: tokens, operations, time, memory.

Operations follow Chinchilla's accounting (doi:10.48550/arXiv.2203.15556): 6 per weight and token
where all weights are trained (2 forward, 4 backward), 4 where the base is frozen, plus attention.
Time is measured on a few real steps where the model is small, else computed from a given speed.
Memory covers weights, gradients, AdamW's two moments, and an estimate of one pass's activations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hullward.training.engine.batches import Batch, batch_tensors, batches_of, padded_length
from hullward.training.engine.loading import load_start
from hullward.training.engine.recipe import Recipe
from hullward.training.engine.task import Task

MEASURED_STEPS = 5
MEASURED_WEIGHTS = 50_000_000  # larger models are not run to measure them
ACTIVATION_BYTES = {"no": 34 * 2, "bf16": 34, "fp16": 34}  # a layer, token and channel, about


@dataclass(frozen=True)
class RunCost:
    """The costs of a run."""

    examples: int  # of an epoch
    weights: int
    trained_weights: int
    steps: int
    tokens: int  # of all epochs, padding included
    learnt_tokens: int
    padding_share: float
    operations: float
    seconds: float | None  # None: nothing measured and no speed given
    memory_bytes: int

    def lines(self) -> list[str]:
        """The report that `--plan` prints."""
        spent = "not measured: give --flops of the machine"
        if self.seconds is not None:
            spent = f"{self.seconds / 60:.1f} min"
        return [
            f"examples         {self.examples:,}",
            f"weights          {self.weights:,}, of which trained {self.trained_weights:,}",
            f"steps            {self.steps:,}",
            f"tokens           {self.tokens:,}, of which learnt {self.learnt_tokens:,} "
            f"and padding {self.padding_share:.0%}",
            f"operations       {self.operations:.2e}",
            f"time             {spent}",
            f"memory           {self.memory_bytes / 2**30:.2f} GiB",
        ]


def estimate_cost(task: Task, operations_per_s: float | None = None) -> RunCost:
    """What a run of this task would cost; nothing is trained or written.

    operations_per_s: a machine's speed; None measures a few steps here.
    Raises as the run would where its base cannot be loaded.
    """
    recipe = task.recipe
    model, tokenizer = load_start(task, None)
    examples = task.examples(tokenizer, lambda line: None).of_epoch(0)
    batches = batches_of(recipe, examples, 0)
    shapes = [(len(batch), padded_length(batch)) for batch in batches]
    shown = [one for batch in batches for row in batch for one in row]
    used = sum(len(one.ids) for one in shown)
    learnt = used - sum(one.n_prompt for one in shown)
    tokens = sum(rows * length for rows, length in shapes)
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = model.config
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    passes = 6 if trained == weights else 4
    attention = sum(2 * passes * layers * width * rows * length**2 for rows, length in shapes)
    operations = float(recipe.epochs) * (passes * weights * tokens + attention)
    seconds = None
    if operations_per_s:
        seconds = operations / operations_per_s
    elif weights <= MEASURED_WEIGHTS and batches:
        seconds = recipe.epochs * tokens * _seconds_a_token(recipe, model, tokenizer, batches)
    largest = max((rows * length for rows, length in shapes), default=0)
    frozen_bytes = 1 if recipe.lora is not None and recipe.lora.base_8bit else 4
    activations = ACTIVATION_BYTES[recipe.precision] * largest * width * layers
    vocabulary = 4 * 3 * largest * int(config.vocab_size)  # logits, their softmax and gradient
    return RunCost(
        examples=len(examples),
        weights=weights,
        trained_weights=trained,
        steps=recipe.epochs * math.ceil(len(batches) / recipe.accumulate),
        tokens=recipe.epochs * tokens,
        learnt_tokens=recipe.epochs * learnt,
        padding_share=1 - used / tokens if tokens else 0.0,
        operations=operations,
        seconds=seconds,
        memory_bytes=16 * trained + frozen_bytes * (weights - trained) + activations + vocabulary,
    )


def _seconds_a_token(recipe: Recipe, model: Any, tokenizer: Any, batches: Sequence[Batch]) -> float:
    """Time of a token here, padding included: forward and backward passes of a few batches."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=recipe.precision)
    model.set_attn_implementation(recipe.attention)
    model = accelerator.prepare_model(model)
    model.train()
    spent, done = 0.0, 0
    every = max(1, len(batches) // MEASURED_STEPS)
    for number, batch in enumerate([batches[0], *batches[::every][:MEASURED_STEPS]]):
        tensors = batch_tensors(batch, tokenizer.pad_token_id)
        on = {name: tensor.to(accelerator.device) for name, tensor in tensors.items()}
        began = time.perf_counter()
        with accelerator.autocast():
            loss = model(**on, use_cache=False).loss
        accelerator.backward(loss)
        if number:  # the first one warms up
            spent += time.perf_counter() - began
            done += on["input_ids"].numel()
    return spent / max(done, 1)
