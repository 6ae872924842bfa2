"""Examples as token batches: which go together in which step, fixed by (seed, epoch) alone.

Two ways. `bucket`: examples of similar length in one batch, padded on the right; best for short
texts. `pack`: several examples in each row of `max_tokens`, each attending only to itself; hardly
any padding, best on a GPU with long rows. Labels are -100 where nothing is learnt: prompts and
padding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hullward.training.engine.recipe import Recipe
from hullward.training.engine.task import Encoded

if TYPE_CHECKING:
    import torch


IGNORED = -100
_POOL = 50  # batches whose examples are sorted by length together


Batch = Sequence[Sequence[Encoded]]  # rows of examples


def batches_of(recipe: Recipe, examples: Sequence[Encoded], epoch: int) -> list[Batch]:
    """The batches of an epoch, in their order."""
    places = plan_epoch([len(one.ids) for one in examples], recipe, epoch)
    return [[[examples[i] for i in row] for row in batch] for batch in places]


def padded_length(batch: Batch) -> int:
    """Tokens of the longest row, to which the others are padded."""
    return max(sum(len(one.ids) for one in row) for row in batch)


def plan_epoch(lengths: Sequence[int], recipe: Recipe, epoch: int) -> list[list[list[int]]]:
    """Batches of rows of example numbers, of `recipe.batch_tokens` with padding at most.

    bucket: a row is one example.  pack: the examples of a row have `max_tokens` together at most.
    Examples longer than `max_tokens` are left out of every epoch.
    """
    tokens, max_tokens = recipe.batch_tokens, recipe.max_tokens
    rng = random.Random(f"{recipe.seed}:{epoch}:order")
    order = [i for i, length in enumerate(lengths) if length <= max_tokens]
    rng.shuffle(order)
    if recipe.batching == "pack":
        rows = _packed(order, lengths, max_tokens)
        per_batch = max(1, tokens // max_tokens)
        return [rows[i : i + per_batch] for i in range(0, len(rows), per_batch)]
    batches: list[list[list[int]]] = []
    mean = sum(lengths[i] for i in order) / max(len(order), 1)
    pool = max(1, int(_POOL * tokens / max(mean, 1)))
    for start in range(0, len(order), pool):
        ordered = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batch: list[list[int]] = []
        for i in ordered:
            if batch and lengths[i] * (len(batch) + 1) > tokens:
                batches.append(batch)
                batch = []
            batch.append([i])
        if batch:
            batches.append(batch)
    rng.shuffle(batches)
    return batches


def _packed(order: Sequence[int], lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows filled first-fit; only the last `_POOL` rows stay open."""
    open_rows: list[tuple[int, list[int]]] = []
    done: list[list[int]] = []
    for i in order:
        at = next((k for k, (left, _) in enumerate(open_rows) if left >= lengths[i]), None)
        if at is None:
            open_rows.append((room - lengths[i], [i]))
            if len(open_rows) > _POOL:
                done.append(open_rows.pop(0)[1])
        else:
            left, row = open_rows[at]
            open_rows[at] = (left - lengths[i], [*row, i])
    return done + [row for _, row in open_rows]


def batch_tensors(rows: Batch, pad: int) -> dict[str, torch.Tensor]:
    """Tensors of a batch for a causal model.

    input_ids, labels: (rows, longest).  Packed rows also need position_ids, of the same shape, and
    attention_mask: (rows, 1, longest, longest) booleans, True where a token attends to another.
    Rows of one example need neither: padding comes last, and no learnt token attends to it.
    """
    import torch

    longest = padded_length(rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    owner = torch.full((len(rows), longest), -1)
    for r, row in enumerate(rows):
        at = 0
        for number, one in enumerate(row):
            end = at + len(one.ids)
            ids[r, at:end] = torch.tensor(one.ids)
            # the first token of an example has no context to be predicted from
            first = at + max(one.n_prompt, 1)
            labels[r, first:end] = torch.tensor(one.ids[first - at :])
            positions[r, at:end] = torch.arange(end - at)
            owner[r, at:end] = number
            at = end
    batch = {"input_ids": ids, "labels": labels}
    if max(map(len, rows)) > 1:
        batch["position_ids"] = positions
        same = owner[:, :, None] == owner[:, None, :]
        causal = torch.ones((longest, longest), dtype=torch.bool).tril()
        batch["attention_mask"] = (same & causal)[:, None]
    return batch
