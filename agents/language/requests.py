"""Asking language models: the request is stored first, every answer before anyone reads it.

A request has its id before anything is generated. Asked again, after a kill or in a replay, what
was answered is found in the store and not generated a second time; a request that failed stays
failed. So a cycle proposes the same whenever and however often it is carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hullward.models.language import (
    Answer,
    Completion,
    CompletionError,
    Constraint,
    LanguageModel,
    Message,
    PromptForm,
    Request,
    Sampling,
)
from hullward.tools.records import (
    ModelAnswer,
    ModelFailure,
    ModelRequest,
    ModelResponse,
    Record,
    Wish,
    stable_id,
)
from hullward.tools.store import Store

Role = Literal["chat", "crystal"]
SEEDS = 2**31  # servers take no larger ones

Constrain = Callable[[Wish], tuple[Constraint | None, str]]  # the constraint and its name
Reread = Callable[[Request, ModelResponse], Answer]


def unconstrained(wish: Wish) -> tuple[Constraint | None, str]:
    """No constraint, whatever the wish."""
    del wish
    return None, ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an operator or the planner wants to know, before it is a request."""

    prompt: str
    role: Role
    system: str = ""
    constraint: Constraint | None = None
    constraint_words: str = ""
    parents: tuple[str, ...] = ()
    target_formula: str | None = None
    wish: Wish = field(default_factory=Wish)
    memories: int = 0
    memories_left_out: int = 0
    too_long: str = ""  # set: it does not fit the context and is counted, not sent


@dataclass(frozen=True, kw_only=True)
class ModelEndpoint:
    """One language model of a campaign, and how it is asked."""

    role: Role
    label: str  # in ids and tables, the same wherever it is served
    model: LanguageModel
    sampling: Sampling
    form: PromptForm = "plain"  # of the prompts; `plain` is continued as it stands
    text_form: Literal["cell", "asymmetric"] = "cell"  # of the structures it writes
    flat_formulas: bool = False  # it is told 'Ca3P2O8' rather than 'Ca3(PO4)2'
    samples: int = 1  # completions a prompt
    grammar: bool = False  # whether constraints are sent
    at_once: int = 8
    context_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None
    constrain: Constrain = unconstrained
    reread: Reread | None = None  # for servers, whose responses are stored before they are read

    def room_for(self, system: str, prompt: str) -> bool:
        """Whether a prompt and its answer fit the context, as far as that is known."""
        if self.context_tokens is None:
            return True
        text = f"{system}\n{prompt}" if system else prompt
        # without a tokenizer: digits are a token each, so a character is at most about one
        tokens = self.count_tokens(text) if self.count_tokens else len(text)
        return tokens + self.sampling.max_tokens <= self.context_tokens


@dataclass(frozen=True, kw_only=True)
class RequestSlot:
    """Where in a campaign a request stands."""

    campaign_id: str
    cycle: int
    position: int
    purpose: str
    seed: int  # of the campaign
    plan_id: str | None = None


def request_of(
    place: RequestSlot, voice: ModelEndpoint, ask: Question, samples: int
) -> tuple[ModelRequest, Request]:
    """The record of a request and what is sent: its id says all that decides the answer."""
    seed = seed_of(place.seed, place.cycle, place.purpose, place.position)
    sampling = replace(voice.sampling, n=samples, seed=seed)
    said = {k: list(v) if k == "stop" else v for k, v in asdict(sampling).items() if k != "seed"}
    constraint = ask.constraint if voice.grammar else None
    words = (ask.constraint_words or constraint.kind) if constraint else ""
    request_id = stable_id(
        "q", place.campaign_id, place.cycle, place.purpose, place.position, ask.system, ask.prompt,
        voice.label, voice.form, said, seed, words,
    )  # fmt: skip
    record = ModelRequest(
        request_id=request_id,
        campaign_id=place.campaign_id,
        cycle=place.cycle,
        position=place.position,
        purpose=place.purpose,
        backend=voice.role,
        model=voice.label,
        system=ask.system,
        prompt=ask.prompt,
        form=voice.form,
        sampling=said,
        seed=seed,
        constraint=words,
        plan_id=place.plan_id,
        parents=ask.parents,
        target_formula=ask.target_formula,
        text_form=voice.text_form,
        wish=ask.wish,
        memories=ask.memories,
        memories_left_out=ask.memories_left_out,
    )
    return record, request_of_record(record, constraint)


