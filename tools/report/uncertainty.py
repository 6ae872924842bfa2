"""Probabilities in a report: how many, by which calibrator, and why some are missing."""

from __future__ import annotations

import duckdb

from hullward.tools.records import Calibration, Record
from hullward.tools.store import decode, fetch_records, fetch_rows


class MissingProbability(Record):
    """Why judged candidates have no probability."""

    reason: str
    count: int


class Trust(Record):
    """Probabilities that DFT finds a candidate near the hull, and their calibrators."""

    judged: int = 0
    with_probability: int = 0
    expected_below_50mev: float | None = None  # sum over the short list; null without any
    short_list_with_probability: int = 0
    short_list_may_be_known: int = 0  # of these: a phase of the formula, without its structure
    calibrations: tuple[Calibration, ...] = ()
    unsaid: tuple[MissingProbability, ...] = ()  # commonest first


def gather_trust(connection: duckdb.DuckDBPyConnection, condition: str) -> Trust:
    """Count probabilities. condition: of the short list, on `results`."""
    judged, with_probability = connection.execute(
        """SELECT count(*), count(*) FILTER (p_below_50mev IS NOT NULL) FROM results
           WHERE state = 'judged'"""
    ).fetchall()[0]
    listed, expected, maybe = connection.execute(
        f"""SELECT count(p_below_50mev), sum(p_below_50mev),
            count(p_below_50mev) FILTER (bare_namesakes > 0) FROM results WHERE {condition}"""
    ).fetchall()[0]
    missing = fetch_records(
        MissingProbability,
        connection,
        """SELECT coalesce(probability_note, 'not computed') AS reason, count(*) AS count
           FROM results WHERE state = 'judged' AND p_below_50mev IS NULL
           GROUP BY 1 ORDER BY count DESC, 1""",
    )
    used = fetch_rows(
        connection,
        """FROM calibrations WHERE calibrator_id IN (SELECT calibrator_id FROM results)
           ORDER BY calibrator_id""",
    )
    return Trust(
        judged=judged,
        with_probability=with_probability,
        expected_below_50mev=expected,
        short_list_with_probability=listed,
        short_list_may_be_known=maybe,
        calibrations=tuple(decode(Calibration, row) for row in used),
        unsaid=missing,
    )


def trust_words(trust: Trust) -> str:
    """What the probabilities mean and how many candidates have one."""
    if not trust.judged:
        return "Nothing was judged, so no probability is given."
    if not trust.with_probability:
        why = trust.unsaid[0].reason if trust.unsaid else "not computed"
        return f"No probability is given: {why}."
    sentences = (
        f"{trust.with_probability:,} of {trust.judged:,} judged candidates have a probability that "
        "DFT finds them within 50 or 100 meV/atom of the hull."
    )
    if trust.short_list_with_probability and trust.expected_below_50mev is not None:
        sentences += (
            f" Of the {trust.short_list_with_probability:,} of these on the short list, DFT is "
            f"expected to find about {trust.expected_below_50mev:.0f} within 50 meV/atom."
        )
    if trust.short_list_may_be_known:
        sentences += (
            f" The probability is that of a new structure. {trust.short_list_may_be_known:,} of "
            "them may be known, since the reference has a phase of their formula without its "
            "structure; for a known phase the probability is far too low."
        )
    return sentences
