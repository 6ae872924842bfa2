"""After relaxation: label again, give verdicts over the references."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hullward.models.crystal import Crystal
from hullward.tools.crystal import Match
from hullward.tools.hull import Reference
from hullward.tools.records import Basis, Candidate, Proposal, Relaxation
from hullward.tools.screening.labels import Unlabelled
from hullward.tools.screening.returned import returned_to_parents
from hullward.tools.screening.screen import (
    OVER_REFERENCE,
    PROPOSED_ORDER,
    RELAXED,
    Screen,
    whole_formulas,
)
from hullward.tools.screening.suspects import settle_pending
from hullward.tools.screening.verdicts import verdicts_over

BATCH = 500  # relaxations judged at once


def judge_proposals(screen: Screen, proposals: Sequence[Proposal]) -> None:
    """Match relaxed structures again, judge them, and relax suspects a second time."""
    asked = "c.proposal_id IN (SELECT unnest($ids::VARCHAR[]))"
    ids = [p.proposal_id for p in proposals]
    for rows in whole_formulas(_unjudged(screen, screen.reference, asked, ids=ids), BATCH):
        _judge(screen, rows)
    if screen.second is not None:
        _judge_over_second(screen)
    settle_pending(screen)


def _judge(screen: Screen, rows: Sequence[dict[str, Any]]) -> None:
    """Label relaxed structures and store verdicts over the reference."""
    pairs = screen.pairs([row["relaxation_id"] for row in rows])
    first_time = {row["relaxation_id"] for row in rows if not row["judged"]}
    known = _label(screen, pairs, first_time)
    threshold = screen.basis.metastable_ev_per_atom
    screen.store.add(verdicts_over(screen.reference, pairs, known, threshold, screen.card))


def label_judged(screen: Screen, proposals: Sequence[Proposal]) -> None:
    """Label relaxed candidates that are judged and lack a label, as a damaged journal leaves them.

    A candidate without a label may also be one that is like no other; it stays so.
    """
    rows = screen.store.rows(
        f"""SELECT r.relaxation_id FROM (FROM relaxations WHERE {RELAXED}) r
            JOIN candidates c USING (candidate_id) JOIN proposals p USING (proposal_id)
            WHERE c.proposal_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY {PROPOSED_ORDER}""",
        screen.relaxed_by | {"ids": [p.proposal_id for p in proposals]},
    )
    ids = [row["relaxation_id"] for row in rows]
    _label(screen, screen.pairs(ids), set(ids))


def _label(
    screen: Screen, pairs: Sequence[tuple[Candidate, Relaxation]], asked: Collection[str]
) -> dict[str, Match]:
    """Label those asked for that have no label; returns the known phases that all of them match.

    asked: relaxation ids, as are the keys of what is returned.
    """
    matches = {r.relaxation_id: screen.known.match_relaxed(_structure(r)) for _, r in pairs}
    known = {i: match for i, match in matches.items() if match is not None}
    returned = returned_to_parents(screen, pairs)
    for candidate, relaxation in pairs:
        if parent := returned.known.get(candidate.candidate_id):
            known.setdefault(relaxation.relaxation_id, Match(parent, None))
    new = [(c, r) for c, r in pairs if r.relaxation_id in asked]
    by_candidate = {c.candidate_id: known.get(r.relaxation_id) for c, r in new}
    phases = {i: match for i, match in by_candidate.items() if match is not None}
    labels = screen.relaxed_structures.labels(_unlabelled(screen, new), phases, returned.candidates)
    screen.store.add(labels)
    return known


def _judge_over_second(screen: Screen) -> None:
    """Judge what has a verdict by the second reference too; the first decides about suspects."""
    assert screen.second is not None
    reference, known_structures = screen.second.reference, screen.second.known
    judged = """r.relaxation_id IN (SELECT relaxation_id FROM verdicts WHERE height = 'reference'
        AND reference_id = $first AND reference_version = $first_version)"""
    first = {
        "first": screen.basis.reference_id,
        "first_version": screen.basis.reference_version,
    }
    for rows in whole_formulas(_unjudged(screen, reference, judged, **first), BATCH):
        pairs = screen.pairs([row["relaxation_id"] for row in rows])
        matches = {r.relaxation_id: known_structures.match(_structure(r)) for _, r in pairs}
        known = {i: match for i, match in matches.items() if match is not None}
        threshold = screen.basis.metastable_ev_per_atom
        screen.store.add(
            verdicts_over(reference, pairs, known, threshold, screen.card, second_look="not_needed")
        )


def _unjudged(
    screen: Screen, reference: Reference, condition: str, **parameters: Any
) -> list[dict[str, Any]]:
    """Converged relaxations without a verdict over a reference, in the order of proposing.

    Those too whose verdict waited for a hull that is there now; they are marked as judged.
    """
    rows = screen.store.rows(
        f"""SELECT r.relaxation_id, c.chemsys, c.formula, v.relaxation_id IS NOT NULL AS judged
            FROM (FROM relaxations WHERE {RELAXED}) r
            JOIN candidates c USING (candidate_id) JOIN proposals p USING (proposal_id)
            LEFT JOIN (FROM verdicts WHERE height = 'reference' AND {OVER_REFERENCE}) v
                USING (relaxation_id)
            WHERE (v.relaxation_id IS NULL OR v.label = 'hull_pending') AND {condition}
            ORDER BY {PROPOSED_ORDER}""",
        {
            **screen.relaxed_by,
            "reference": reference.reference_id,
            "version": reference.version,
            **parameters,
        },
    )
    lacking = {row["chemsys"] for row in rows if row["judged"]}
    lacking = {s for s in lacking if reference.lacking(frozenset(s.split("-")))}
    return [row for row in rows if not (row["judged"] and row["chemsys"] in lacking)]


def _unlabelled(screen: Screen, pairs: Sequence[tuple[Candidate, Relaxation]]) -> list[Unlabelled]:
    rows = screen.store.rows(
        """SELECT proposal_id FROM labels
           WHERE moment = 'after' AND proposal_id IN (SELECT unnest($ids::VARCHAR[]))""",
        {"ids": [candidate.proposal_id for candidate, _ in pairs]},
    )
    labelled = {row["proposal_id"] for row in rows}
    return [
        Unlabelled(c.formula, c.proposal_id, c.candidate_id, _structure(r), own=True)
        for c, r in pairs
        if c.proposal_id not in labelled
    ]


def _structure(relaxation: Relaxation) -> Crystal:
    assert relaxation.crystal is not None  # a converged relaxation has one
    return relaxation.crystal


def over_reference(screen: Screen, basis: Basis, reference: Reference) -> Screen:
    """The same campaign on another reference, stored as its basis from now on."""
    screen.store.add([basis, *([screen.second.basis] if screen.second else [])])
    return replace(screen, basis=basis, reference=reference)
