"""Open the language models that a campaign file names.

Weights are checked at the start and loaded with the first request, so nothing waits for a model it
does not need. A server gets no call before its first request: if it is down, each request counts
as a failure and operators without a model go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from hullward.agents.language.grammars import constrain
from hullward.agents.language.requests import (
    ModelEndpoint,
    Reread,
    Role,
    answered_ids,
    request_of_record,
)
from hullward.agents.settings import Backend, Campaign, CrystalBackend, Machine
from hullward.models.devices import torch_devices
from hullward.models.language import (
    NANO,
    NANO_SAMPLING,
    Answer,
    CompletionError,
    LanguageModel,
    ModelCard,
    PromptForm,
    RecordedModel,
    Request,
    Sampling,
    model_card,
    model_names,
    nano_folder,
)
from hullward.tools.records import ModelRequest, ModelResponse
from hullward.tools.store import Store

if TYPE_CHECKING:
    from hullward.models.serving import RawResponse

# LLaMat's authors drew crystals at 0.9 and 0.9 (doi:10.1038/s42256-026-01199-8)
SAMPLING: dict[Role, Sampling] = {
    "crystal": Sampling(temperature=0.9, top_p=0.9, max_tokens=1024),
    "chat": Sampling(temperature=0.2, max_tokens=1024),
}
_FORM: dict[Role, PromptForm] = {"crystal": "plain", "chat": "server"}
VARIATION_TEMPERATURE = 0.7  # of a chat model that varies structures; it plans at a lower one


@dataclass(frozen=True, kw_only=True)
class ModelEndpoints:
    """Models by task: `crystal` writes structures, `chat` plans, the third varies parents."""

    crystal: ModelEndpoint | None = None
    chat: ModelEndpoint | None = None
    variation_model: ModelEndpoint | None = None

    @classmethod
    def of(
        cls, crystal: ModelEndpoint | None = None, chat: ModelEndpoint | None = None
    ) -> ModelEndpoints:
        """The endpoints; a chat model also varies parents, at a higher temperature."""
        if chat is None:
            return cls(crystal=crystal)
        warm = max(VARIATION_TEMPERATURE, chat.sampling.temperature)
        variation_model = replace(chat, sampling=replace(chat.sampling, temperature=warm))
        return cls(crystal=crystal, chat=chat, variation_model=variation_model)


def open_endpoints(campaign: Campaign, machine: Machine, store: Store) -> ModelEndpoints:
    """Open the models of a campaign that its operators or its planner ask.

    Raises InputError for a file that is no recording and PreflightError for a checkpoint that
    cannot be used, also nano's where it is not installed.
    """
    crystal = chat = None
    if campaign.asks_crystal:
        crystal = _endpoint("crystal", campaign.crystal, campaign.device, machine, store)
        backend = campaign.crystal
        nano = backend.kind == "nano" or backend.model in ("nano", NANO)
        form = backend.text_form or ("asymmetric" if nano else "cell")
        crystal = replace(
            crystal,
            samples=backend.samples,
            grammar=backend.grammar,
            text_form=form,
            flat_formulas=nano or backend.kind == "local",
            constrain=partial(constrain, form=form, server=backend.kind == "server"),
        )
    if not campaign.chat.absent:
        chat = replace(
            _endpoint("chat", campaign.chat, campaign.device, machine, store), grammar=True
        )
    return ModelEndpoints.of(crystal, chat)


def _endpoint(
    role: Role, backend: Backend, asked_device: str | None, machine: Machine, store: Store
) -> ModelEndpoint:
    """The endpoint; a model of this process runs on the first device asked for."""
    card = model_card(backend.model) if backend.model in model_names() else None
    form = backend.format or (card.prompt_form if card else _FORM[role])
    reread = None
    model: LanguageModel
    if backend.recorded is not None:
        model = RecordedModel(backend.recorded, served=answered_requests(store, role))
    elif backend.url is not None:
        key = machine.chat_api_key if role == "chat" else machine.crystal_api_key
        model, reread = _served(role, backend, form, key, store)
    elif backend.path is not None:
        from hullward.models.language import LocalModel

        model = LocalModel(backend.path, device=_first_device(machine, asked_device))
    else:
        from hullward.models.language import LocalModel

        model = LocalModel(nano_folder(), device=_first_device(machine, asked_device))
    return ModelEndpoint(
        role=role,
        label=backend.label,
        model=model,
        sampling=_sampling(role, backend, card),
        form=form,
        at_once=backend.at_once,
        context_tokens=backend.context_tokens or (card.context_tokens if card else None),
        constrain=partial(constrain, form="cell", server=backend.url is not None),
        reread=reread,
    )


def _first_device(machine: Machine, asked: str | None) -> str:
    return torch_devices(machine.device_for(asked))[0]


def _served(
    role: Role, backend: Backend, form: PromptForm, key: SecretStr | None, store: Store
) -> tuple[LanguageModel, Reread]:
    """A model behind a server, whose responses are stored before they are parsed."""
    from hullward.models.serving import (
        RawResponse,
        RetryPolicy,
        ServedModel,
        name_in,
        paid_tokens,
        read_answer,
    )

    assert backend.url is not None
    assert backend.model is not None  # checked by the settings

    first_name = _first_name(store, role)

    def journal(raw: RawResponse) -> None:
        store.add([_record_of(raw, *paid_tokens(raw), name_in(raw))])

    def reread(request: Request, response: ModelResponse) -> Answer:
        raw = RawResponse(
            request_id=response.request_id,
            exchange=response.exchange,
            path="completions" if response.path == "completions" else "chat/completions",
            model=response.model,
            asked="",
            status=response.status,
            body=response.body.encode(),
        )
        answer = read_answer(request, raw, response.model, first_name)
        broken = isinstance(answer, CompletionError) or any(one.fault for one in answer)
        if request.constraint is not None and request.constraint.kind == "json" and broken:
            return CompletionError("sent again", retry=True)
        return answer

    model = ServedModel(
        backend.url,
        backend.model,
        form=form,
        api_key=key.get_secret_value() if key else None,
        policy=replace(RetryPolicy(), concurrency=backend.at_once),
        on_response=journal,
        answered_as=first_name,
        ask_again=isinstance(backend, CrystalBackend),  # the planner repeats its own requests
    )
    return model, reread


def _record_of(
    raw: RawResponse, prompt_tokens: int | None, completion_tokens: int | None, name: str | None
) -> ModelResponse:
    return ModelResponse(
        request_id=raw.request_id,
        exchange=raw.exchange,
        path=raw.path,
        model=raw.model,
        status=raw.status,
        body=raw.body.decode("utf-8", "backslashreplace"),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        answered_by=name,
        left_out=raw.left_out,
    )


def _first_name(store: Store, role: Role) -> str | None:
    """The name of the model in the first answer that the store holds."""
    found = store.rows(
        "SELECT r.answered_by FROM responses r JOIN requests q USING (request_id) WHERE "
        "q.backend = ? AND r.status = 200 AND r.answered_by IS NOT NULL ORDER BY r.rowid LIMIT 1",
        [role],
    )
    return found[0]["answered_by"] if found else None


def _sampling(role: Role, backend: Backend, card: ModelCard | None) -> Sampling:
    """The sampling of the role or of a known chat model, with the changes of the file."""
    known = card.sampling if card is not None and role == "chat" else SAMPLING[role]
    if backend.kind == "nano" or backend.model in ("nano", NANO):
        known = NANO_SAMPLING
    if card is not None:
        known = replace(known, stop=card.stop)
    changes = {
        name: value
        for name in ("temperature", "top_p", "max_tokens")
        if (value := getattr(backend, name)) is not None
    }
    return replace(known, **changes)


def answered_requests(store: Store, role: Role) -> list[Request]:
    """The requests to a model that earlier processes answered, in their order."""
    records = [r for r in store.load(ModelRequest) if r.backend == role]
    done = answered_ids(store, [r.request_id for r in records])
    return [request_of_record(r) for r in records if r.request_id in done]
