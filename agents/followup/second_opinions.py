"""Second opinions on a campaign's short list, then on its suspects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hullward.agents.settings import Machine, SecondOpinionSettings, read_machine
from hullward.agents.workspace import make_screen, stored_settings
from hullward.models.errors import HullwardError, InputError
from hullward.models.potential import potential_card
from hullward.tools.records import Candidate, Relaxation, SecondOpinion
from hullward.tools.report import write_report
from hullward.tools.screening import (
    Screen,
    confirm_suspects,
    judge_union,
    store_diagrams,
    unconverged_suspects,
)
from hullward.tools.store import SHORT_LIST, SHORT_LIST_ORDER, Store
from hullward.tools.uncertainty import SecondPotential, ask_second_potential

BATCH = 100  # candidates read at once


@dataclass(frozen=True)
class OpinionHeight:
    """The heights of one candidate by the campaign's potential and by another, eV/atom."""

    candidate_id: str
    formula: str
    first_ev_per_atom: float | None
    second_ev_per_atom: float | None
    disputed: bool | None
    note: str  # why a number is missing

    def cells(self) -> tuple[str, ...]:
        """The columns of a line for people."""
        first, second = self.first_ev_per_atom, self.second_ev_per_atom
        gap = None if first is None or second is None else second - first
        numbers = ("—" if value is None else f"{value:+.3f}" for value in (first, second, gap))
        word = {True: "disputed", False: "agreed", None: "no comparison"}[self.disputed]
        words = f"{word}: {self.note}" if self.note else word
        return (self.candidate_id[:10], self.formula, *numbers, words)


@dataclass(frozen=True)
class OpinionSummary:
    """The counts of one round of second opinions."""

    potential: str
    first_potential: str  # the campaign's own
    heights: tuple[OpinionHeight, ...]  # in the order asked
    asked: int
    asked_suspects: int
    asked_unconverged: int  # of these, the campaign's own potential never converged
    disputed: int
    no_answer: int
    force_calls: int
    confirmed: int  # suspects taken back
    moved: tuple[str, ...]  # candidate ids that fell behind on the short list
    exhausted: bool
    empty: bool  # there was nothing to ask about

    def lines(self) -> list[str]:
        """The summary in sentences."""
        if self.empty:
            return [f"no opinion by {self.potential}: short list and suspects are empty"]
        table = []
        titles = ("candidate", "formula", self.first_potential, self.potential, "difference", "")
        if self.heights:
            table = [
                "heights above what the candidate decomposes into, eV/atom, each potential with "
                "its own energies:",
                *_columns([titles, *(height.cells() for height in self.heights)]),
            ]
        lines = [
            *table,
            f"{self.potential} gave opinions on {self.asked} of the short list and "
            f"{self.asked_suspects} suspects ({self.asked_unconverged} of which never converged), "
            f"{self.force_calls:,} force calls",
            f"disputed: {self.disputed}; no answer: {self.no_answer}; suspects confirmed: "
            f"{self.confirmed}",
        ]
        if self.moved:
            lines.append("fell behind on the short list: " + ", ".join(self.moved))
        if self.exhausted:
            lines.append("the budget of force calls is spent; raise max_force_calls to go on")
        return lines


def opinions_of(
    directory: Path,
    wanted: SecondOpinionSettings,
    workers: int | None,
    machine: Machine | None = None,
) -> OpinionSummary:
    """Take second opinions on a stored campaign, and write its report again.

    machine: None for the one that the environment describes.
    """
    with Store.open(directory, command="opinion") as store:
        settings = stored_settings(store, None)
        screen = make_screen(store, settings, machine or read_machine(), workers)
        summary = take_opinions(screen, wanted)
        store.publish()
        write_report(directory)
    return summary


def close_with_opinions(
    screen: Screen, wanted: SecondOpinionSettings | None, notes: Callable[[str], None]
) -> None:
    """Take the opinions that a campaign wants at its end; a failure is noted and stops nothing."""
    if wanted is None:
        return
    try:
        with screen.hooks.timed("second opinion"):
            take_opinions(screen, wanted, notes)
    except HullwardError as error:
        notes(f"no second opinion: {error}")


