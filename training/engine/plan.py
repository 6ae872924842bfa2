"""What a training run would cost, before it starts: tokens, operations, time, memory.

Operations are counted as usual: 6 a weight and token where all weights are trained (2 forward, 4
backward), 4 where the base is frozen, and attention beside. Time comes from measuring a few real
steps where the model is small enough to be built at once, else from the speed that is given.
Memory is what weights, gradients and AdamW's two moments need, and the activations of one pass,
which are estimated. Chinchilla's accounting: doi:10.48550/arXiv.2203.15556.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hullward.training.crystals import CrystalRow, Recipe
from hullward.training.engine import checkpoints
from hullward.training.engine.batches import batch_tensors
from hullward.training.engine.trainer import batches_of, encoded_rows, exchange_of, readable

MEASURED_STEPS = 5
MEASURED_WEIGHTS = 50_000_000  # larger models are not run to measure them
ACTIVATION_BYTES = {"no": 34 * 2, "bf16": 34, "fp16": 34}  # a layer, token and channel, about


@dataclass(frozen=True)
class RunCost:
    """The costs of a run."""

    crystals: int
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
        """As it is shown."""
        spent = "not measured: give --flops of the machine"
        if self.seconds is not None:
            spent = f"{self.seconds / 60:.1f} min"
        return [
            f"crystals         {self.crystals:,}",
            f"weights          {self.weights:,}, of which trained {self.trained_weights:,}",
            f"steps            {self.steps:,}",
            f"tokens           {self.tokens:,}, of which learnt {self.learnt_tokens:,} "
            f"and padding {self.padding_share:.0%}",
            f"operations       {self.operations:.2e}",
            f"time             {spent}",
            f"memory           {self.memory_bytes / 2**30:.2f} GiB",
        ]


def estimate_cost(
    recipe: Recipe, rows: Sequence[CrystalRow], operations_per_s: float | None = None
) -> RunCost:
    """Count a run of a recipe on these rows; nothing is trained or written.

    operations_per_s: a machine's speed; None measures a few steps here.
    Raises as the run would where its base cannot be loaded.
    """
    model, tokenizer = checkpoints.start(recipe, None)
    rows = readable(rows, tokenizer, lambda line: None)
    encoded = encoded_rows(recipe, rows, tokenizer, 0, exchange_of(recipe, rows))
    batches = batches_of(recipe, encoded, 0)
    shapes = [
        (len(batch), max(sum(len(encoded[i].ids) for i in row) for row in batch))
        for batch in batches
    ]
    used = sum(len(encoded[i].ids) for batch in batches for row in batch for i in row)
    learnt = used - sum(encoded[i].n_prompt for batch in batches for row in batch for i in row)
    tokens = sum(rows_ * length for rows_, length in shapes)
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = model.config
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    passes = 6 if trained == weights else 4
    attention = sum(2 * passes * layers * width * rows_ * length**2 for rows_, length in shapes)
    operations = float(recipe.epochs) * (passes * weights * tokens + attention)
    seconds = None
    if operations_per_s:
        seconds = operations / operations_per_s
    elif weights <= MEASURED_WEIGHTS and batches:
        seconds = recipe.epochs * _measured(recipe, model, tokenizer, encoded, batches)
    largest = max((rows_ * length for rows_, length in shapes), default=0)
    frozen_bytes = 1 if recipe.lora is not None and recipe.lora.base_8bit else 4
    activations = ACTIVATION_BYTES[recipe.precision] * largest * width * layers
    vocabulary = 4 * 3 * largest * int(config.vocab_size)  # logits, their softmax and gradient
    return RunCost(
        crystals=len(rows),
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


def _measured(
    recipe: Recipe, model: Any, tokenizer: Any, encoded: Any, batches: list[list[list[int]]]
) -> float:
    """Seconds an epoch would take here, from forward and backward passes of a few batches."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=recipe.precision)
    model.set_attn_implementation(recipe.attention)
    model = accelerator.prepare_model(model)
    model.train()
    spent, done = 0.0, 0
    every = max(1, len(batches) // MEASURED_STEPS)
    for number, batch in enumerate([batches[0], *batches[::every][:MEASURED_STEPS]]):
        tensors = batch_tensors(
            [[encoded[i] for i in row] for row in batch], tokenizer.pad_token_id
        )
        on = {name: tensor.to(accelerator.device) for name, tensor in tensors.items()}
        began = time.perf_counter()
        with accelerator.autocast():
            loss = model(**on, use_cache=False).loss
        accelerator.backward(loss)
        if number:  # the first one warms up
            spent += time.perf_counter() - began
            done += on["input_ids"].numel()
    whole = sum(
        len(batch) * max(sum(len(encoded[i].ids) for i in row) for row in batch)
        for batch in batches
    )
    return spent / max(done, 1) * whole
