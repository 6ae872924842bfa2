"""A language model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, OpenAI, …

A request never raises for what a server does: it gets completions, or a CompletionError of a kind
that can be counted. The cost of a request is bounded: tokens are counted before anything is sent
where the server can count them, tries and waits have limits, and an answer that breaks its schema
is asked for once more, not twice.

The server is asked for its model at the start of every batch and after every failure, and the name
in its answers is compared with that of the first: another model than the first is not used.
Parameters that the server refuses are left out from then on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar
from urllib.parse import urlsplit

from hullward.models.errors import PreflightError
from hullward.models.language import (
    Answer,
    Completion,
    CompletionError,
    Fault,
    PromptForm,
    Request,
    parse_json,
)
from hullward.models.serving.answers import final_answer, name_in, read_answer, second_request
from hullward.models.serving.breaker import Breaker, RetryPolicy
from hullward.models.serving.connection import Connection
from hullward.models.serving.faults import ServerFaultError
from hullward.models.serving.parameters import Parameters
from hullward.models.serving.tokens import TokenCounts
from hullward.models.serving.wire import (
    SEEDS,
    Call,
    RawResponse,
    Served,
    call_for,
    probe_for,
)

T = TypeVar("T")

_NAMED = 20  # models of a list that a message names
_WITHOUT_LIST = (200, 400, 403, 404, 405, 501)  # statuses of servers without a list of models
# how OpenAI refuses one token to a model that thinks
_TOO_FEW_TOKENS = "output limit was reached"
_PROBE = Request(request_id="probe", prompt="1")


@dataclass
class _Batch:
    """What the requests of one call share, on one event loop."""

    connection: Connection
    gate: asyncio.Semaphore
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    identified: bool = False  # since the last failure


class ServedModel:
    """Completions from a server. One batch at a time: `complete` is not for many threads.

    url: up to and with /v1.  name: the model's name on its server.  form: how messages are put;
    `server` leaves it to the server's chat template.  stop: added to every request's own stop
    strings.  on_response: called with every raw answer before it is read, in the thread that
    called `complete`; what it raises ends the batch.  expected: the model of an earlier process;
    another one is not used.  answered_as: the name in the answers of an earlier process, likewise.
    ask_again: ask once more for an answer without use; False for a caller that does so itself.

    served: the model as the server first described it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        form: PromptForm = "server",
        stop: Sequence[str] = (),
        api_key: str | None = None,
        policy: RetryPolicy | None = None,
        on_response: Callable[[RawResponse], None] | None = None,
        expected: Served | None = None,
        answered_as: str | None = None,
        ask_again: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.served = expected
        self.answered_as = answered_as  # the name in the first answer
        self._form: PromptForm = form
        self._stop = tuple(stop)
        self._key = api_key
        self._policy = policy or RetryPolicy()
        self._on_response = on_response
        self._ask_again = ask_again
        self._counts = TokenCounts()
        self._parameters = Parameters()
        self._lists: tuple[str, ...] = ()  # the models listed, where ours is not
        self.breaker = Breaker(self._policy)
        self._jitter = random.Random(0)

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order. Inside a running event loop, await `acomplete`."""
        return asyncio.run(self.acomplete(requests))

    async def acomplete(self, requests: Sequence[Request]) -> list[Answer]:
        """As `complete`, inside a running event loop."""
        async with aclosing(self._connect()) as connection:
            batch = _Batch(connection, asyncio.Semaphore(self._policy.concurrency))
            tasks = [asyncio.ensure_future(self._answer(batch, r)) for r in requests]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    def check(self) -> Served:
        """Identify the server's model and ask it for one token.

        Raises PreflightError, one line, for a wrong address, a model it does not serve, a wrong
        key, or an engine that writes nothing.
        """

        async def probe(connection: Connection, served: Served) -> Served:
            await self._ask_for_token(connection, served)
            return served

        return self._identified(probe)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean natural log-probability a token of each (prompt, continuation)'s continuation.

        Raises PreflightError where the server does not give them (vLLM does), ValueError for a
        continuation without a token of its own.
        """

        async def score(connection: Connection, served: Served) -> list[float]:
            return [await _mean_logprob(connection, served, *pair) for pair in pairs]

        return self._identified(score)

    def _identified(self, use: Callable[[Connection, Served], Awaitable[T]]) -> T:
        """Identify the server and use it; raises PreflightError for its faults."""

        async def run() -> T:
            async with aclosing(self._connect()) as connection:
                return await use(connection, await self._identify(connection))

        try:
            return asyncio.run(run())
        except ServerFaultError as fault:
            raise PreflightError(str(fault)) from fault

    def _connect(self) -> Connection:
        return Connection(self.url, self._key, self._form, self._policy, self._on_response)

    async def _answer(self, batch: _Batch, request: Request) -> Answer:
        extra = tuple(s for s in self._stop if s not in request.sampling.stop)
        sampling = replace(request.sampling, stop=request.sampling.stop + extra)
        request = replace(request, sampling=sampling)
        exchanges = count()
        async with batch.gate:
            answer = await self._all_texts(batch, request, exchanges)
            second = second_request(request, answer) if self._ask_again else None
            if second is not None:
                answer = await self._all_texts(batch, second, exchanges)
        return final_answer(request, answer)

    async def _all_texts(self, batch: _Batch, request: Request, exchanges: count[int]) -> Answer:
        """All `n` completions: some servers ignore it and are asked for the others one by one."""
        answer = await self._exchange(batch, request, exchanges)
        if isinstance(answer, CompletionError):
            return answer
        for i in range(len(answer), request.sampling.n):
            single = replace(request.sampling, n=1, seed=(request.sampling.seed + i) % SEEDS)
            more = await self._exchange(batch, replace(request, sampling=single), exchanges)
            if isinstance(more, CompletionError):
                return more
            answer += more
        return answer

    async def _exchange(self, batch: _Batch, request: Request, exchanges: count[int]) -> Answer:
        """One answer within the tries of the policy; it may have fewer texts than asked for."""
        connection, policy = batch.connection, self._policy
        for tries in range(1, policy.tries + 1):
            try:
                served = await self._ready(batch)
                call = call_for(request, self._form, served, cloud=_is_cloud(self.url))
                await self._counts.require_room(connection, request, served)
                raw = await self._send(connection, call, request.request_id, exchanges)
            except ValueError as error:  # messages that the form cannot hold
                return CompletionError(str(error), retry=False, kind="refused")
            except ServerFaultError as fault:
                if fault.of_the_server:
                    batch.identified = False
                    self.breaker.failed()
                wait_s = policy.backoff(tries, fault.retry_after_s, self._jitter)
                last = tries == policy.tries
                if last or not fault.again or wait_s > policy.longest_wait_s:
                    return fault
                await asyncio.sleep(wait_s)
            else:
                self.breaker.answered()
                return self._read(batch, request, raw, served)
        raise AssertionError("every last try returns")

    def _read(
        self, batch: _Batch, request: Request, raw: RawResponse, served: Served
    ) -> tuple[Completion, ...] | CompletionError:
        answer = read_answer(request, raw, served.describe(), self.answered_as)
        if not isinstance(answer, CompletionError):
            self.answered_as = self.answered_as or name_in(raw)
        elif answer.kind == "identity":
            batch.identified = False
        return answer

    async def _send(
        self,
        connection: Connection,
        call: Call,
        request_id: str,
        exchanges: count[int],
        *,
        record: bool = True,
        limit_s: float | None = None,
    ) -> RawResponse:
        """The answer to a call without what the server refuses; each refusal costs an exchange."""
        while True:
            fitted = self._parameters.fitted(call)
            try:
                return await connection.send(
                    fitted, request_id, next(exchanges), record=record, limit_s=limit_s
                )
            except ServerFaultError as fault:
                if self._parameters.learn(fitted, fault):
                    continue
                if fault.status == 404 and self._lists:
                    names = ", ".join(self._lists[:_NAMED])
                    raise ServerFaultError("refused", f"{fault}; it lists {names}") from None
                raise

    async def _ask_for_token(self, connection: Connection, served: Served) -> None:
        """Ask for one token: an engine may be dead behind a server that answers all else.

        Raises ServerFaultError, also for an answer that no request could use.
        """
        call = probe_for(self._form, served, cloud=_is_cloud(self.url))
        limit_s = self._policy.probe_s
        try:
            raw = await self._send(
                connection, call, "probe", count(), record=False, limit_s=limit_s
            )
        except ServerFaultError as fault:
            if fault.kind == "refused" and _TOO_FEW_TOKENS in str(fault):
                return  # it thought, and wrote nothing yet
            raise
        answer = read_answer(_PROBE, raw, served.describe(), self.answered_as)
        if isinstance(answer, CompletionError):
            raise ServerFaultError(answer.kind, f"{self.url}: {answer}")

    async def _ready(self, batch: _Batch) -> Served:
        """Wait until the server may be asked; raises ServerFaultError when it may not."""
        if self.breaker.is_open or not batch.identified:
            async with batch.lock:  # one request asks for all
                while self.breaker.is_open:
                    await self._probe(batch)
                if not batch.identified:
                    await self._identify(batch.connection)
                    batch.identified = True
        assert self.served is not None
        return self.served

    async def _identify(self, connection: Connection) -> Served:
        """The server's model, remembered the first time and compared later.

        Raises ServerFaultError for another model, or none.
        """
        found = await self._listed(connection)
        served = _named(self.name, found)
        if served is None and not any(one.is_vllm for one in found):
            # a list may be partial, and llama.cpp answers to every name: the answer decides
            self._lists = tuple(one.model for one in found)
            served = Served(model=self.name)
        if served is None:
            names = ", ".join(one.model for one in found[:_NAMED]) or "nothing"
            kind: Fault = "refused" if self.served is None else "identity"
            message = f"{self.url} does not serve {self.name}; it serves {names}"
            raise ServerFaultError(kind, message)
        if self.served is not None and served != self.served:
            raise ServerFaultError(
                "identity",
                f"{self.url} serves another model under the name {self.name} than at the start: "
                f"{_difference(self.served, served)}; start the old one again, or a new campaign",
            )
        self.served = served
        return served

    async def _listed(self, connection: Connection) -> list[Served]:
        """The models that the server lists; [] from one without a list. Raises ServerFaultError."""
        try:
            return await connection.models()
        except ServerFaultError as fault:
            known = self.served is not None and self.served.is_vllm
            if known or fault.status not in _WITHOUT_LIST:
                raise
            return []

    async def _probe(self, batch: _Batch) -> None:
        """Wait for the next probe, or make it; raises ServerFaultError when the wait is over."""
        wait_s = self.breaker.until_probe_s()
        why = f"it failed {self._policy.breaker_failures} times in a row"
        if wait_s <= 0:
            self.breaker.probed()
            try:
                await self._ask_for_token(batch.connection, await self._identify(batch.connection))
            except ServerFaultError as fault:
                if not (fault.of_the_server or fault.kind == "busy"):
                    self.breaker.answered()  # alive, and wrong: every request gets this fault
                    raise
                why = str(fault)
            else:
                batch.identified = True
                self.breaker.answered()
        if self.breaker.gives_up:
            raise ServerFaultError("outage", f"{self.url} is out of order: {why}")
        if wait_s > 0:
            await asyncio.sleep(wait_s)