def take_opinions(
    screen: Screen,
    wanted: SecondOpinionSettings,
    notes: Callable[[str], None] = lambda line: None,
) -> OpinionSummary:
    """Take second opinions, store them, and confirm suspects. Done twice, it adds nothing.

    Raises InputError where the second potential is the first one, PreflightError where it cannot
    be loaded.
    """
    card = potential_card(wanted.potential)
    if card.weights_sha256 == screen.basis.potential_sha256:
        raise InputError(
            f"second_opinion: {card.name} is the campaign's own potential; name another one"
        )
    before = _candidate_ids(screen.store, SHORT_LIST)
    suspects = _candidate_ids(screen.store, "suspect AND state = 'judged'")
    second = SecondPotential(
        potential=wanted.potential,
        protocol=screen.basis.protocol,
        reference=screen.reference,
        margin_ev_per_atom=wanted.margin_ev_per_atom,
        max_force_calls=wanted.max_force_calls,
        executor=screen.executor,
        stopping=screen.hooks.stopping,
    )
    listed = ask_second_potential(second, _relaxed(screen, before), wanted.top)
    odd = second.ask(list(_relaxed(screen, suspects)))
    unconverged = [second.ask_unconverged(*one) for one in unconverged_suspects(screen)]
    opinions = [*listed, *odd, *unconverged]
    screen.store.add(opinions)
    confirmed = _confirm(screen, card.name, odd)
    after = _candidate_ids(screen.store, SHORT_LIST)
    place = {candidate_id: number for number, candidate_id in enumerate(after)}
    behind = {i for number, i in enumerate(before) if place.get(i, -1) > number}
    disputed = {o.relaxation_id for o in listed if o.disputed}
    summary = OpinionSummary(
        potential=card.name,
        first_potential=screen.basis.potential,
        heights=_heights(screen, opinions),
        asked=len(listed),
        asked_suspects=len(odd) + len(unconverged),
        asked_unconverged=len(unconverged),
        disputed=sum(bool(o.disputed) for o in opinions),
        no_answer=sum(o.disputed is None for o in opinions),
        force_calls=second.spent,
        confirmed=confirmed,
        moved=tuple(
            c.candidate_id
            for c, r in _relaxed(screen, [i for i in before if i in behind])
            if r.relaxation_id in disputed
        ),
        exhausted=second.exhausted,
        empty=not opinions and not before and not suspects,
    )
    for line in summary.lines():
        notes(line)
    return summary


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines with aligned columns, all but the first two and the last to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            text.rjust(width) if 1 < place < last else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _heights(screen: Screen, opinions: Sequence[SecondOpinion]) -> tuple[OpinionHeight, ...]:
    """Both heights of every candidate asked about, in that order."""
    ids = [one.relaxation_id for one in opinions]
    rows = screen.store.rows(
        """SELECT r.relaxation_id, c.candidate_id, c.formula
           FROM relaxations r JOIN candidates c USING (candidate_id)
           WHERE list_contains($ids, r.relaxation_id)""",
        {"ids": ids},
    )
    of = {row["relaxation_id"]: row for row in rows}
    return tuple(
        OpinionHeight(
            candidate_id=of[one.relaxation_id]["candidate_id"],
            formula=of[one.relaxation_id]["formula"],
            first_ev_per_atom=one.first_ev_per_atom,
            second_ev_per_atom=one.second_ev_per_atom,
            disputed=one.disputed,
            note=one.failure,
        )
        for one in opinions
    )


def _relaxed(screen: Screen, ids: Sequence[str]) -> Iterator[tuple[Candidate, Relaxation]]:
    """Candidates with their converged relaxations, in the order given, read as they are needed."""
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        pairs = {c.candidate_id: (c, r) for c, r in screen.relaxed(some)}
        yield from (pairs[i] for i in some if i in pairs)


def _candidate_ids(store: Store, condition: str) -> list[str]:
    query = f"SELECT candidate_id FROM results WHERE {condition} ORDER BY {SHORT_LIST_ORDER}"
    return [str(row["candidate_id"]) for row in store.rows(query)]


def _confirm(screen: Screen, name: str, opinions: list[SecondOpinion]) -> int:
    """Take back suspects whose rattle came back and whom another kind of potential agrees with.

    A sibling of the first potential learnt from the same data with the same network and may share
    its mistakes, so its agreement confirms nothing.
    """
    if name.split("-")[0] == screen.basis.potential.split("-")[0]:
        return 0
    confirmed = confirm_suspects(
        screen,
        {o.relaxation_id for o in opinions if o.kind == "decomposition" and o.disputed is False},
    )
    if confirmed:
        judge_union(screen)
        store_diagrams(screen)
    return confirmed
