"""Heights by chemical system, for the hull plots and the tables beside them."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from hullward.tools.records import Record
from hullward.tools.report.figures import HullPoint, Kind
from hullward.tools.store import SHORT_LIST, fetch_rows

DRAWN = 6  # systems with the most judged candidates
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


def gather_systems(connection: duckdb.DuckDBPyConnection) -> tuple[tuple[System, ...], int]:
    """The systems with most judged candidates, and how many systems there are.

    Phases and tie lines are those of the stored decompositions: no reference is read again.
    """
    found = fetch_rows(
        connection,
        f"""SELECT r.candidate_id, r.formula, r.chemsys, r.e_above_union_ev_per_atom AS height,
            CASE WHEN suspect THEN 'suspect' WHEN r.label = 'below_reference' THEN 'below_reference'
            WHEN r.rediscovered IS NOT NULL THEN 'rediscovered'
            WHEN {SHORT_LIST} THEN 'short_list' ELSE 'judged' END AS kind,
            v.decomposition
            FROM results r JOIN bases b ON true
            JOIN verdicts v ON v.relaxation_id = r.relaxation_id AND v.height = 'union'
                AND v.reference_id = b.reference_id AND v.reference_version = b.reference_version
            WHERE r.state = 'judged' AND r.e_above_union_ev_per_atom IS NOT NULL
            ORDER BY height, r.candidate_id""",
    )
    largest = _largest({row["chemsys"] for row in found})
    by_system: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        elements = set(row["chemsys"].split("-"))
        for chemsys in largest:
            if elements <= set(chemsys.split("-")):
                by_system[chemsys].append(row)
    ranked = sorted(by_system, key=lambda s: (-len(by_system[s]), s))
    return tuple(_system(s, by_system[s]) for s in ranked[:DRAWN]), len(ranked)


def _largest(systems: Iterable[str]) -> list[str]:
    """The systems that are not part of another one."""
    sets = {s: frozenset(s.split("-")) for s in systems}
    return sorted(s for s in sets if not any(sets[s] < other for other in sets.values()))


def _system(chemsys: str, found: list[dict[str, Any]]) -> System:
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
        lowest=_lowest(found),
        formulas=len({row["formula"] for row in found}),
    )


def _lowest(found: list[dict[str, Any]]) -> tuple[Lowest, ...]:
    judged = Counter(row["formula"] for row in found)
    first: dict[str, Mapping[str, Any]] = {}
    for row in found:  # in order of height
        first.setdefault(row["formula"], row)
    return tuple(
        Lowest(
            formula=formula,
            candidate_id=row["candidate_id"],
            judged=judged[formula],
            height_ev_per_atom=row["height"],
            kind=row["kind"],
        )
        for formula, row in itertools.islice(first.items(), LOWEST)
    )


def fractions(formula: str) -> dict[str, float]:
    """Atomic fractions of a formula."""
    from pymatgen.core import Composition

    composition = Composition(formula).fractional_composition
    return {str(element): float(amount) for element, amount in composition.items()}
