"""Phase diagrams and heights by chemical system, for the plots and the tables beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from hullward.tools.records import DiagramPhase, PhaseDiagram, Record
from hullward.tools.report.figures import HullPoint, Kind
from hullward.tools.report.names import system_name
from hullward.tools.store import (
    SHORT_LIST,
    SYSTEMS_DRAWN,
    decode,
    fetch_rows,
    systems_to_draw,
)

MOST_POINTS = 600  # compositions of a plot, the lowest
LOWEST = 12  # formulas of the table beside a plot


class Lowest(Record):
    """The lowest candidate of one formula."""

    formula: str
    candidate_id: str
    judged: int  # candidates of this formula
    height_ev_per_atom: float
    kind: Kind
    source: str | None = None  # the user's own name


class System(Record):
    """A chemical system that is not part of a larger one."""

    chemsys: str
    points: tuple[HullPoint, ...]
    apex: str | None = None  # of four elements, the one from whose corner the plot is seen
    facets: tuple[tuple[str, ...], ...]  # names of points in equilibrium; () where none are stored
    stable: tuple[DiagramPhase, ...] = ()  # elements first
    lowest: tuple[Lowest, ...]
    formulas: int
    left_out: int  # judged, but not the lowest of their composition, or too high to be drawn


# Everything judged, with its height above the hull and how it is drawn.
_JUDGED = f"""
    SELECT r.candidate_id, r.formula, r.chemsys, r.e_above_union_ev_per_atom AS height,
    r.energy_ev_per_atom AS energy, r.source,
    CASE WHEN suspect THEN 'suspect' WHEN r.label = 'below_reference' THEN 'below_reference'
    WHEN r.rediscovered IS NOT NULL THEN 'rediscovered'
    WHEN {SHORT_LIST} THEN 'short_list' ELSE 'judged' END AS kind
    FROM results r
    WHERE r.state = 'judged' AND r.e_above_union_ev_per_atom IS NOT NULL"""
# The same of some systems, each with all that it holds.
_WITHIN = f"""
    SELECT part.system, judged.* FROM ({_JUDGED}) AS judged
    JOIN (SELECT unnest($systems) AS system, unnest($parts) AS chemsys) AS part USING (chemsys)"""
_POINTS = f"""
    SELECT * FROM (
        SELECT *, count(*) OVER (PARTITION BY system) AS judged FROM ({_WITHIN})
        QUALIFY row_number() OVER (PARTITION BY system, formula, kind = 'suspect'
            ORDER BY height, candidate_id) = 1
    )
    QUALIFY row_number() OVER (PARTITION BY system ORDER BY height, candidate_id) <= $most
    ORDER BY system, height, candidate_id"""
_FORMULAS = f"""
    SELECT *, count(*) OVER (PARTITION BY system) AS formulas FROM (
        SELECT system, formula, count(*) AS judged, min(height) AS height_ev_per_atom,
            first(candidate_id ORDER BY height, candidate_id) AS candidate_id,
            first(kind ORDER BY height, candidate_id) AS kind,
            first(source ORDER BY height, candidate_id) AS source
        FROM ({_WITHIN}) GROUP BY system, formula
    )
    QUALIFY row_number() OVER (PARTITION BY system ORDER BY height_ev_per_atom, candidate_id)
        <= $most
    ORDER BY system, height_ev_per_atom, candidate_id"""


def gather_systems(
    connection: duckdb.DuckDBPyConnection, wanted: Sequence[str] = ()
) -> tuple[tuple[System, ...], int]:
    """The systems with most judged candidates, and how many systems there are.

    wanted: the user's systems; their order of elements is kept. Phases and facets are those of the
    stored phase diagrams: no reference is read again.
    """
    judged = dict(
        connection.execute(f"SELECT chemsys, count(*) FROM ({_JUDGED}) GROUP BY chemsys").fetchall()
    )
    ranked = systems_to_draw(judged, wanted)
    pairs = [
        (system, part)
        for system in ranked[:SYSTEMS_DRAWN]
        for part in judged
        if set(part.split("-")) <= set(system.split("-"))
    ]
    asked = {"systems": [system for system, _ in pairs], "parts": [part for _, part in pairs]}
    if not pairs:
        return (), 0
    points = _by_system(fetch_rows(connection, _POINTS, asked | {"most": MOST_POINTS}))
    formulas = _by_system(fetch_rows(connection, _FORMULAS, asked | {"most": LOWEST}))
    rows = fetch_rows(
        connection, "FROM phase_diagrams JOIN bases USING (reference_id, reference_version)"
    )
    diagrams = {row["chemsys"]: decode(PhaseDiagram, row) for row in rows}
    order = [element for system in wanted for element in system.split("-")]
    return tuple(
        _system(system_name(s, order), points[s], formulas[s], diagrams.get(s))
        for s in ranked[:SYSTEMS_DRAWN]
    ), len(ranked)


def _by_system(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row.pop("system")].append(row)
    return found


def _system(
    name: str,
    found: list[dict[str, Any]],
    formulas: list[dict[str, Any]],
    diagram: PhaseDiagram | None,
) -> System:
    points = [_candidate(row, diagram) for row in found]
    facets: tuple[tuple[str, ...], ...] = ()
    stable: tuple[DiagramPhase, ...] = ()
    if diagram is not None:
        drawn = {p.name for p in points}
        points += [_phase(p) for p in diagram.phases if p.phase_id not in drawn]
        names = [p.phase_id for p in diagram.phases]
        facets = tuple(tuple(names[i] for i in facet) for facet in diagram.facets)
        stable = tuple(p for p in diagram.phases if p.e_above_hull_ev_per_atom == 0.0)
    return System(
        chemsys=name,
        apex=_apex(name) if name.count("-") == 3 else None,
        points=tuple(points),
        facets=facets,
        stable=tuple(sorted(stable, key=lambda p: (len(fractions(p.formula)), p.formula))),
        lowest=tuple(
            Lowest(**{name: row[name] for name in Lowest.model_fields}) for row in formulas
        ),
        formulas=formulas[0]["formulas"],
        left_out=found[0]["judged"] - len(found),
    )


def _candidate(row: Mapping[str, Any], diagram: PhaseDiagram | None) -> HullPoint:
    shares, formation = fractions(row["formula"]), None
    corners: set[str] = set()
    if diagram is not None:
        elements = diagram.element_energies_ev_per_atom
        formation = row["energy"] - sum(x * elements[e] for e, x in shares.items())
        corners = {diagram.phases[i].phase_id for facet in diagram.facets for i in facet}
    return HullPoint(
        name=row["candidate_id"],
        formula=row["formula"],
        composition=shares,
        height_ev_per_atom=row["height"],
        kind=row["kind"],
        formation_energy_ev_per_atom=formation,
        on_hull=row["candidate_id"] in corners,
    )


def _phase(phase: DiagramPhase) -> HullPoint:
    on_hull = phase.e_above_hull_ev_per_atom == 0.0
    return HullPoint(
        name=phase.phase_id,
        formula=phase.formula,
        composition=fractions(phase.formula),
        height_ev_per_atom=phase.e_above_hull_ev_per_atom,
        kind="phase" if on_hull else "unstable_phase",
        formation_energy_ev_per_atom=phase.formation_energy_ev_per_atom,
        on_hull=on_hull,
    )


def _apex(chemsys: str) -> str:
    """The most electronegative element (Pauling): four elements are seen from its corner."""
    from pymatgen.core import Element

    return max(sorted(chemsys.split("-")), key=lambda symbol: Element(symbol).X)


def fractions(formula: str) -> dict[str, float]:
    """Atomic fractions of a formula."""
    from pymatgen.core import Composition

    composition = Composition(formula).fractional_composition
    return {str(element): float(amount) for element, amount in composition.items()}
