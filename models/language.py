"""What a language model is, whoever serves it: text in, text out, many requests at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "unknown"]  # unknown: the recording does not say


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw completions. Every value is sent as it stands; nothing is left to a server.

    Raises ValueError for values no model accepts.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    n: int = 1  # completions a request
    seed: int = 0
    stop: tuple[str, ...] = ()  # models trained on plain text run on: always name their ends

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.max_tokens < 1 or self.n < 1:
            raise ValueError(f"max_tokens and n must be 1 or more, got {self.max_tokens}, {self.n}")
        if "" in self.stop:
            raise ValueError("an empty stop string would end every completion at once")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt; the id is fixed by the caller before anything is generated."""

    request_id: str
    prompt: str
    sampling: Sampling = Sampling()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One text a model wrote, verbatim. Token counts are None where nobody counted."""

    text: str
    model: str  # name and revision of what wrote it
    finish_reason: FinishReason = "unknown"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class CompletionError(Exception):
    """A request that got no completion. Returned, not raised: the others of its batch go on."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry  # the same request may succeed later: a time-out, a busy server


Answer = tuple[Completion, ...] | CompletionError


class LanguageModel(Protocol):
    """Something that continues text."""

    @property
    def name(self) -> str: ...

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order: `sampling.n` completions, or why there are none.

        Raises HullwardError only where the set-up is broken and no request could ever succeed.
        """
        ...
