"""Heights by chemical system, for the hull plots and the tables beside them."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import duckdb

from hullward.tools.records import Record
from hullward.tools.report.figures import HullPoint, Kind
from hullward.tools.store import SHORT_LIST, fetch_rows

DRAWN = 6  # systems with the most judged candidates
MOST_POINTS = 1000  # the lowest candidates of a plot
LOWEST = 12  # formulas of the table beside a plot


class Lowest(Record):
    """The lowest candidate of one formula."""

    formula: str
    candidate_id: str
    judged: int  # candidates of this formula
    height_ev_per_atom: float
    kind: Kind


class System(Record):
    """A chemical system that is not part of a larger one."""

    chemsys: str
    points: tuple[HullPoint, ...]
    tie_lines: tuple[tuple[str, str], ...]  # names of points on the hull
    lowest: tuple[Lowest, ...]
    formulas: int
    left_out: int  # judged, but too high to be drawn


# Everything judged, with its height over reference ∪ campaign and how it is drawn.
_JUDGED = f"""
    SELECT r.candidate_id, r.formula, r.chemsys, r.e_above_union_ev_per_atom AS height,
    CASE WHEN suspect THEN 'suspect' WHEN r.label = 'below_reference' THEN 'below_reference'
    WHEN r.rediscovered IS NOT NULL THEN 'rediscovered'
    WHEN {SHORT_LIST} THEN 'short_list' ELSE 'judged' END AS kind,
    v.decomposition
    FROM results r JOIN bases b ON true
    JOIN verdicts v ON v.relaxation_id = r.relaxation_id AND v.height = 'union'
        AND v.reference_id = b.reference_id AND v.reference_version = b.reference_version
    WHERE r.state = 'judged' AND r.e_above_union_ev_per_atom IS NOT NULL"""
# The same of some systems, each with all that it holds.
_WITHIN = f"""
    SELECT part.system, judged.* FROM ({_JUDGED}) AS judged
    JOIN (SELECT unnest($systems) AS system, unnest($parts) AS chemsys) AS part USING (chemsys)"""
_POINTS = f"""
    SELECT *, count(*) OVER (PARTITION BY system) AS judged FROM ({_WITHIN})
    QUALIFY row_number() OVER (PARTITION BY system ORDER BY height, candidate_id) <= $most
    ORDER BY system, height, candidate_id"""
_FORMULAS = f"""
    SELECT *, count(*) OVER (PARTITION BY system) AS formulas FROM (
        SELECT system, formula, count(*) AS judged, min(height) AS height_ev_per_atom,
            first(candidate_id ORDER BY height, candidate_id) AS candidate_id,
            first(kind ORDER BY height, candidate_id) AS kind
        FROM ({_WITHIN}) GROUP BY system, formula
    )
    QUALIFY row_number() OVER (PARTITION BY system ORDER BY height_ev_per_atom, candidate_id)
        <= $most
    ORDER BY system, height_ev_per_atom, candidate_id"""


def gather_systems(connection: duckdb.DuckDBPyConnection) -> tuple[tuple[System, ...], int]:
    """The systems with most judged candidates, and how many systems there are.

    Phases and tie lines are those of the stored decompositions: no reference is read again.
    """
    judged = dict(
        connection.execute(f"SELECT chemsys, count(*) FROM ({_JUDGED}) GROUP BY chemsys").fetchall()
    )
    parts = {
        system: [part for part in judged if set(part.split("-")) <= set(system.split("-"))]
        for system in _largest(judged)
    }
    ranked = sorted(parts, key=lambda s: (-sum(judged[part] for part in parts[s]), s))
    pairs = [(system, part) for system in ranked[:DRAWN] for part in parts[system]]
    asked = {"systems": [system for system, _ in pairs], "parts": [part for _, part in pairs]}
    if not pairs:
        return (), 0
    points = _by_system(fetch_rows(connection, _POINTS, asked | {"most": MOST_POINTS}))
    formulas = _by_system(fetch_rows(connection, _FORMULAS, asked | {"most": LOWEST}))
    return tuple(_system(s, points[s], formulas[s]) for s in ranked[:DRAWN]), len(ranked)


def _by_system(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row.pop("system")].append(row)
    return found


def _largest(systems: Iterable[str]) -> list[str]:
    """The systems that are not part of another one."""
    sets = {s: frozenset(s.split("-")) for s in systems}
    return sorted(s for s in sets if not any(sets[s] < other for other in sets.values()))


def _system(chemsys: str, found: list[dict[str, Any]], formulas: list[dict[str, Any]]) -> System:
    points = {
        row["candidate_id"]: HullPoint(
            name=row["candidate_id"],
            formula=row["formula"],
            composition=fractions(row["formula"]),
            height_ev_per_atom=row["height"],
            kind=row["kind"],
        )
        for row in found
    }
    ties: set[tuple[str, str]] = set()
    for row in found:
        corners = []
        for product in json.loads(row["decomposition"]):
            name, formula = product["phase_id"], product["formula"]
            if re.fullmatch(r"([A-Z][a-z]?[\d.]*)+", formula) is None:
                continue  # a point of the hull that is not a phase is not drawn
            corners.append(name)
            points.setdefault(
                name,
                HullPoint(name, formula, fractions(formula), height_ev_per_atom=0.0, kind="phase"),
            )
        ties |= set(itertools.combinations(sorted(corners), 2))
    return System(
        chemsys=chemsys,
        points=tuple(points.values()),
        tie_lines=tuple(sorted(ties)),
        lowest=tuple(
            Lowest(**{name: row[name] for name in Lowest.model_fields}) for row in formulas
        ),
        formulas=formulas[0]["formulas"],
        left_out=found[0]["judged"] - len(found),
    )


def fractions(formula: str) -> dict[str, float]:
    """Atomic fractions of a formula."""
    from pymatgen.core import Composition

    composition = Composition(formula).fractional_composition
    return {str(element): float(amount) for element, amount in composition.items()}
