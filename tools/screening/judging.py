"""After relaxation: label again, give verdicts over the references and over the union hull."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hullward.tools.hull import Reference
from hullward.tools.records import Basis, Label, Proposal, Verdict
from hullward.tools.screening.labels import new_labels
from hullward.tools.screening.screen import Screen
from hullward.tools.screening.suspects import settle_pending
from hullward.tools.screening.verdicts import new_verdicts, union_verdicts


def judge_proposals(screen: Screen, proposals: Iterable[Proposal]) -> None:
    """Match relaxed structures again, judge them, and relax suspects a second time."""
    asked = {p.proposal_id for p in proposals}
    relaxed = screen.relaxed()
    rows = [(c.proposal_id, c.candidate_id, r.crystal) for c, r in relaxed if r.crystal is not None]
    labels = new_labels(rows, asked, screen.store.load(Label), screen.known, "after")
    screen.store.add([new for new in labels if new is not None])
    threshold = screen.basis.metastable_ev_per_atom
    stored = screen.verdicts("reference")
    new = new_verdicts(
        [(c, r) for c, r in relaxed if c.proposal_id in asked],
        stored.values(),
        screen.reference,
        screen.known,
        threshold,
        screen.card,
    )
    screen.store.add(new)
    verdicts = stored | {v.relaxation_id: v for v in new}
    if screen.second is not None:
        over_second = new_verdicts(
            [(c, r) for c, r in relaxed if r.relaxation_id in verdicts],
            screen.store.load(Verdict),
            screen.second.reference,
            screen.second.known,
            threshold,
            screen.card,
            second_look="not_needed",  # the first reference decides who is relaxed again
        )
        screen.store.add(over_second)
    settle_pending(screen, relaxed, verdicts)


def judge_union(screen: Screen) -> None:
    """Heights over reference ∪ this campaign's own phases, for everything judged so far."""
    first = screen.verdicts("reference")
    judged = [
        (c, r, first[r.relaxation_id]) for c, r in screen.relaxed() if r.relaxation_id in first
    ]
    threshold = screen.basis.metastable_ev_per_atom
    screen.store.add(union_verdicts(judged, screen.reference, threshold))


def over_reference(screen: Screen, basis: Basis, reference: Reference) -> Screen:
    """The same campaign on another reference, stored as its basis from now on."""
    screen.store.add([basis, *([screen.second.basis] if screen.second else [])])
    return replace(screen, basis=basis, reference=reference)
