"""Draw completions token by token: many rows at once, each with its own random numbers.

A row's text depends on its prompt, sampling and seed, not on the rows beside it: every row draws
from its own generator by the inverse of its distribution. In float32 batches differ by rounding
only, 1e-7 of a probability; in half precision on a GPU texts may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hullward.models.errors import PreflightError
from hullward.models.language.checkpoint import Checkpoint
from hullward.models.language.protocol import FinishReason, Sampling
from hullward.models.language.token_masks import TokenMasks

TAIL = 4  # tokens a stop string may reach back beyond its own length


@dataclass(kw_only=True)
class Row:
    """One completion under way."""

    prompt: tuple[int, ...]  # token ids
    sampling: Sampling
    index: int  # which of the request's n completions
    limit: int  # most tokens, at least 1
    masks: TokenMasks | None = None
    state: Hashable = None  # of the grammar, after the last token
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    stopped_by: str | None = None  # the stop string that ended it

    def __post_init__(self) -> None:
        entropy = (self.sampling.seed % 2**64, self.index)
        self._random = np.random.default_rng(np.random.SeedSequence(entropy))
        if self.masks is not None:
            self.state = self.masks.automaton.start()

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        return float(self._random.random())


def decode(checkpoint: Checkpoint, rows: Sequence[Row], text_of: Callable[[Row], str]) -> None:
    """Finish every row of a batch, in place.

    text_of: returns the text of a row's tokens, in which stop strings are searched.
    Raises PreflightError where the model gives NaN.
    """
    import torch

    model, device = checkpoint.model, checkpoint.model.device
    with torch.inference_mode():
        logits, cache, mask = _read_prompts(checkpoint, rows)
        alive = list(rows)
        while True:
            chosen = _choose(checkpoint, alive, logits)
            for row, token in zip(alive, chosen, strict=True):
                _append(checkpoint, row, token, text_of)
            going = [i for i, row in enumerate(alive) if row.finish is None]
            if not going:
                return
            if len(going) < len(alive):
                alive = [alive[i] for i in going]
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                mask = mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            out = model(
                input_ids=torch.tensor([[row.tokens[-1]] for row in alive], device=device),
                attention_mask=mask,
                position_ids=mask.sum(dim=1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = out.logits[:, -1]


def _read_prompts(checkpoint: Checkpoint, rows: Sequence[Row]) -> tuple[Any, Any, Any]:
    """(n, vocabulary) logits after each row's prompt, the cache, and the (n, length) mask.

    Equal prompts are computed once; short ones are padded on the left.
    """
    import torch
    from transformers import DynamicCache

    prompts = list(dict.fromkeys(row.prompt for row in rows))
    longest, device = max(map(len, prompts)), checkpoint.model.device
    padded = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    cache = DynamicCache(config=checkpoint.model.config)
    out = checkpoint.model(
        input_ids=padded,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    place = {prompt: i for i, prompt in enumerate(prompts)}
    index = torch.tensor([place[row.prompt] for row in rows], device=device)
    cache.batch_select_indices(index)
    return out.logits[:, -1][index], cache, mask[index]


def _choose(checkpoint: Checkpoint, rows: Sequence[Row], logits: Any) -> list[int | None]:
    """The next token of every row; None where its grammar allows no token."""
    import torch

    raw = logits[:, : checkpoint.vocabulary].float()
    scores = _penalised(rows, raw)
    closed = _closed(checkpoint, rows)
    if closed is not None:
        nothing_left = closed.all(dim=1)
        scores = scores.masked_fill(closed & ~nothing_left[:, None], -torch.inf)
    warmth = [row.sampling.temperature or 1.0 for row in rows]
    scaled = (
        scores.double() / torch.tensor(warmth, dtype=torch.double, device=scores.device)[:, None]
    )
    cumulative = _filtered(rows, torch.softmax(scaled, dim=-1)).cumsum(dim=-1)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise PreflightError(
            f"{checkpoint.name} gives no numbers (NaN): the weights are damaged, or need another "
            "dtype than the one they were loaded with"
        )
    drawn = torch.tensor([[row.uniform()] for row in rows], dtype=torch.double, device=total.device)
    tokens = torch.searchsorted(cumulative, drawn * total, right=True)[:, 0]
    best = scores.argmax(dim=-1)
    greedy = torch.tensor([row.sampling.temperature == 0 for row in rows], device=total.device)
    chosen = torch.where(greedy, best, tokens.clamp(max=checkpoint.vocabulary - 1)).tolist()
    if any(row.sampling.logprobs for row in rows):
        logs = torch.log_softmax(raw, dim=-1)
        for i, row in enumerate(rows):
            row.logprobs.append(float(logs[i, chosen[i]]))
    if closed is not None:
        return [None if empty else token for token, empty in zip(chosen, nothing_left, strict=True)]
    return list(chosen)


def _penalised(rows: Sequence[Row], scores: Any) -> Any:
    """Scores less the frequency penalty of the tokens that a row has already."""
    import torch

    if not any(row.sampling.frequency_penalty and row.tokens for row in rows):
        return scores
    scores = scores.clone()
    for i, row in enumerate(rows):
        if row.sampling.frequency_penalty and row.tokens:
            used = torch.tensor(row.tokens, device=scores.device)
            used, counts = used.unique(return_counts=True)
            scores[i, used] -= row.sampling.frequency_penalty * counts.float()
    return scores


def _closed(checkpoint: Checkpoint, rows: Sequence[Row]) -> Any:
    """(n, vocabulary) True for tokens that a row's grammar forbids; None without any grammar."""
    import torch

    if all(row.masks is None for row in rows):
        return None
    closed = np.zeros((len(rows), checkpoint.vocabulary), dtype=bool)
    for i, row in enumerate(rows):
        if row.masks is not None:
            closed[i] = True
            closed[i, row.masks.allowed(row.state)] = False
            if row.masks.automaton.may_end(row.state):
                closed[i, sorted(checkpoint.ends)] = False
    return torch.from_numpy(closed).to(checkpoint.model.device)


