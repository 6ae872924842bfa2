"""Second opinions in a report, and how they change the short list."""

from __future__ import annotations

import duckdb

from hullward.tools.records import Record
from hullward.tools.store import ORDER_BEFORE_OPINIONS, SHORT_LIST, SHORT_LIST_ORDER, fetch_rows

LISTED = 50


class OpinionEntry(Record):
    """One potential's opinion on one candidate."""

    candidate_id: str
    formula: str
    potential: str
    kind: str
    first_ev_per_atom: float | None
    second_ev_per_atom: float | None
    difference_ev_per_atom: float | None
    margin_ev_per_atom: float
    disputed: bool | None
    volume_ratio: float | None
    same_structure: bool | None
    rms_a: float | None
    failure: str
    suspect: bool
    confirmed: bool  # a suspect that this potential confirmed
    rank: int | None  # on the short list now
    rank_before: int | None  # without second opinions


class Opinions(Record):
    """All second opinions, by rank; suspects after the short list."""

    asked: int = 0
    disputed: int = 0
    no_answer: int = 0
    force_calls: int = 0
    said: tuple[OpinionEntry, ...] = ()


def gather_opinions(connection: duckdb.DuckDBPyConnection) -> Opinions:
    """Read the second opinions over the current reference."""
    rows = fetch_rows(
        connection,
        f"""WITH ranked AS (
            SELECT candidate_id, row_number() OVER (ORDER BY {SHORT_LIST_ORDER}) AS rank,
                row_number() OVER (ORDER BY {ORDER_BEFORE_OPINIONS}) AS rank_before
            FROM results WHERE {SHORT_LIST}
        )
        SELECT r.candidate_id, r.formula, o.potential, o.kind, o.first_ev_per_atom,
            o.second_ev_per_atom, o.difference_ev_per_atom, o.margin_ev_per_atom, o.disputed,
            o.volume_ratio, o.same_structure, o.rms_a, o.failure, r.suspect,
            coalesce(r.second_look = 'confirmed', false) AS confirmed, k.rank, k.rank_before,
            o.force_calls
        FROM opinions o JOIN bases USING (reference_id, reference_version)
        JOIN results r USING (relaxation_id) LEFT JOIN ranked k USING (candidate_id)
        ORDER BY k.rank_before NULLS LAST, r.candidate_id, o.potential""",
    )
    calls = sum(row.pop("force_calls") for row in rows)
    said = [OpinionEntry(**row) for row in rows]
    return Opinions(
        asked=len(said),
        disputed=sum(bool(s.disputed) for s in said),
        no_answer=sum(s.disputed is None for s in said),
        force_calls=calls,
        said=tuple(said[:LISTED]),
    )


def opinion_words(opinion: OpinionEntry) -> str:
    """The outcome of a second opinion, in a few words."""
    geometry = opinion.kind == "geometry"
    disputed = "DISPUTED: another structure" if geometry else "DISPUTED"
    suspect = "suspect" if opinion.suspect else ""
    parts = [
        {None: "no result", False: "agrees", True: disputed}[opinion.disputed],
        "geometry only" if geometry else "",
        opinion.failure,
        "suspect confirmed" if opinion.confirmed else suspect,
    ]
    if None not in (opinion.rank, opinion.rank_before) and opinion.rank != opinion.rank_before:
        parts.append(f"moved from place {opinion.rank_before} to {opinion.rank}")
    return "; ".join(filter(None, parts))