def request_of_record(record: ModelRequest, constraint: Constraint | None = None) -> Request:
    """What is sent for a stored request: its prompt as it stands, or messages for another form."""
    said: dict[str, Any] = {**record.sampling, "stop": tuple(record.sampling.get("stop", ()))}
    sampling = Sampling(**said, seed=record.seed)
    if record.form == "plain":
        prompt = f"{record.system}\n{record.prompt}" if record.system else record.prompt
        return Request(
            request_id=record.request_id, prompt=prompt, sampling=sampling, constraint=constraint
        )
    system = (Message(role="system", content=record.system),) if record.system else ()
    return Request(
        request_id=record.request_id,
        messages=(*system, Message(role="user", content=record.prompt)),
        sampling=sampling,
        constraint=constraint,
    )


def seed_of(*parts: Any) -> int:
    """A seed that depends on these parts and nothing else."""
    return int(stable_id("s", *parts)[2:18], 16) % SEEDS


def complete_requests(
    store: Store,
    voice: ModelEndpoint,
    asked: Sequence[tuple[ModelRequest, Request, Question]],
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Get every request an answer or a failure, in order, storing each batch as it comes.

    Stops between batches where `stopping` says so. Raises HullwardError where the model's set-up
    is broken and no request could ever succeed.
    """
    store.add([record for record, _, _ in asked])
    ids = [record.request_id for record, _, _ in asked]
    done = answered_ids(store, ids)
    long = [(r, a) for r, _, a in asked if a.too_long and r.request_id not in done]
    store.add(
        ModelFailure(
            request_id=record.request_id, kind="context", message=ask.too_long, retry=False
        )
        for record, ask in long
    )
    done |= {record.request_id for record, _ in long}
    waiting = [request for record, request, _ in asked if record.request_id not in done]
    waiting = _read_again(store, voice, waiting)
    for start in range(0, len(waiting), voice.at_once):
        if stopping():
            return
        batch = waiting[start : start + voice.at_once]
        answers = voice.model.complete(batch)
        said: list[Record] = []
        for request, answer in zip(batch, answers, strict=True):
            said += _records(request, answer)
        store.add(said)
        progress(start + len(batch), len(waiting))


def _read_again(store: Store, voice: ModelEndpoint, waiting: Sequence[Request]) -> list[Request]:
    """Read what had come back when an earlier process ended; returns who must be asked still."""
    if voice.reread is None:
        return list(waiting)
    heard = store.load(ModelResponse, [request.request_id for request in waiting])
    last = {r.request_id: r for r in heard if r.status == 200}
    left: list[Request] = []
    said: list[Record] = []
    for request in waiting:
        response = last.get(request.request_id)
        answer = voice.reread(request, response) if response is not None else None
        if isinstance(answer, tuple) and len(answer) == request.sampling.n:
            said += _records(request, answer)
        else:
            left.append(request)
    store.add(said)
    return left


def answered_ids(store: Store, request_ids: Sequence[str]) -> set[str]:
    """Those of the requests that have all their answers or have failed."""
    ids = list(request_ids)
    heard = Counter(answer.request_id for answer in store.load(ModelAnswer, ids))
    failed = {failure.request_id for failure in store.load(ModelFailure, ids)}
    return failed | {
        record.request_id
        for record in store.load(ModelRequest, ids)
        if heard[record.request_id] >= record.sampling["n"]
    }


def _records(request: Request, answer: Sequence[Completion] | CompletionError) -> list[Record]:
    """What came of one request. Fewer completions than asked for is a failure, not a guess."""
    if isinstance(answer, CompletionError):
        return [
            ModelFailure(
                request_id=request.request_id,
                kind=answer.kind,
                message=storable(str(answer)),
                retry=answer.retry,
            )
        ]
    return [
        ModelAnswer(
            request_id=request.request_id,
            index=index,
            text=storable(completion.text),
            model=completion.model,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            fault=completion.fault,
        )
        for index, completion in enumerate(answer)
    ]


def storable(text: str) -> str:
    """Text that can be kept as UTF-8: half a surrogate pair is shown by its escape."""
    return text.encode("utf-8", "backslashreplace").decode()