def _filtered(rows: Sequence[Row], probabilities: Any) -> Any:
    """Probabilities, zero where top_k and top_p cut off; ties at the edge stay."""
    import torch

    for i, row in enumerate(rows):
        top_k, top_p = row.sampling.top_k, row.sampling.top_p
        if top_p == 1 and not 0 < top_k < probabilities.shape[1]:
            continue
        ranked = probabilities[i].sort(descending=True).values
        if top_k:
            ranked = ranked[:top_k]
        if top_p < 1:
            before = ranked.cumsum(dim=0) - ranked
            ranked = ranked[before < top_p * ranked.sum()]
        probabilities[i] = torch.where(probabilities[i] >= ranked[-1], probabilities[i], 0.0)
    return probabilities


def _append(
    checkpoint: Checkpoint, row: Row, token: int | None, text_of: Callable[[Row], str]
) -> None:
    """Append a token and mark the row as finished where it ends."""
    if token is None:  # the grammar allows no token: complete, or at a dead end
        ended = row.masks is not None and row.masks.automaton.may_end(row.state)
        row.finish = "stop" if ended else "length"
        return
    row.tokens.append(token)
    if token in checkpoint.ends:
        row.finish = "stop"
        return
    if row.masks is not None:
        row.state = row.masks.after(row.state, token)
        if row.masks.automaton.may_end(row.state) and not row.masks.allowed(row.state):
            row.finish = "stop"  # only the end may follow
            return
    if row.sampling.stop and (hit := _stop_in(row, text_of)):
        row.finish, row.stopped_by = "stop", hit
    elif len(row.tokens) >= row.limit:
        row.finish = "length"


def _stop_in(row: Row, text_of: Callable[[Row], str]) -> str | None:
    """The first stop string in the text, or None.

    Only the end of the text is read again; a stop string of k characters has at most k tokens and
    a few empty ones.
    """
    reach = max(map(len, row.sampling.stop)) * 4 + TAIL
    tail = Row(
        prompt=row.prompt if len(row.tokens) <= reach else tuple(row.tokens[:-reach]),
        sampling=row.sampling,
        index=row.index,
        limit=row.limit,
        tokens=row.tokens[-reach:],
    )
    text = text_of(tail)
    places = [(text.find(s), s) for s in row.sampling.stop if s in text]
    return min(places)[1] if places else None
