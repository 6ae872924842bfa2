"""A language model behind an OpenAI-compatible server: vLLM first of all, Ollama, llama.cpp, …

A request never raises for what a server does: it gets completions, or a CompletionError of a kind
that can be counted. What one request costs is bounded: tokens are counted before anything is sent
where the server or the caller can count them, tries and waits have limits, and an answer that
breaks its schema is asked for once more, not twice.

Which model answers is asked at the start of every batch and after every failure. Another one than
at the first time is not used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from hullward.models.errors import PreflightError
from hullward.models.language import Answer, CompletionError, Fault, Message, PromptForm, Request
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.connection import Connection, ServerFaultError
from hullward.models.serving.exchange import Batch, RequestRunner, Spent
from hullward.models.serving.tokens import TokenCounts
from hullward.models.serving.wire import RawResponse, Served

SEED_OF_SECOND = 1_000_003  # added for an answer asked for again
SEEDS = 2**31  # servers take no larger ones
_ASK_AGAIN: frozenset[Fault] = frozenset({"protocol", "encoding"})
_SAID_BACK = 2000  # characters of a wrong answer that are shown to the model
_PATIENCE = RetryPolicy()


class ServedModel:
    """Completions from a server. One batch at a time: `complete` is not for many threads.

    url: up to and with /v1.  model: its name there.  form: how messages are put; `server` leaves
    it to the server's chat template.  stop: added to every request's own stop strings.
    on_response: given every raw answer before it is read, in the thread that called `complete`;
    what it raises ends the batch.  expected: the model of an earlier process; another one is not
    used.  context_tokens, count_tokens: for servers that tell neither.  ask_again: an answer that
    nobody can use is asked for once more; False for a caller that does so itself.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        form: PromptForm = "server",
        stop: Sequence[str] = (),
        api_key: str | None = None,
        patience: RetryPolicy = _PATIENCE,
        on_response: Callable[[RawResponse], None] | None = None,
        expected: Served | None = None,
        context_tokens: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
        ask_again: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self._model = model
        self._form: PromptForm = form
        self._stop = tuple(stop)
        self._key = api_key
        self._patience = patience
        self._on_response = on_response
        self._ask_again = ask_again
        counts = TokenCounts(context_tokens, count_tokens)
        self._exchanger = RequestRunner(model, patience, counts, expected)

    @property
    def name(self) -> str:
        """The model's name on its server, the same wherever that is."""
        return self._model

    @property
    def served(self) -> Served | None:
        """Who answered there; None before anyone was asked."""
        return self._exchanger.served

    @property
    def spent(self) -> Spent:
        """A copy of the counts so far."""
        spent = self._exchanger.spent
        return replace(spent, faults=spent.faults.copy())

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order. Inside a running event loop, await `acomplete`."""
        return asyncio.run(self.acomplete(requests))

    async def acomplete(self, requests: Sequence[Request]) -> list[Answer]:
        """As `complete`, for who has an event loop already."""
        async with self._line() as line:
            gate = asyncio.Semaphore(self._patience.concurrency)
            batch = Batch(line=line, gate=gate, lock=asyncio.Lock())
            tasks = [asyncio.ensure_future(self._answer(batch, r)) for r in requests]
            try:
                answers = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        self._count(answers)
        return list(answers)

    def check(self) -> Served:
        """Ask the server who it is and for one token.

        Raises PreflightError, one line, for a wrong address, a model it does not serve, a wrong
        key, or an engine that writes nothing.
        """

        async def ask() -> Served:
            async with self._line() as line:
                served = await self._exchanger.identify(line)
                await line.probe(served)
                return served

        try:
            return asyncio.run(ask())
        except ServerFaultError as fault:
            raise PreflightError(str(fault)) from fault

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean natural log-probability a token of each (prompt, continuation)'s continuation.

        Raises PreflightError where the server does not tell them (vLLM does), ValueError for a
        continuation without a token of its own.
        """
        from hullward.models.serving.score import score_pairs

        async def ask() -> list[float]:
            async with self._line() as line:
                await self._exchanger.identify(line)
                return await score_pairs(line, self._model, pairs)

        try:
            return asyncio.run(ask())
        except ServerFaultError as fault:
            raise PreflightError(str(fault)) from fault

    def _line(self) -> Connection:
        return Connection(self.url, self._key, self._form, self._patience, self._on_response)

    async def _answer(self, batch: Batch, request: Request) -> Answer:
        extra = tuple(s for s in self._stop if s not in request.sampling.stop)
        sampling = replace(request.sampling, stop=request.sampling.stop + extra)
        request = replace(request, sampling=sampling)
        exchanges = count()
        async with batch.gate:
            answer = await self._all_texts(batch, request, exchanges)
            again = _second(request, answer) if self._ask_again else None
            if again is not None:
                self._exchanger.spent.asked_again += 1
                answer = await self._all_texts(batch, again, exchanges)
        return _final(request, answer)

    async def _all_texts(self, batch: Batch, request: Request, exchanges: count[int]) -> Answer:
        """All `n` completions: some servers ignore it and are asked for the others one by one."""
        answer = await self._exchanger.exchange(batch, request, exchanges)
        if isinstance(answer, CompletionError):
            return answer
        for i in range(len(answer), request.sampling.n):
            single = replace(request.sampling, n=1, seed=(request.sampling.seed + i) % SEEDS)
            more = await self._exchanger.exchange(
                batch, replace(request, sampling=single), exchanges
            )
            if isinstance(more, CompletionError):
                return more
            answer += more
        return answer

    def _count(self, answers: Sequence[Answer]) -> None:
        spent = self._exchanger.spent
        spent.requests += len(answers)
        for answer in answers:
            if isinstance(answer, CompletionError):
                spent.faults[answer.kind] += 1
            else:
                spent.faults.update(c.fault for c in answer if c.fault)


def _second(request: Request, answer: Answer) -> Request | None:
    """The same question once more, for an answer that nobody can use; None for others."""
    seed = (request.sampling.seed + SEED_OF_SECOND) % SEEDS
    second = replace(request, sampling=replace(request.sampling, seed=seed))
    if isinstance(answer, CompletionError):
        return second if answer.kind in _ASK_AGAIN else None
    if _usable(request, answer):
        return None
    constraint, said = request.constraint, answer[0]
    if constraint is None or not request.messages:
        return second
    flaw = constraint.flaw(said.text) or f"the answer was {said.fault}"
    correction = f"That answer cannot be used: {flaw}. Give the JSON object alone, complete."
    turns = (
        Message(role="assistant", content=said.text[:_SAID_BACK] or "…"),
        Message(role="user", content=correction),
    )
    return replace(second, messages=(*request.messages, *turns))


def _final(request: Request, answer: Answer) -> Answer:
    """A text that breaks its schema is no answer; a crystal is judged by its parser."""
    if isinstance(answer, CompletionError) or _usable(request, answer):
        return answer
    fault: Fault = answer[0].fault or "unfit"
    flaw = request.constraint and request.constraint.flaw(answer[0].text)
    return CompletionError(f"the answer is {fault}: {flaw}", retry=False, kind=fault)


def _usable(request: Request, answer: Answer) -> bool:
    """Whether one of the texts keeps to its schema; without a schema any text will do."""
    if request.constraint is None or request.constraint.kind != "json":
        return True
    return not isinstance(answer, CompletionError) and any(one.fault is None for one in answer)
