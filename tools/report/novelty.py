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


UNJUDGED = "novelty not judged"
UNCOMPARED = "not compared yet"
STANDINGS = (
    "new composition", "new structure of a known compound", UNJUDGED, UNCOMPARED, "known structure",
)  # fmt: skip
NEW = (
    ("new composition", "new composition", "new compositions"),
    (
        "new structure of a known compound",
        "new structure of a known compound",
        "new structures of known compounds",
    ),
)
TYPES = " and the structure types of the prototype library"


class Identity(Record):
    """One novelty label and how many candidates have it."""

    kind: str
    words: str
    proposed: int  # of all proposals, by the latest label
    novel: int  # of these judged and new


class StandingCount(Record):
    """One standing next to what is known, and how many judged candidates have it.

    Duplicates are not counted; metastable and stable as in the funnel.
    """

    standing: str
    judged: int
    metastable: int
    stable: int
    bare: int  # metastable, of compounds with phases whose structures are not at hand


class ParentCount(Record):
    """A known phase whose arrangement candidates have."""

    match_id: str
    formula: str
    count: int


class Identities(Record):
    """Counts of novelty labels; empty without any."""

    against: str = ""  # what everything was compared with
    kinds: tuple[Identity, ...] = ()
    standings: tuple[StandingCount, ...] = ()
    parents: tuple[
        ParentCount, ...
    ] = ()  # of lanthanide swaps and substitutions, most frequent first
    parents_total: int = 0
    disorder: int = 0  # new candidates that may be disordered


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
        return Identities(standings=gather_standings(connection))
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
        standings=gather_standings(connection),
        kinds=tuple(
            Identity(kind=kind, words=words, proposed=counted[kind][0], novel=counted[kind][1])
            for kind, words in WORDS.items()
            if kind in counted
        ),
        parents=parents[:PARENTS],
        parents_total=len(parents),
        disorder=disorder,
    )


def gather_standings(connection: duckdb.DuckDBPyConnection) -> tuple[StandingCount, ...]:
    """The standings of judged candidates that are no duplicates, in the order of STANDINGS."""
    found = fetch_records(
        StandingCount,
        connection,
        f"""SELECT
            coalesce(standing, '{UNCOMPARED}') AS standing, count(*) AS judged,
            count(*) FILTER (metastable) AS metastable,
            count(*) FILTER (metastable AND label = 'stable') AS stable,
            count(*) FILTER (metastable AND bare_namesakes > 0) AS bare
           FROM results WHERE state = 'judged' AND duplicate_after IS NULL GROUP BY 1""",
    )
    return tuple(sorted(found, key=lambda one: STANDINGS.index(one.standing)))


def new_words(found: Identities) -> str:
    """What is new among the metastable, and next to what; '' where nothing was compared.

    'New next to 27,618 known structures, 3,506 of the reference: 2 new compositions, 1 new
    structure of a known compound. Novelty not judged: 4 (3 known compounds whose …).'
    """
    counts = {one.standing: one for one in found.standings}
    parts = []
    for standing, one, many in NEW:
        if (count := counts.get(standing)) is not None and count.metastable:
            parts.append(f"{count.metastable:,} {one if count.metastable == 1 else many}")
    sentences = []
    if parts or any(standing in counts for standing, _, _ in NEW):
        next_to = found.against.removesuffix(TYPES)
        sentences.append(f"New next to {next_to}: {', '.join(parts) or 'none'}.")
    unjudged = counts.get(UNJUDGED)
    if unjudged is not None and unjudged.metastable:
        sentences.append(f"Novelty not judged: {unjudged.metastable:,}{_why(found, unjudged)}.")
    return " ".join(sentences)


def _why(found: Identities, unjudged: StandingCount) -> str:
    if found.against.startswith("no known structures"):
        return " (the reference holds no structures, and there is no index of known ones)"
    if unjudged.bare:
        return f" ({unjudged.bare:,} known compounds whose structures are not at hand)"
    return ""


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