async def _mean_logprob(
    connection: Connection, served: Served, prompt: str, continuation: str
) -> float:
    """Mean natural log-probability a token of a text after its prompt.

    Raises ServerFaultError for the server's faults, PreflightError where it gives no
    log-probabilities, ValueError for a continuation without a token of its own.
    """
    before = await connection.tokenize({"model": served.model, "prompt": prompt})
    text = prompt + continuation
    asked = {"model": served.model, "prompt": text, "max_tokens": 1, "temperature": 0}
    call = Call(path="completions", arguments=asked, extra={"prompt_logprobs": 0})
    raw = await connection.send(call, "score", 0, record=False)
    try:
        rows = parse_json(raw.body)["choices"][0]["prompt_logprobs"]
        # the first token has none; with 0 asked for, a row holds the token itself alone
        values = [float(next(iter(row.values()))["logprob"]) for row in rows[before:]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
        values = None
    if before is None or values is None:
        raise PreflightError(f"{connection.url} gives no log-probabilities of a prompt; vLLM does")
    if not values:
        raise ValueError("the continuation has no token of its own")
    return sum(values) / len(values)


def _difference(old: Served, new: Served) -> str:
    """The first field in which two differ, then and now."""
    for name in ("root", "parent", "max_model_len", "is_vllm"):
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            return f"{name} was {was}, is {now}"
    return "nothing differs"


def _named(name: str, found: Sequence[Served]) -> Served | None:
    """The model of that name, or of the same but for its case and a ':latest'."""
    wanted = name.casefold().removesuffix(":latest")
    alike = (one for one in found if one.model.casefold().removesuffix(":latest") == wanted)
    return next((one for one in found if one.model == name), next(alike, None))


def _is_cloud(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(".openai.com")
