"""Examples as token batches: which go together in which step, fixed by (seed, epoch) alone.

Two ways. `bucket`: examples of like length in one batch, padded on the right; best where texts are
short. `pack`: several examples in each row of `max_tokens`, each seeing only itself; hardly any
padding, best on a GPU with long rows. Labels are -100 where nothing is learnt: prompts and padding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hullward.training.crystals import Example

if TYPE_CHECKING:
    import torch


IGNORED = -100
_POOL = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Encoded:
    """One example in tokens; the first `n_prompt` are given, not learnt."""

    ids: tuple[int, ...]
    n_prompt: int


def encode(example: Example, tokenizer: Any) -> Encoded:
    """Prompt, answer and end in tokens; a beginning where the tokenizer sets one.

    Raises ValueError for a text the tokenizer has no tokens for.
    """
    prompt = tokenizer.encode(example.prompt, add_special_tokens=True)
    while prompt and prompt[-1] == tokenizer.eos_token_id:
        prompt.pop()  # some tokenizers close what they encode
    answer = tokenizer.encode(example.answer, add_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in answer:
        raise ValueError(f"the tokenizer has no token for part of {example.answer[:80]!r}")
    ids = (*prompt, *answer, tokenizer.eos_token_id)
    return Encoded(ids, 0 if example.learn_prompt else len(prompt))


def plan_epoch(
    lengths: Sequence[int],
    *,
    tokens: int,
    batching: Literal["bucket", "pack"],
    max_tokens: int,
    seed: int,
    epoch: int,
) -> list[list[list[int]]]:
    """Batches of rows of example numbers. `tokens`: most tokens of a batch, padding included.

    bucket: a row is one example.  pack: a row holds examples up to `max_tokens` together.
    Examples longer than `max_tokens` are left out, in every epoch alike.
    """
    rng = random.Random(f"{seed}:{epoch}:order")
    order = [i for i, length in enumerate(lengths) if length <= max_tokens]
    rng.shuffle(order)
    if batching == "pack":
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
    """Rows filled first-fit among the last few open ones."""
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


def batch_tensors(rows: Sequence[Sequence[Encoded]], pad: int) -> dict[str, torch.Tensor]:
    """Tensors of a batch for a causal model.

    input_ids, labels: (rows, longest).  Where rows are packed also position_ids, alike, and
    attention_mask: (rows, 1, longest, longest) booleans, True where a token sees another. Rows of
    one example need neither: what pads them stands behind and no learnt token sees it.
    """
    import torch

    longest = max(sum(len(e.ids) for e in row) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    owner = torch.full((len(rows), longest), -1)
    for r, row in enumerate(rows):
        at = 0
        for number, one in enumerate(row):
            end = at + len(one.ids)
            ids[r, at:end] = torch.tensor(one.ids)
            # the first token of an example has nothing before it to be learnt from
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
