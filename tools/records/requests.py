"""Requests to language models and their answers, verbatim.

A request is stored before it is sent, a response before it is parsed. So no answer is lost to a
parsing error, and a campaign can be replayed without the model.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hullward.tools.records.base import Count, Record


class Wish(Record):
    """What a crystal is to be like; what is not given is left open.

    A request stores what its prompt names, and not the limits that only a grammar keeps.
    """

    formula: str | None = None
    elements: tuple[str, ...] = ()  # each of them and no other
    space_group: int | None = None
    e_above_hull_ev_per_atom: float | None = None
    masked: str | None = None  # the element of a parent that is to be replaced
    allowed: tuple[str, ...] = Field(default=(), exclude=True)  # limit: no other element
    max_atoms: int = Field(default=20, exclude=True)  # limit, of a cell

    @model_serializer(mode="wrap")
    def _given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if value not in (None, (), [])}


class ModelRequest(Record):
    """One prompt, with everything needed to send it again."""

    request_id: str
    campaign_id: str
    cycle: int = Field(ge=0)
    position: int = Field(ge=0)  # within the cycle, in the order of sending
    purpose: str  # an operator, or `brief` or `plan`
    backend: Literal["chat", "crystal"]
    model: str  # as the campaign names it
    system: str = ""
    prompt: str
    form: str  # the prompt form for system and prompt
    sampling: dict[str, Any] = Field(default_factory=dict)
    seed: int
    constraint: str = ""  # the constraint on the answer, in words
    plan_id: str | None = None
    parents: tuple[str, ...] = ()
    target_formula: str | None = None
    text_form: Literal["cell", "asymmetric"] = "cell"  # of the requested structures
    wish: Wish = Wish()
    memories: Count = 0  # lines of earlier outcomes in the prompt
    memories_left_out: Count = 0  # those that did not fit the context


class ModelResponse(Record):
    """A server's response as received, before parsing; one exchange of a request."""

    request_id: str
    exchange: int = Field(ge=0)
    path: str
    model: str
    status: int
    body: str  # bytes that are not UTF-8 as \\x..
    # what the server counted, whether the answer is of use or not
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    answered_by: str | None = None  # the model's name in the answer
    left_out: tuple[str, ...] = ()  # parameters that were not sent, since the server refuses them


class ModelAnswer(Record):
    """One completion, verbatim."""

    request_id: str
    index: int = Field(ge=0)
    text: str
    model: str  # name and revision of the model
    finish_reason: str
    prompt_tokens: Count | None = None  # of the request: the same for each of its answers
    completion_tokens: Count | None = None
    fault: str | None = None  # what is wrong with the text, if the server reports it


class ModelFailure(Record):
    """A request without a completion."""

    request_id: str
    kind: str  # of hullward.models.language.protocol.Fault
    message: str
    retry: bool  # whether the same request may succeed later
