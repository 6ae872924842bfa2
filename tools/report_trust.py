"""What a report says of probabilities: which calibrator, how good it is, where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb

from hullward.tools.records import Calibration, Check, Record

if TYPE_CHECKING:
    from hullward.tools.report_records import Entry


class Unsaid(Record):
    """Why judged candidates have no probability."""

    reason: str
    count: int


class Trust(Record):
    """Probabilities of DFT's own height, and who says them."""

    judged: int = 0
    with_probability: int = 0
    expected_below_50mev: float | None = None  # sum over the short list; null without any
    short_list_with_probability: int = 0
    short_list_may_be_known: int = 0  # of these: a phase of the formula, without its structure
    calibrations: tuple[Calibration, ...] = ()
    unsaid: tuple[Unsaid, ...] = ()  # commonest first


def gather_trust(connection: duckdb.DuckDBPyConnection, condition: str) -> Trust:
    """Count what was said. condition: of the short list, on `results`."""
    judged, said = connection.execute(
        """SELECT count(*), count(*) FILTER (p_below_50mev IS NOT NULL) FROM results
           WHERE state = 'judged'"""
    ).fetchall()[0]
    listed, expected = connection.execute(
        f"SELECT count(p_below_50mev), sum(p_below_50mev) FROM results WHERE {condition}"
    ).fetchall()[0]
    columns = {row[0] for row in connection.execute("DESCRIBE results").fetchall()}
    maybe = 0
    if "bare_namesakes" in columns:  # an older snapshot has none
        maybe = connection.execute(
            f"""SELECT count(p_below_50mev) FROM results
                WHERE ({condition}) AND bare_namesakes > 0"""
        ).fetchall()[0][0]
    unsaid = connection.execute(
        """SELECT coalesce(probability_note, 'nobody asked'), count(*) AS n FROM results
           WHERE state = 'judged' AND p_below_50mev IS NULL GROUP BY 1 ORDER BY n DESC, 1"""
    ).fetchall()
    used = connection.execute(
        """SELECT calibrator_id, name, potential, statement, "rows", checks FROM calibrations
           WHERE calibrator_id IN (SELECT calibrator_id FROM results) ORDER BY calibrator_id"""
    ).fetchall()
    return Trust(
        judged=judged,
        with_probability=said,
        expected_below_50mev=expected,
        short_list_with_probability=listed,
        short_list_may_be_known=maybe,
        calibrations=tuple(
            Calibration(
                calibrator_id=i,
                name=name,
                potential=potential,
                statement=statement,
                rows=rows,
                checks=tuple(Check.model_validate(c) for c in json.loads(checks)),
            )
            for i, name, potential, statement, rows, checks in used
        ),
        unsaid=tuple(Unsaid(reason=reason, count=n) for reason, n in unsaid),
    )


def chance_words(entry: Entry) -> str:
    """'41 % (30–52 %) within 50 meV/atom, 70 % (58–80 %) within 100', or why it is unsaid."""
    if entry.p_below_50mev is None:
        return "unsaid: " + (entry.probability_note or "nobody asked")
    told = []
    for words, p, low, high in (
        ("within 50 meV/atom", entry.p_below_50mev, entry.p_below_50mev_low,
         entry.p_below_50mev_high),
        ("within 100", entry.p_below_100mev, entry.p_below_100mev_low, entry.p_below_100mev_high),
    ):  # fmt: skip
        ends = "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f} %)"
        told.append(f"{short_chance(p)}{ends} {words}")
    return ", ".join(told) + _read_words(entry)


def _read_words(entry: Entry) -> str:
    """'; sevennet-l3i5 puts its energy 35 meV/atom higher than …', or nothing."""
    if entry.read_by is None or entry.read_higher_ev_per_atom is None:
        return ""
    off = 1000 * entry.read_higher_ev_per_atom
    side = "higher" if off >= 0 else "lower"
    told = f"{entry.read_by} puts its energy {abs(off):.0f} meV/atom {side}"
    return f"; {told} than the potential that relaxed it"


def short_chance(p: float | None) -> str:
    """'41 %', a dash where it is unsaid."""
    return "—" if p is None else f"{100 * p:.0f} %"


def trust_words(trust: Trust) -> str:
    """One or two sentences on what the probabilities are."""
    if not trust.judged:
        return "Nothing was judged, so no probability is given."
    if not trust.with_probability:
        why = trust.unsaid[0].reason if trust.unsaid else "nobody asked"
        return f"No probability is given: {why}."
    told = (
        f"{trust.with_probability:,} of {trust.judged:,} judged candidates have a probability that "
        "DFT finds them within 50 or 100 meV/atom of the hull."
    )
    if trust.short_list_with_probability and trust.expected_below_50mev is not None:
        told += (
            f" Of the {trust.short_list_with_probability:,} of these on the short list DFT would "
            f"leave about {trust.expected_below_50mev:.0f} within 50 meV/atom."
        )
    if trust.short_list_may_be_known:
        told += (
            f" That is the probability of a new structure. {trust.short_list_may_be_known:,} of "
            "them may be known, for the reference has a phase of their formula without its "
            "structure; of a known phase the probability is far too low."
        )
    return told
