"""How likely a served model finds a text, from log-probabilities of a prompt, which vLLM tells."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hullward.models.errors import PreflightError
from hullward.models.serving.connection import Connection
from hullward.models.serving.wire import Call


async def score_pairs(
    line: Connection, model: str, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Mean natural log-probability a token of each continuation after its prompt.

    Raises ServerFaultError for what the server does, PreflightError where it tells no
    log-probabilities, ValueError for a continuation without a token of its own.
    """
    return [await _score(line, model, prompt, text) for prompt, text in pairs]


async def _score(line: Connection, model: str, prompt: str, text: str) -> float:
    before = await line.tokenize({"model": model, "prompt": prompt})
    asked = {"model": model, "prompt": prompt + text, "max_tokens": 1, "temperature": 0}
    call = Call(path="completions", arguments=asked, extra={"prompt_logprobs": 0})
    raw = await line.send(call, "score", 0, record=False)
    try:
        rows = json.loads(raw.body)["choices"][0]["prompt_logprobs"]
        # the first token has none; with 0 asked for, a row holds the token itself alone
        values = [float(next(iter(row.values()))["logprob"]) for row in rows[before:]]
    except (ValueError, KeyError, TypeError, IndexError, StopIteration):
        values = None
    if before is None or values is None:
        raise PreflightError(f"{line.url} tells no log-probabilities of a prompt; vLLM does")
    if not values:
        raise ValueError("the continuation has no token of its own")
    return sum(values) / len(values)
