"""How the candidates of a report compare with known structures, counted."""

from __future__ import annotations

import duckdb

from hullward.tools.records import PhononCheck, Record
from hullward.tools.store import decode, fetch_records, fetch_rows

PARENTS = 12  # most frequent ones listed
WORDS = {
    "known": "known phases",
    "duplicate": "the same as an earlier candidate",
    "lanthanide_swap": "known phases with other lanthanides",
    "substitution": "known arrangements with other elements",
    "structure_type": "structure types of the prototype library, without a known phase here",
    "new_prototype": "new structure types",
    "not_compared": "not compared: cells too large or too flat",
}


class Identity(Record):
    """One novelty label and how many candidates have it."""

    kind: str
    words: str
    proposed: int  # of all proposals, by the latest label
    novel: int  # of these judged novel


class ParentCount(Record):
    """A known phase whose arrangement candidates have."""

    match_id: str
    formula: str
    count: int


class Identities(Record):
    """Counts of novelty labels; empty without any."""

    against: str = ""  # what everything was compared with
    kinds: tuple[Identity, ...] = ()
    parents: tuple[
        ParentCount, ...
    ] = ()  # of lanthanide swaps and substitutions, most frequent first
    parents_total: int = 0
    disorder: int = 0  # novel candidates that may be disordered


def gather_identities(connection: duckdb.DuckDBPyConnection) -> Identities:
    """Count the labels of a snapshot."""
    counted = {
        kind: (proposed, novel)
        for kind, proposed, novel in connection.execute(
            """SELECT novelty_kind, count(*), count(*) FILTER (novel) FROM results
               WHERE novelty_kind IS NOT NULL GROUP BY novelty_kind"""
        ).fetchall()
    }
    (against,) = connection.execute("SELECT max(against) FROM explanations").fetchall()[0]
    if against is None:
        return Identities()
    parents = fetch_records(
        ParentCount,
        connection,
        """SELECT match_id, match_formula AS formula, count(DISTINCT candidate_id) AS count
           FROM explanations WHERE kind IN ('lanthanide_swap', 'substitution')
           AND (moment = 'after' OR candidate_id NOT IN
                (SELECT candidate_id FROM explanations WHERE moment = 'after'))
           GROUP BY match_id, match_formula ORDER BY count DESC, match_id""",
    )
    (disorder,) = connection.execute(
        "SELECT count(*) FROM results WHERE novel AND disorder IS NOT NULL"
    ).fetchall()[0]
    return Identities(
        against=against,
        kinds=tuple(
            Identity(kind=kind, words=words, proposed=counted[kind][0], novel=counted[kind][1])
            for kind, words in WORDS.items()
            if kind in counted
        ),
        parents=parents[:PARENTS],
        parents_total=len(parents),
        disorder=disorder,
    )


def gather_vibrations(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The result of the check of vibrations in one phrase, by candidate id."""
    rows = fetch_rows(
        connection,
        """SELECT c.* FROM phonon_checks c JOIN results r
           ON r.candidate_id = c.candidate_id AND r.relaxation_id = c.relaxation_id
           AND r.phonons_by = c.potential""",
    )
    checks = [decode(PhononCheck, row) for row in rows]
    return {check.candidate_id: f"{check.words}, by {check.potential}" for check in checks}
