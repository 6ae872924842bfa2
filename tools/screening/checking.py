"""Before relaxation: parse and check proposals, and label what is known or was proposed before."""

from __future__ import annotations

from collections.abc import Sequence

from hullward.tools.crystal.files import CifReader, parse_raw
from hullward.tools.records import (
    Candidate,
    Flaw,
    Label,
    Proposal,
    Record,
    Rejection,
    Stage,
)
from hullward.tools.screening import validate
from hullward.tools.screening.labels import new_labels
from hullward.tools.screening.screen import Screen

STORE_BATCH = 500  # records a journal write


def check_proposals(
    screen: Screen, proposals: Sequence[Proposal], *, parse_only: bool = False
) -> None:
    """Parse and check: every proposal becomes a candidate or a rejection.

    parse_only: reject what does not parse, and leave the rest waiting.
    """
    done = {r.proposal_id for r in screen.store.load(Rejection)} | screen.candidates().keys()
    todo = [p for p in proposals if p.proposal_id not in done]
    batch: list[Record] = []
    with CifReader() as reader:
        for count, proposal in enumerate(todo, start=1):
            result = _check_one(screen, proposal, reader, parse_only)
            if result is not None:
                batch.append(result)
            if count % STORE_BATCH == 0 or count == len(todo):
                screen.store.add(batch)
                batch = []
                screen.hooks.progress("check", count, len(todo))
                if screen.hooks.stopping():
                    return


def _check_one(
    screen: Screen, proposal: Proposal, reader: CifReader, parse_only: bool
) -> Candidate | Rejection | None:
    crystal = parse_raw(proposal.raw, proposal.format, reader)
    if isinstance(crystal, Flaw):
        return _rejection(proposal, Stage.PARSE, crystal)
    if parse_only:
        return None
    facts = validate.check_crystal(crystal, screen.limits, screen.card.elements)
    if isinstance(facts, Flaw):
        return _rejection(proposal, Stage.CHECK, facts)
    return validate.candidate(proposal.proposal_id, crystal, facts)


def _rejection(proposal: Proposal, stage: Stage, flaw: Flaw) -> Rejection:
    return Rejection(
        proposal_id=proposal.proposal_id, stage=stage, reason=flaw.reason, detail=flaw.detail
    )


def label_candidates(screen: Screen, proposals: Sequence[Proposal]) -> None:
    """Match candidates with known phases and with this campaign, before relaxing them."""
    candidates = screen.candidates()
    rows = [
        (i, candidates[i].candidate_id, candidates[i].crystal) for i in screen.order(candidates)
    ]
    asked = {p.proposal_id for p in proposals}
    found: list[Record] = []
    labels = new_labels(rows, asked, screen.store.load(Label), screen.known, "before")
    for count, new in enumerate(labels, start=1):
        if new is not None:
            found.append(new)
        if count % 100 == 0 or count == len(rows):
            screen.hooks.progress("match", count, len(rows))
            if screen.hooks.stopping():
                break
    screen.store.add(found)
