"""From questions to stored requests and stored answers.

A request has its id and is stored before it is sent; an answer is stored before it is parsed. After
a kill or in a replay, stored answers are not generated again, and a failed request stays failed. So
a cycle proposes the same however often it is carried out.
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
    TextForm,
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
    """What an operator or the planner asks a model; a request is made from it."""

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
    too_long: str = ""  # why it does not fit the context: it is counted and not sent


@dataclass(frozen=True, kw_only=True)
class ModelEndpoint:
    """One language model of a campaign, and how to ask it."""

    role: Role
    label: str  # in ids and tables, the same wherever it is served
    model: LanguageModel
    sampling: Sampling
    form: PromptForm = "plain"  # of the prompts; the model continues a `plain` one
    text_form: TextForm = "cell"  # of the structures it writes
    flat_formulas: bool = False  # its prompts have 'Ca3P2O8' rather than 'Ca3(PO4)2'
    samples: int = 1  # completions a prompt
    grammar: bool = False  # whether constraints are sent
    at_once: int = 8
    context_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None
    constrain: Constrain = unconstrained
    reread: Reread | None = None  # for servers: parses a stored response

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
    """The place of a request in a campaign."""

    campaign_id: str
    cycle: int
    position: int
    purpose: str
    seed: int  # of the campaign
    plan_id: str | None = None


def request_of(
    slot: RequestSlot, endpoint: ModelEndpoint, question: Question, samples: int
) -> tuple[ModelRequest, Request]:
    """The record of a request and what is sent; all that decides the answer enters the id."""
    seed = seed_of(slot.seed, slot.cycle, slot.purpose, slot.position)
    sampling = replace(endpoint.sampling, n=samples, seed=seed)
    fields = {k: list(v) if k == "stop" else v for k, v in asdict(sampling).items() if k != "seed"}
    constraint = question.constraint if endpoint.grammar else None
    words = (question.constraint_words or constraint.kind) if constraint else ""
    request_id = stable_id(
        "q", slot.campaign_id, slot.cycle, slot.purpose, slot.position,
        question.system, question.prompt,
        endpoint.label, endpoint.form, fields, seed, words,
    )  # fmt: skip
    record = ModelRequest(
        request_id=request_id,
        campaign_id=slot.campaign_id,
        cycle=slot.cycle,
        position=slot.position,
        purpose=slot.purpose,
        backend=endpoint.role,
        model=endpoint.label,
        system=question.system,
        prompt=question.prompt,
        form=endpoint.form,
        sampling=fields,
        seed=seed,
        constraint=words,
        plan_id=slot.plan_id,
        parents=question.parents,
        target_formula=question.target_formula,
        text_form=endpoint.text_form,
        wish=question.wish,
        memories=question.memories,
        memories_left_out=question.memories_left_out,
    )
    return record, request_of_record(record, constraint)


def request_of_record(record: ModelRequest, constraint: Constraint | None = None) -> Request:
    """What is sent for a stored request: a plain prompt, or messages for other forms."""
    stored: dict[str, Any] = {**record.sampling, "stop": tuple(record.sampling.get("stop", ()))}
    sampling = Sampling(**stored, seed=record.seed)
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
    endpoint: ModelEndpoint,
    asked: Sequence[tuple[ModelRequest, Request, Question]],
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Store an answer or a failure for every request, in order, one batch after the other.

    Ends between two batches when `stopping()` is true. Raises HullwardError where the model cannot
    be used at all, so that no request could succeed.
    """
    store.add([record for record, _, _ in asked])
    ids = [record.request_id for record, _, _ in asked]
    done = answered_ids(store, ids)
    long = [(r, q) for r, _, q in asked if q.too_long and r.request_id not in done]
    store.add(
        ModelFailure(
            request_id=record.request_id, kind="context", message=question.too_long, retry=False
        )
        for record, question in long
    )
    done |= {record.request_id for record, _ in long}
    waiting = [request for record, request, _ in asked if record.request_id not in done]
    waiting = _read_responses(store, endpoint, waiting)
    for start in range(0, len(waiting), endpoint.at_once):
        if stopping():
            return
        batch = waiting[start : start + endpoint.at_once]
        answers = endpoint.model.complete(batch)
        store.add(
            record
            for request, answer in zip(batch, answers, strict=True)
            for record in _records(request, answer)
        )
        progress(start + len(batch), len(waiting))


def _read_responses(
    store: Store, endpoint: ModelEndpoint, waiting: Sequence[Request]
) -> list[Request]:
    """Read responses that an earlier process stored; return the requests still to be sent."""
    if endpoint.reread is None:
        return list(waiting)
    responses = store.load(ModelResponse, [request.request_id for request in waiting])
    last = {r.request_id: r for r in responses if r.status == 200}
    left: list[Request] = []
    read: list[Record] = []
    for request in waiting:
        response = last.get(request.request_id)
        answer = endpoint.reread(request, response) if response is not None else None
        if isinstance(answer, tuple) and len(answer) == request.sampling.n:
            read += _records(request, answer)
        else:
            left.append(request)
    store.add(read)
    return left


def answered_ids(store: Store, request_ids: Sequence[str]) -> set[str]:
    """The ids of those requests that have all their answers or have failed."""
    ids = list(request_ids)
    answers = Counter(answer.request_id for answer in store.load(ModelAnswer, ids))
    failed = {failure.request_id for failure in store.load(ModelFailure, ids)}
    return failed | {
        record.request_id
        for record in store.load(ModelRequest, ids)
        if answers[record.request_id] >= record.sampling["n"]
    }


def _records(request: Request, answer: Sequence[Completion] | CompletionError) -> list[Record]:
    """The answers of one request, or its failure."""
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
    """Text that UTF-8 can hold: half a surrogate pair is replaced by its escape."""
    return text.encode("utf-8", "backslashreplace").decode()
