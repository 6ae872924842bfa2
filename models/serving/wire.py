"""The calls that an OpenAI-compatible server gets and what its answers mean; nothing is sent here.

Reading a stored answer again gives the same completions: that is how a campaign is replayed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hullward.models.errors import first_problem
from hullward.models.language import (
    Answer,
    Completion,
    CompletionError,
    Fault,
    FinishReason,
    Message,
    PromptForm,
    Request,
    render,
)

Path = Literal["completions", "chat/completions"]

# vLLM stops by itself where up to this many tokens come this often in a row. Sixteen zeros in a
# number are no crystal and no plan.
REPETITION_TOKENS, REPETITION_COUNT = 40, 16
_LONGEST_PATTERN, _LEAST_COVERED = 200, 64  # characters, for servers that do not stop

SEEDS = 2**31  # servers take no larger ones
SECOND_SEED = 1_000_003  # added for an answer asked for again
_ASK_AGAIN: frozenset[Fault] = frozenset({"protocol", "encoding"})
_SHOWN = 2000  # characters of a wrong answer that are shown to the model

_FINISH: dict[str | None, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "repetition": "repetition",
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model as its server describes it. Only vLLM gives more than the name."""

    model: str
    root: str | None = None  # folder or repository of the weights
    parent: str | None = None  # the base, of an adapter
    max_model_len: int | None = None  # tokens, prompt and completion
    is_vllm: bool = False

    def describe(self) -> str:
        root = self.root if self.root != self.model else None
        more = ", ".join(part for part in (root, self.parent and f"on {self.parent}") if part)
        return f"{self.model} ({more})" if more else self.model


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to a server."""

    path: Path
    arguments: Mapping[str, Any]  # parameters that every such server knows
    extra: Mapping[str, Any]  # those of this server


@dataclass(frozen=True, kw_only=True)
class RawResponse:
    """An answer as received, before parsing; to be stored as it is.

    request_id: of the request, fixed by the caller.  exchange: 0, 1, … of that request.
    asked: what was sent, as JSON.
    """

    request_id: str
    exchange: int
    path: Path
    model: str
    asked: str
    status: int
    body: bytes


def call_for(request: Request, form: PromptForm, served: Served, *, cloud: bool = False) -> Call:
    """The call of a request. Messages go through the form, or to the server's own template.

    cloud: OpenAI's own service, where one parameter has another name.

    Raises ValueError for messages that the form cannot hold.
    """
    sampling = request.sampling
    arguments: dict[str, Any] = {
        "model": served.model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": 0.0,
        "max_completion_tokens" if cloud else "max_tokens": sampling.max_tokens,
        "n": sampling.n,
        "seed": sampling.seed,
    }
    if sampling.stop:
        arguments["stop"] = list(sampling.stop)
    prompt = prompt_of(request, form)
    chat = not isinstance(prompt, str)
    arguments["messages" if chat else "prompt"] = prompt
    if sampling.logprobs:
        arguments["logprobs"] = True if chat else 1
    extra: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k else {}
    if served.is_vllm:
        # else a model's generation_config would decide them
        extra |= {"top_k": sampling.top_k, "min_p": 0.0, "repetition_penalty": 1.0}
        extra["repetition_detection"] = {
            "max_pattern_size": REPETITION_TOKENS,
            "min_pattern_size": 1,
            "min_count": REPETITION_COUNT,
        }
        if any(mark in stop for stop in sampling.stop for mark in ("<|", "</s>")):
            extra["skip_special_tokens"] = False  # a stop string must be visible to stop anything
    _constrain(request, arguments, extra, served, chat)
    return Call(
        path="chat/completions" if chat else "completions", arguments=arguments, extra=extra
    )


def prompt_of(request: Request, form: PromptForm) -> str | list[dict[str, str]]:
    """The text to be continued, or messages for the server's own template.

    Raises ValueError for messages that the form cannot hold.
    """
    if request.messages and form == "server":
        return [{"role": m.role, "content": m.content} for m in request.messages]
    return render(form, request.messages) if request.messages else request.prompt


def _constrain(
    request: Request,
    arguments: dict[str, Any],
    extra: dict[str, Any],
    served: Served,
    chat: bool,
) -> None:
    """Ask for the constraint where the server has a parameter for it; it is checked in any case.

    `guided_json` and its like are never sent: servers of today ignore them in silence.
    """
    constraint = request.constraint
    if constraint is None:
        return
    value = json.loads(constraint.value) if constraint.kind == "json" else constraint.value
    if served.is_vllm:
        extra["structured_outputs"] = {constraint.kind: value}
    elif constraint.kind == "json" and chat:
        arguments["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": value},
        }


class _ServerObject(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Message(_ServerObject):
    content: str | None = None


class _Choice(_ServerObject):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Usage(_ServerObject):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(_ServerObject):
    model: str | None = None
    choices: list[_Choice]
    usage: _Usage | None = None


def read_answer(
    request: Request, raw: RawResponse, name: str
) -> tuple[Completion, ...] | CompletionError:
    """The completions in an answer with status 200, each labelled with what is wrong with it.

    There may be fewer than asked for, where a server ignores `n`; never more, never none.
    name: the completions' `model`.
    """
    try:
        text = raw.body.decode("utf-8")
    except UnicodeDecodeError as error:
        return _bad("encoding", f"the answer is not UTF-8: {error}")
    try:
        body = _Body.model_validate_json(text)
    except ValidationError as error:
        return _bad("protocol", f"no completion came: {first_problem(error)}: {text!r}")
    choices = sorted(body.choices, key=lambda choice: choice.index)
    if not 0 < len(choices) <= request.sampling.n:
        return _bad("protocol", f"{len(choices)} texts came, {request.sampling.n} were requested")
    if body.model is not None and body.model != raw.model:
        return CompletionError(
            f"{raw.model} was asked, {one_line(body.model)} answered", retry=True, kind="identity"
        )
    shares = _shares(body.usage, len(choices))
    return tuple(
        _completion(request, choice, name, body.usage, share)
        for choice, share in zip(choices, shares, strict=True)
    )


def _completion(
    request: Request,
    choice: _Choice,
    name: str,
    usage: _Usage | None,
    share: int | None,
) -> Completion:
    text = (choice.text if choice.message is None else choice.message.content) or ""
    reason = _FINISH.get(choice.finish_reason, "unknown")
    scores = _scores(choice.logprobs)
    return Completion(
        text=text,
        model=name,
        finish_reason=reason,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        completion_tokens=len(scores) if scores else share,
        mean_logprob=sum(scores) / len(scores) if scores else None,
        fault=_fault(request, text, reason),
    )


def _fault(request: Request, text: str, reason: FinishReason) -> Fault | None:
    if not text.strip():
        return "empty"
    if reason == "repetition" or is_repetitive(text):
        return "repetition"
    if reason == "length":
        return "truncated"
    if request.constraint is not None and request.constraint.flaw(text) is not None:
        return "unfit"
    return None


def is_repetitive(text: str) -> bool:
    """Whether a text ends in one short pattern, repeated many times.

    >>> is_repetitive("and so on " * 16), is_repetitive("0.25 0.25 0.25" * 3)
    (True, False)
    """
    tail = text[-_LONGEST_PATTERN * REPETITION_COUNT :]
    for size in range(1, _LONGEST_PATTERN + 1):
        count = max(REPETITION_COUNT, math.ceil(_LEAST_COVERED / size))
        if size * count <= len(tail) and tail.endswith(tail[-size:] * count):
            return True
    return False


def _scores(logprobs: dict[str, Any] | None) -> list[float]:
    """Log-probabilities of the tokens, as either endpoint writes them; [] without any."""
    if not logprobs:
        return []
    values = logprobs.get("token_logprobs")
    if values is None:
        content = logprobs.get("content")
        values = [one.get("logprob") for one in content] if isinstance(content, list) else []
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _shares(usage: _Usage | None, n: int) -> list[int | None]:
    """The tokens of each of n texts, where the server gives their sum only: shared evenly."""
    if usage is None:
        return [None] * n
    each, over = divmod(usage.completion_tokens, n)
    return [each + (i < over) for i in range(n)]


def second_request(request: Request, answer: Answer) -> Request | None:
    """The same question once more, for an answer without use; None for others."""
    seed = (request.sampling.seed + SECOND_SEED) % SEEDS
    second = replace(request, sampling=replace(request.sampling, seed=seed))
    if isinstance(answer, CompletionError):
        return second if answer.kind in _ASK_AGAIN else None
    if _usable(request, answer):
        return None
    constraint, first = request.constraint, answer[0]
    if constraint is None or not request.messages:
        return second
    flaw = constraint.flaw(first.text) or f"the answer was {first.fault}"
    correction = f"That answer cannot be used: {flaw}. Give the JSON object alone, complete."
    turns = (
        Message(role="assistant", content=first.text[:_SHOWN] or "…"),
        Message(role="user", content=correction),
    )
    return replace(second, messages=(*request.messages, *turns))


def final_answer(request: Request, answer: Answer) -> Answer:
    """The answer, or an error for one that breaks its schema; a crystal is judged by its parser."""
    if isinstance(answer, CompletionError) or _usable(request, answer):
        return answer
    fault: Fault = answer[0].fault or "unfit"
    flaw = request.constraint and request.constraint.flaw(answer[0].text)
    return CompletionError(f"the answer is {fault}: {flaw}", retry=False, kind=fault)


def _usable(request: Request, answer: tuple[Completion, ...]) -> bool:
    """Whether one of the texts keeps to its schema; without a schema any text will do."""
    if request.constraint is None or request.constraint.kind != "json":
        return True
    return any(completion.fault is None for completion in answer)


def _bad(kind: Fault, message: str) -> CompletionError:
    return CompletionError(one_line(message), retry=False, kind=kind)


def one_line(text: str, limit: int = 200) -> str:
    """A server's text on one line, without unprintable characters."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return line if len(line) <= limit else f"{line[:limit]}…"
