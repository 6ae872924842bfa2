"""The calls that an OpenAI-compatible server gets; nothing is sent here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hullward.models.language import PromptForm, Request, render

Path = Literal["completions", "chat/completions"]

# vLLM stops by itself where up to this many tokens come this often in a row. Sixteen zeros in a
# number are no crystal and no plan.
REPETITION_TOKENS, REPETITION_COUNT = 40, 16

SEEDS = 2**31  # servers take no larger ones


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
    left_out: tuple[str, ...] = ()  # those that the server refuses


@dataclass(frozen=True, kw_only=True)
class RawResponse:
    """An answer as received, before parsing; to be stored as it is.

    request_id: of the request, fixed by the caller.  exchange: 0, 1, … of that request.
    asked: what was sent, as JSON.  left_out: parameters of the request that were not sent.
    """

    request_id: str
    exchange: int
    path: Path
    model: str
    asked: str
    status: int
    body: bytes
    left_out: tuple[str, ...] = ()


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


def probe_for(form: PromptForm, served: Served, *, cloud: bool = False) -> Call:
    """The call that asks for one token, over the path of the real ones."""
    limit = "max_completion_tokens" if cloud else "max_tokens"
    asked: dict[str, Any] = {"model": served.model, limit: 1, "temperature": 0}
    if form == "server" and not served.is_vllm:  # it may offer nothing else
        asked["messages"] = [{"role": "user", "content": "1"}]
        return Call(path="chat/completions", arguments=asked, extra={})
    return Call(path="completions", arguments=asked | {"prompt": "1"}, extra={})


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


def one_line(text: str, limit: int = 200) -> str:
    """A server's text on one line, without unprintable characters."""
    text = text[: 10 * limit]
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return line if len(line) <= limit else f"{line[:limit]}…"
