"""What the answers of an OpenAI-compatible server mean; nothing is sent here.

Servers differ in all that is not the text: the model's name, counts, indices, parts, thoughts. None
of these may lose an answer. Reading a stored answer again gives the same completions: that is how a
campaign is replayed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hullward.models.language import (
    MOST_TOKENS,
    Answer,
    Completion,
    CompletionError,
    Fault,
    FinishReason,
    Message,
    Request,
    parse_json,
)
from hullward.models.serving.wire import REPETITION_COUNT, SEEDS, RawResponse, one_line

# characters, for servers that do not stop repetitions themselves
_LONGEST_PATTERN, _LEAST_COVERED = 200, 64

SECOND_SEED = 1_000_003  # added for an answer asked for again
_ASK_AGAIN: frozenset[Fault] = frozenset({"protocol", "encoding"})
_SHOWN = 2000  # characters of a wrong answer that are shown to the model

# by what OpenAI, Ollama, text-generation-inference and others call it, in lower case
_FINISH: dict[str, FinishReason] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call"),
        "stop",
    ),
    **dict.fromkeys(("length", "max_tokens", "max_length"), "length"),
    "repetition": "repetition",
}


class Paid(NamedTuple):
    """Tokens that a server counted for one answer; None where it gives no number to believe."""

    prompt_tokens: int | None
    completion_tokens: int | None


def read_answer(
    request: Request, raw: RawResponse, name: str, first_name: str | None = None
) -> tuple[Completion, ...] | CompletionError:
    """The completions in an answer with status 200, each labelled with what is wrong with it.

    There may be fewer than asked for, where a server ignores `n`; never more, never none.
    name: the completions' `model`, where the answer gives no other.  first_name: the name in the
    first answer of this server; another one is another model.
    """
    try:
        text = raw.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _bad("encoding", f"the answer is not UTF-8: {error}")
    try:
        body = parse_json(text)
    except ValueError as error:
        why = str(error)
        if text.lstrip().startswith(("data:", "event:")):
            why = "a stream of events, which was not asked for"
        return _bad("protocol", f"no completion came: {why}: {text[:200]!r}")
    choices = _choices(body)[: request.sampling.n]
    if not choices:
        return _bad("protocol", f"no completion came: no choices: {text[:200]!r}")
    answered = _name_in(body)
    if first_name and answered and not _same_name(first_name, answered):
        return CompletionError(
            f"{answered} answered, {first_name} before: {raw.model} was asked each time",
            retry=True,
            kind="identity",
        )
    paid = _paid(body)
    shares = _shares(paid.completion_tokens, len(choices))
    name = answered if answered and answered != raw.model else name
    return tuple(
        _completion(request, choice, name, paid, share)
        for choice, share in zip(choices, shares, strict=True)
    )


def name_in(raw: RawResponse) -> str | None:
    """The name of the model that answered, if the answer gives one."""
    return _name_in(_body(raw))


def paid_tokens(raw: RawResponse) -> Paid:
    """The tokens that a server counted for an answer, whether it is of use or not."""
    return _paid(_body(raw))


def _body(raw: RawResponse) -> Any:
    try:
        return parse_json(raw.body.decode("utf-8-sig"))
    except ValueError:
        return None


def _name_in(body: Any) -> str | None:
    found = body.get("model") if isinstance(body, dict) else None
    return (one_line(found) or None) if isinstance(found, str) else None


def _same_name(one: str, other: str) -> bool:
    return one.casefold().removesuffix(":latest") == other.casefold().removesuffix(":latest")


def _paid(body: Any) -> Paid:
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return Paid(None, None)
    return Paid(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _count(value: Any) -> int | None:
    """A number of tokens, or None for anything else, also for what no model can have written."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value


def _choices(body: Any) -> Sequence[Mapping[str, Any]]:
    """The choices by index, or as they came where indices are missing or doubled."""
    found = body.get("choices") if isinstance(body, dict) else None
    choices = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    indices = [one.get("index") for one in choices]
    if all(isinstance(i, int | float) for i in indices) and len(set(indices)) == len(choices):
        choices.sort(key=lambda one: one["index"])
    return choices


def _text_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice: what was said, else the arguments of a call, else thoughts, else why
    nothing is said.
    """
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": message if message is not None else choice.get("text")}
    parts = (
        message.get("content"),
        *_arguments(message),
        message.get("reasoning_content"),
        message.get("reasoning"),
        message.get("refusal"),
    )
    texts = [_joined(part) for part in parts]
    return next((text for text in texts if text.strip()), texts[0])


def _arguments(message: Mapping[str, Any]) -> list[Any]:
    """The arguments of the functions that a message calls."""
    calls = message.get("tool_calls")
    made = (
        [one.get("function") for one in calls if isinstance(one, dict)]
        if isinstance(calls, list)
        else []
    )
    made.append(message.get("function_call"))
    return [one.get("arguments") for one in made if isinstance(one, dict)]


def _joined(content: Any) -> str:
    """The text of a content: a string, a list of parts, or an object in place of its JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and "text" not in content:
        try:
            return json.dumps(content)
        except (RecursionError, ValueError):
            return ""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def _completion(
    request: Request,
    choice: Mapping[str, Any],
    name: str,
    paid: Paid,
    share: int | None,
) -> Completion:
    text = _text_of(choice)
    finish = choice.get("finish_reason")
    reason = _FINISH.get(finish.lower(), "unknown") if isinstance(finish, str) else "unknown"
    scores = _scores(choice.get("logprobs"))
    return Completion(
        text=text,
        model=name,
        finish_reason=reason,
        prompt_tokens=paid.prompt_tokens,
        completion_tokens=len(scores) if scores else share,
        mean_logprob=sum(scores) / len(scores) if scores else None,
        fault=_fault(request, text, reason),
    )


def _fault(request: Request, text: str, reason: FinishReason) -> Fault | None:
    if not text.strip():
        return "empty"
    if reason == "repetition" or is_repetitive(text):
        return "repetition"
    flaw = None if request.constraint is None else request.constraint.flaw(text)
    whole = request.constraint is not None and request.constraint.kind == "json" and flaw is None
    if reason == "length" and not whole:
        return "truncated"
    return None if flaw is None else "unfit"


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


def _scores(logprobs: Any) -> list[float]:
    """Log-probabilities of the tokens, as either endpoint writes them; [] without any."""
    if not isinstance(logprobs, dict):
        return []
    values = logprobs.get("token_logprobs")
    if values is None and isinstance(logprobs.get("content"), list):
        values = [one.get("logprob") for one in logprobs["content"] if isinstance(one, dict)]
    found = values if isinstance(values, list) else []
    return [float(v) for v in found if isinstance(v, int | float) and -1e6 < v < 1e6]


def _shares(total: int | None, n: int) -> list[int | None]:
    """The tokens of each of n texts, where the server gives their sum only: shared evenly."""
    if total is None:
        return [None] * n
    each, over = divmod(total, n)
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
