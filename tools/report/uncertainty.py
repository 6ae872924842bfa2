"""What a report says of probabilities: which calibrator, how good it is, where there is none."""

from __future__ import annotations

import json

import duckdb

from hullward.tools.records import Calibration, Check, Record


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
    ((maybe,),) = connection.execute(
        f"SELECT count(p_below_50mev) FROM results WHERE ({condition}) AND bare_namesakes > 0"
    ).fetchall()
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
