"""Before relaxation: parse and check proposals, and label what is known or was proposed before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from hullward.tools.screening.labels import Unlabelled
from hullward.tools.screening.screen import PROPOSED_ORDER, Screen, whole_formulas

STORE_BATCH = 500  # records a journal write


def check_proposals(
    screen: Screen, proposals: Sequence[Proposal], *, parse_only: bool = False
) -> None:
    """Parse and check: every proposal becomes a candidate or a rejection.

    parse_only: reject what does not parse, and leave the rest waiting.
    """
    waiting = screen.store.rows(
        """SELECT proposal_id FROM proposals ANTI JOIN rejections USING (proposal_id)
           WHERE candidate_id IS NULL AND proposal_id IN (SELECT unnest($ids::VARCHAR[]))""",
        {"ids": [p.proposal_id for p in proposals]},
    )
    unchecked = {row["proposal_id"] for row in waiting}
    todo = [p for p in proposals if p.proposal_id in unchecked]
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
    """Match candidates with known phases and with this campaign, before relaxing them.

    Labels candidates of these proposals that have no label and no relaxation yet, formula by
    formula, so that it is complete for each formula whenever it stops.
    """
    waiting = _unlabelled(screen, proposals)
    done = 0
    for rows in whole_formulas(waiting, STORE_BATCH):
        screen.store.add(_labels(screen, rows))
        done += len(rows)
        screen.hooks.progress("match", done, len(waiting))
        if screen.hooks.stopping():
            return


def _unlabelled(screen: Screen, proposals: Sequence[Proposal]) -> list[dict[str, Any]]:
    """Candidates to label, by id and formula, in the order of proposing."""
    return screen.store.rows(
        f"""SELECT p.proposal_id, p.candidate_id, c.formula, c.chemsys,
                p.proposal_id = c.proposal_id AS own
            FROM proposals p JOIN candidates c USING (candidate_id)
            ANTI JOIN (FROM labels WHERE moment = 'before') l ON l.proposal_id = p.proposal_id
            LEFT JOIN (SELECT DISTINCT candidate_id FROM relaxations) r
                ON r.candidate_id = p.candidate_id
            WHERE p.proposal_id IN (SELECT unnest($ids::VARCHAR[]))
                AND (r.candidate_id IS NULL OR p.proposal_id <> c.proposal_id)
            ORDER BY {PROPOSED_ORDER}""",
        {"ids": [p.proposal_id for p in proposals]},
    )


def _labels(screen: Screen, rows: Sequence[dict[str, Any]]) -> list[Label]:
    ids = {row["candidate_id"] for row in rows}
    crystals = {c.candidate_id: c.crystal for c in screen.store.load(Candidate, ids)}
    new = [
        Unlabelled(
            row["formula"],
            row["proposal_id"],
            row["candidate_id"],
            crystals[row["candidate_id"]],
            row["own"],
        )
        for row in rows
    ]
    matches = {row.candidate_id: screen.known.match_proposed(row.crystal) for row in new if row.own}
    known = {i: match for i, match in matches.items() if match is not None}
    return screen.proposed_structures.labels(new, known)
