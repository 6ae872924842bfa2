"""Getting one answer from a server: who answers there, whether it is alive, tries and waits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from hullward.models.language import Answer, CompletionError, Fault, Request
from hullward.models.serving.breaker import Breaker, RetryPolicy
from hullward.models.serving.connection import Connection, ServerFaultError
from hullward.models.serving.tokens import TokenCounts
from hullward.models.serving.wire import Served, call_for, read_answer

_NOT_SENT: frozenset[Fault] = frozenset({"outage", "context", "identity"})


@dataclass
class Spent:
    """What a model has cost so far, in counts."""

    requests: int = 0
    exchanges: int = 0  # calls that were answered or failed
    asked_again: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    outages: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)  # of requests and of completions


@dataclass
class Batch:
    """What the requests of one call share, on one event loop."""

    line: Connection
    gate: asyncio.Semaphore
    lock: asyncio.Lock
    checked: bool = False  # who answers there was asked since the last failure


class RequestRunner:
    """Knows one model on one server. What it keeps outlives a batch and its event loop.

    served: the model as it answered first; another one is not used. chat: it has a chat template
    and may have nothing else.
    """

    def __init__(
        self, model: str, patience: RetryPolicy, counts: TokenCounts, expected: Served | None
    ) -> None:
        self.served = expected
        self.spent = Spent()
        self.breaker = Breaker(patience)
        self._model = model
        self._patience = patience
        self._counts = counts
        self._rng = random.Random(0)  # of the jitter only

    async def identify(self, line: Connection) -> Served:
        """Who answers there; the first time this is remembered, later compared.

        Raises ServerFaultError.
        """
        found = await line.models()
        served = next((one for one in found if one.model == self._model), None)
        if served is None:
            names = ", ".join(one.model for one in found) or "nothing"
            kind: Fault = "refused" if self.served is None else "identity"
            message = f"{line.url} does not serve {self._model}; it serves {names}"
            raise ServerFaultError(kind, message, retry=False)
        if self.served is not None and served != self.served:
            raise ServerFaultError(
                "identity",
                f"{line.url} serves another model under the name {self._model} than at the start: "
                f"{_differs(self.served, served)}; start the old one again, or a new campaign",
                retry=False,
            )
        self.served = served
        return served

    async def exchange(self, batch: Batch, request: Request, exchanges: count[int]) -> Answer:
        """One answer within the tries of our patience; there may be fewer texts than asked for."""
        for tries in range(1, self._patience.tries + 1):
            try:
                served = await self._ready(batch)
                cloud = _is_cloud(batch.line.url)
                call = call_for(request, batch.line.form, served, cloud=cloud)
                await self._counts.require_room(batch.line, request, served)
                raw = await batch.line.send(call, request.request_id, next(exchanges))
            except ValueError as error:  # messages that the form cannot hold
                return CompletionError(str(error), retry=False, kind="refused")
            except ServerFaultError as fault:
                self._failed(batch, fault)
                wait_s = self._patience.backoff(tries, fault.retry_after_s, self._rng)
                last = tries == self._patience.tries
                if last or not fault.retry or wait_s > self._patience.longest_wait_s:
                    return fault.as_error()
                await asyncio.sleep(wait_s)
            else:
                self.breaker.answered()
                answer = read_answer(request, raw, served.describe())
                self._pay(batch, answer)
                return answer
        raise AssertionError("every last try returns")

    async def _ready(self, batch: Batch) -> Served:
        """Wait until the server may be asked; raises ServerFaultError when it may not."""
        if self.breaker.is_open or not batch.checked:
            async with batch.lock:  # one asks for all
                while self.breaker.is_open:
                    await self._probe(batch)
                if not batch.checked:
                    await self.identify(batch.line)
                    batch.checked = True
        assert self.served is not None
        return self.served

    async def _probe(self, batch: Batch) -> None:
        """Wait for the next probe, or make it; raises ServerFaultError when nobody waits longer."""
        wait_s = self.breaker.until_probe_s()
        why = f"it failed {self._patience.breaker_failures} times in a row"
        if wait_s <= 0:
            self.breaker.probed()
            try:
                served = await self.identify(batch.line)
                await batch.line.probe(served)
            except ServerFaultError as fault:
                if not (fault.of_the_server or fault.kind == "busy"):
                    self.breaker.answered()  # alive, and wrong: every request will hear of it
                    raise
                why = str(fault)
            else:
                batch.checked = True
                self.breaker.answered()
        if self.breaker.gives_up:
            raise ServerFaultError(
                "outage", f"{batch.line.url} is out of order: {why}", retry=False
            )
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _failed(self, batch: Batch, fault: ServerFaultError) -> None:
        self.spent.exchanges += fault.kind not in _NOT_SENT
        if fault.of_the_server:
            batch.checked = False
            self.breaker.failed()
            self.spent.outages = self.breaker.times_opened

    def _pay(self, batch: Batch, answer: Answer) -> None:
        self.spent.exchanges += 1
        if not isinstance(answer, CompletionError):
            self.spent.prompt_tokens += answer[0].prompt_tokens or 0
            self.spent.completion_tokens += sum(c.completion_tokens or 0 for c in answer)
        elif answer.kind == "identity":
            batch.checked = False


def _differs(old: Served, new: Served) -> str:
    """The first thing in which two differ, then and now."""
    for name in ("root", "parent", "max_model_len", "is_vllm"):
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            return f"{name} was {was}, is {now}"
    return "nothing differs"


def _is_cloud(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(".openai.com")
