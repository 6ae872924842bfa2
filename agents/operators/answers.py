"""From stored answers to proposals, one for every completion.

A text that does not parse is a proposal too, rejected with its reason, so rates divide by all that
a model wrote. The same stored answers give the same proposals.
"""

from __future__ import annotations

from collections.abc import Sequence

from hullward.agents.workspace import Workspace
from hullward.models.formulas import ELEMENTS
from hullward.models.language import without_thoughts
from hullward.tools.crystal import shorten
from hullward.tools.crystal.files import Format
from hullward.tools.crystal.text import CutCompletion, read_asymmetric, read_completion
from hullward.tools.records import (
    Flaw,
    ModelAnswer,
    ModelRequest,
    Proposal,
    Reason,
    Record,
    Rejection,
    Stage,
    stable_id,
)


def proposals_of(workspace: Workspace, requests: Sequence[ModelRequest]) -> list[Record]:
    """The proposals of stored answers in order, and a rejection for each without a structure."""
    answers: dict[str, list[ModelAnswer]] = {}
    for answer in workspace.store.load(ModelAnswer, [r.request_id for r in requests]):
        answers.setdefault(answer.request_id, []).append(answer)
    found: list[Record] = []
    for request in requests:
        for answer in sorted(answers.get(request.request_id, ()), key=lambda a: a.index):
            found += _proposal(workspace, request, answer)
    return found


def _proposal(workspace: Workspace, request: ModelRequest, answer: ModelAnswer) -> list[Record]:
    infill = request.purpose == "infill"
    completion = _filled_in(workspace, request, answer) if infill else _read(request, answer)
    proposal = Proposal(
        proposal_id=stable_id("x", request.request_id, answer.index),
        request_id=request.request_id,
        campaign_id=request.campaign_id,
        cycle=request.cycle,
        index=answer.index,
        operator=request.purpose,
        plan_id=request.plan_id,
        parents=request.parents,
        model=answer.model,
        prompt=request.prompt,
        sampling={
            **request.sampling,
            "finish_reason": answer.finish_reason,
            "cut_characters": completion.cut,
        },
        seed=request.seed,
        raw=completion.raw,
        format=_format(request, infill and completion.flaw is None),
        target_formula=request.target_formula,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )
    if completion.flaw is None:
        return [proposal]
    flaw = completion.flaw
    return [
        proposal,
        Rejection(
            proposal_id=proposal.proposal_id,
            stage=Stage.PARSE,
            reason=flaw.reason,
            detail=flaw.detail,
        ),
    ]


def _format(request: ModelRequest, built: bool) -> Format:
    if built:
        return "crystal_json"
    return "asymmetric_text" if request.text_form == "asymmetric" else "crystal_text"


def _read(request: ModelRequest, answer: ModelAnswer) -> CutCompletion:
    read = read_asymmetric if request.text_form == "asymmetric" else read_completion
    return read(answer.text, answer.finish_reason, answer.fault)


def _filled_in(workspace: Workspace, request: ModelRequest, answer: ModelAnswer) -> CutCompletion:
    """The parent with its masked element exchanged for the one the model named."""
    (parent_id,) = request.parents
    parent, masked = workspace.parent(parent_id), request.wish.masked
    words = without_thoughts(answer.text).split()
    if not words:
        return CutCompletion(
            raw=answer.text, flaw=Flaw(reason=Reason.EMPTY, detail="no element named")
        )
    symbol = words[0].strip(".,;:'\"`")
    if symbol not in ELEMENTS:
        detail = f"expected an element in place of {masked}, found {shorten(words[0])}"
        return CutCompletion(
            raw=answer.text, flaw=Flaw(reason=Reason.BAD_ELEMENT_LINE, detail=detail)
        )
    if parent is None:
        raise LookupError(f"parent {parent_id} of {request.request_id} is not stored")
    species = tuple(symbol if s == masked else s for s in parent.species)
    filled = parent.model_copy(update={"species": species})
    return CutCompletion(raw=filled.model_dump_json(), cut=len(answer.text) - len(symbol))
