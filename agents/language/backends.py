"""The language models of a campaign, opened from what its file says.

A model in this process is loaded when it is first asked, so that nothing waits for weights it does
not need; whether they are there and fit is known at the start. A server is not called on before
its first request: one that is down or wrong is counted request by request, and the operators that
need no model go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

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

# LLaMat's authors drew crystals at 0.9 and 0.9 (doi:10.1038/s42256-026-01199-8)
SAMPLING: dict[Role, Sampling] = {
    "crystal": Sampling(temperature=0.9, top_p=0.9, max_tokens=1024),
    "chat": Sampling(temperature=0.2, max_tokens=1024),
}
_FORM: dict[Role, PromptForm] = {"crystal": "plain", "chat": "server"}
BREEDING_TEMPERATURE = 0.7  # of a chat model that varies structures, where it plans more coolly


@dataclass(frozen=True, kw_only=True)
class ModelEndpoints:
    """Who is asked: `crystal` writes structures, `chat` plans, `variation_model` varies parents."""

    crystal: ModelEndpoint | None = None
    chat: ModelEndpoint | None = None
    variation_model: ModelEndpoint | None = None

    @classmethod
    def of(
        cls, crystal: ModelEndpoint | None = None, chat: ModelEndpoint | None = None
    ) -> ModelEndpoints:
        """The chat model also breeds, at the temperature that structures want."""
        if chat is None:
            return cls(crystal=crystal)
        warm = max(BREEDING_TEMPERATURE, chat.sampling.temperature)
        variation_model = replace(chat, sampling=replace(chat.sampling, temperature=warm))
        return cls(crystal=crystal, chat=chat, variation_model=variation_model)


def open_voices(campaign: Campaign, machine: Machine, store: Store) -> ModelEndpoints:
    """The models a campaign names, as far as anything in it asks them.

    Raises InputError for a recording that is none and PreflightError for a checkpoint that cannot
    be used, or nano's where it is not installed.
    """
    crystal = chat = None
    if campaign.asks_crystal:
        crystal = _voice("crystal", campaign.crystal, machine, store)
        asked = campaign.crystal
        nano = asked.kind == "nano" or asked.model in ("nano", NANO)
        form = asked.text_form or ("asymmetric" if nano else "cell")
        crystal = replace(
            crystal,
            samples=asked.samples,
            grammar=asked.grammar,
            text_form=form,
            flat_formulas=nano or asked.kind == "local",
            constrain=partial(constrain, form=form, server=asked.kind == "server"),
        )
    if not campaign.chat.absent:
        chat = replace(_voice("chat", campaign.chat, machine, store), grammar=True)
    return ModelEndpoints.of(crystal, chat)


def _voice(role: Role, backend: Backend, machine: Machine, store: Store) -> ModelEndpoint:
    card = model_card(backend.model) if backend.model in model_names() else None
    form = backend.format or (card.prompt_form if card else _FORM[role])
    reread = None
    model: LanguageModel
    if backend.recorded is not None:
        model = RecordedModel(backend.recorded, served=already_asked(store, role))
    elif backend.url is not None:
        key = machine.chat_api_key if role == "chat" else machine.crystal_api_key
        model, reread = _served(backend, form, key, store)
    elif backend.path is not None:
        from hullward.models.language import LocalModel

        model = LocalModel(backend.path)
    else:
        from hullward.models.language import LocalModel

        model = LocalModel(nano_folder())
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


def _served(
    backend: Backend, form: PromptForm, key: SecretStr | None, store: Store
) -> tuple[LanguageModel, Reread]:
    """A model behind a server: what comes back is journalled before it is read."""
    from hullward.models.serving import RawResponse, RetryPolicy, ServedModel, read_answer

    assert backend.url is not None
    assert backend.model is not None  # the settings see to it

    def journal(raw: RawResponse) -> None:
        store.add(
            [
                ModelResponse(
                    request_id=raw.request_id,
                    exchange=raw.exchange,
                    path=raw.path,
                    model=raw.model,
                    status=raw.status,
                    body=raw.body.decode("utf-8", "backslashreplace"),
                )
            ]
        )

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
        answer = read_answer(request, raw, response.model)
        broken = isinstance(answer, CompletionError) or any(one.fault for one in answer)
        if request.constraint is not None and request.constraint.kind == "json" and broken:
            return CompletionError("asked for again", retry=True)
        return answer

    model = ServedModel(
        backend.url,
        backend.model,
        form=form,
        api_key=key.get_secret_value() if key else None,
        patience=replace(RetryPolicy(), concurrency=backend.at_once),
        on_response=journal,
        context_tokens=backend.context_tokens,
        ask_again=isinstance(backend, CrystalBackend),  # a plan is asked for again by its planner
    )
    return model, reread


def _sampling(role: Role, backend: Backend, card: ModelCard | None) -> Sampling:
    """The role's defaults or, for a chat model we know, its own; with what the file changes."""
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


def already_asked(store: Store, role: Role) -> list[Request]:
    """The requests to a model that were answered by earlier processes, in their order."""
    asked = [r for r in store.load(ModelRequest) if r.backend == role]
    done = answered_ids(store, [r.request_id for r in asked])
    return [request_of_record(r) for r in asked if r.request_id in done]
