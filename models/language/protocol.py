"""The interface of every language model: text in, text out, many requests at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, ValidationError

from hullward.models.errors import first_problem
from hullward.models.language.answer_text import json_texts, parse_json, read_json

# repetition: the same few tokens again and again; unknown: the server gave no reason
FinishReason = Literal["stop", "length", "repetition", "unknown"]

MOST_TOKENS = 10_000_000  # of a count that is believed; no context is longer

Fault = Literal[
    "unreachable",  # no server listens there, or the connection broke
    "timeout",  # the server listens and does not finish in time
    "busy",  # the server asks for a longer wait than ours
    "server",  # an internal error of the server
    "outage",  # not sent: the server failed too often and does not answer the probe yet
    "identity",  # not sent: another model answers there now
    "refused",  # a request that can never succeed, or a wrong address or key
    "context",  # not sent, or refused: prompt and completion do not fit the context
    "protocol",  # an answer that is no completion: HTML, half a JSON, no text
    "encoding",  # not UTF-8
    "empty",  # nothing but white space
    "truncated",  # cut at max_tokens before its end
    "repetition",  # the same few tokens again and again
    "unfit",  # complete, but against its schema or grammar
    "exhausted",  # a recording with nothing left
    "other",
]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw completions. Every value is sent, so that no server applies defaults of its own.

    Raises ValueError for values that no model accepts.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # draw from the k likeliest tokens; 0: from all
    frequency_penalty: float = 0.0
    max_tokens: int = 1024
    n: int = 1  # completions a request
    seed: int = 0
    stop: tuple[str, ...] = ()  # a model of plain text runs on without one
    logprobs: bool = False  # ask for the mean log-probability of each completion

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or more, got {self.top_k}")
        if not -2 <= self.frequency_penalty <= 2:
            raise ValueError(f"frequency_penalty must be in [-2, 2], got {self.frequency_penalty}")
        if self.max_tokens < 1 or self.n < 1:
            raise ValueError(f"max_tokens and n must be 1 or more, got {self.max_tokens}, {self.n}")
        if "" in self.stop:
            raise ValueError("a stop string is empty: it would end every completion at once")


class Automaton(Hashable, Protocol):
    """The texts of a grammar, character by character; for models that run in this process.

    States are hashable values that only the automaton reads. Equal automata allow the same texts.
    """

    def start(self) -> Hashable:
        """The state of the empty text."""

    def options(self, state: Hashable) -> Mapping[str, Hashable]:
        """Every character that may come next, with the state behind it."""

    def may_end(self, state: Hashable) -> bool:
        """Whether the text may end here."""

    def outlook(self, state: Hashable) -> Hashable:
        """A coarser state: of states with one outlook, either all can be continued or none.

        A vocabulary may lack the token that would finish a word; this is checked once for each
        outlook.
        """


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """The texts that are allowed. A server may apply it; every completion is checked in any case.

    json: a JSON schema as JSON text; regex: a pattern for the whole text; grammar: EBNF as
    xgrammar and llama.cpp read it, with `root` as its start.  automaton: the same texts for a
    model in this process, which applies no constraint without one.

    >>> Constraint.regex("(yes|no)").flaw("perhaps")
    'does not match the pattern (yes|no)'
    """

    kind: Literal["json", "regex", "grammar"]
    value: str
    check: Callable[[str], str | None] | None = field(default=None, compare=False, repr=False)
    automaton: Automaton | None = field(default=None, repr=False)

    @classmethod
    def json(cls, model: type[BaseModel]) -> Constraint:
        """An object of this pydantic model, which may have fences, thoughts or prose around it."""

        def check(text: str) -> str | None:
            try:
                read_json(model, text)
            except ValidationError as error:
                return first_problem(error)
            return None

        schema = json.dumps(model.model_json_schema(), sort_keys=True)
        return cls(kind="json", value=schema, check=check)

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        return cls(kind="regex", value=pattern)

    @classmethod
    def grammar(
        cls,
        ebnf: str,
        check: Callable[[str], str | None] | None = None,
        automaton: Automaton | None = None,
    ) -> Constraint:
        """A grammar; `check` returns what is wrong with a whole text, or None. Give it where
        there is a parser of the language.
        """
        return cls(kind="grammar", value=ebnf, check=check, automaton=automaton)

    def flaw(self, text: str) -> str | None:
        """What does not fit, in one line, or None. A grammar without a check always fits."""
        if self.check is not None:
            return self.check(text)
        if self.kind == "json":
            try:
                parse_json(next(json_texts(text)))
            except ValueError as error:
                return f"not JSON: {error}"
        if self.kind == "regex" and re.fullmatch(self.value, text) is None:
            return f"does not match the pattern {self.value}"
        return None


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt or one conversation; the id is fixed by the caller before anything is generated.

    A prompt is continued as it stands. Messages are put into the model's own form by its server
    or by `prompt_forms.render`.
    """

    request_id: str
    prompt: str = ""
    sampling: Sampling = Sampling()
    messages: tuple[Message, ...] = ()
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.prompt and self.messages:
            raise ValueError("a request holds a prompt or messages, not both")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One text a model wrote, verbatim. Token counts are None where they are unknown."""

    text: str
    model: str  # name and revision of the model
    finish_reason: FinishReason = "unknown"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # of this text; a mean where only the sum of n is known
    mean_logprob: float | None = None  # natural, over its tokens
    fault: Fault | None = None  # what is wrong with the text, where it shows


class CompletionError(Exception):
    """A request without a completion. Returned, not raised: the others of its batch go on."""

    def __init__(self, message: str, *, retry: bool, kind: Fault = "other") -> None:
        super().__init__(message)
        self.retry = retry  # the same request may succeed later: a time-out, a busy server
        self.kind: Fault = kind  # for counting


Answer = tuple[Completion, ...] | CompletionError


class LanguageModel(Protocol):
    """Something that continues text."""

    @property
    def name(self) -> str: ...

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order: `sampling.n` completions, or why there are none.

        Raises HullwardError only where the set-up is broken and no request can succeed.
        """


class Scorer(Protocol):
    """A model that computes the likelihood of a text."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean natural log-probability a token of each (prompt, continuation)'s continuation."""
