"""Heights over the union: the reference and what a campaign found itself.

Suspects are judged but support the hull only once confirmed. Candidates at compositions the
reference does not cover do support it: their energies are as good as any, only the reference
around them is not. What waits for a hull goes on waiting.

Of what a campaign found, only the corners of a system's own hull matter to the hulls of the systems
that contain it, as no other composition takes part in its equilibria. A corner decomposes into
itself, so the stored union verdicts show which they are. New verdicts are needed

- for relaxations whose reference verdict is new or is no longer what the union verdict repeats,
- in a system whose corners change, and in every system that contains it, for the compositions at
  which the height of the hull or what it holds changes.

Verdicts on which the corners rest are stored last: stopped in between, the next call finds the same
work again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hullward.tools.crystal import parse_formula
from hullward.tools.hull import Hull, HullDistance, Phase, Reference
from hullward.tools.records import Product, Verdict
from hullward.tools.screening.screen import OVER_REFERENCE, RELAXED, Screen
from hullward.tools.screening.verdicts import over

SAME_HEIGHT_EV_PER_ATOM = 1e-12  # rounding, where a hull is computed again
SAME_SHARE = 1e-9
NEAR_EV_PER_ATOM = 1e-6  # of the hull: rows that may be corners
BATCH = 2000  # verdicts stored at once


class JudgedRow(NamedTuple):
    """A judged relaxation."""

    relaxation_id: str
    candidate_id: str
    chemsys: str
    formula: str
    energy_ev_per_atom: float
    pending: bool  # there is no hull
    credible: bool  # no suspect, or a confirmed one


class Level(NamedTuple):
    """What a union hull holds at one composition."""

    hull_ev_per_atom: float
    decomposition: tuple[Product, ...]


@dataclass
class UnionHulls:
    """The corners that a campaign adds to the hulls of a reference, and the hulls with them.

    corners: by chemical system, those of exactly this system.  kept: hulls by system, each with
    the corners it was built with.
    """

    reference: Reference
    corners: dict[str, dict[str, JudgedRow]] = field(default_factory=lambda: defaultdict(dict))
    kept: dict[str, tuple[tuple[str, ...], Hull]] = field(default_factory=dict)

    def hull(self, chemsys: str) -> Hull:
        """The hull of a system over the reference and the corners of its subsystems."""
        rows = self._within(chemsys, {})
        key = tuple(row.candidate_id for row in rows)
        if chemsys not in self.kept or self.kept[chemsys][0] != key:
            self.kept[chemsys] = key, self._build(chemsys, rows)
        return self.kept[chemsys][1]

    def levels(self, chemsys: str, formulas: Sequence[str]) -> dict[str, Level]:
        """What the union hull of a system holds at each of these compositions, in one batch."""
        hull = self.hull(chemsys)
        fractions = hull.fractions([_amounts(formula) for formula in formulas])
        found = hull.distances(fractions, np.zeros(len(formulas)))
        return {
            formula: Level(-one.e_above_hull_ev_per_atom, one.decomposition)
            for formula, one in zip(formulas, found, strict=True)
        }

    def add(self, chemsys: str, rows: Iterable[JudgedRow]) -> None:
        """Let more rows of a system support its hull, or find its corners again without any."""
        own = {row.candidate_id: row for row in rows} | self.corners[chemsys]
        hull = self._build(chemsys, self._within(chemsys, own))
        stable = {phase.phase_id for phase in hull.stable_phases}
        self.corners[chemsys] = {i: row for i, row in own.items() if i in stable}

    def reached_by(self, chemsys: str, rows: Sequence[JudgedRow]) -> bool:
        """Whether one of these rows could be a corner: it lies no higher than the hull."""
        levels = self.levels(chemsys, sorted({row.formula for row in rows}))
        return any(
            row.energy_ev_per_atom - levels[row.formula].hull_ev_per_atom < NEAR_EV_PER_ATOM
            for row in rows
        )

    def _within(self, chemsys: str, own: Mapping[str, JudgedRow]) -> list[JudgedRow]:
        """The corners of a system's subsystems, and `own` in place of its own ones."""
        elements = set(chemsys.split("-"))
        found = dict(own)
        for system, rows in self.corners.items():
            if elements >= set(system.split("-")) and not (own and system == chemsys):
                found |= rows
        return [found[i] for i in sorted(found)]

    def _build(self, chemsys: str, rows: Iterable[JudgedRow]) -> Hull:
        return Hull([*self.reference.phases(chemsys), *map(_as_phase, rows)])


def judge_union(screen: Screen) -> None:
    """Bring the heights over reference ∪ campaign up to what is judged."""
    changed = _changed(screen)
    if not changed:
        return
    hulls = union_hulls(screen)
    moved = _settle_corners(screen, hulls, changed)
    ids = {row.relaxation_id for row in changed}
    for system in sorted(moved):
        rows = (row for row in _moved_rows(screen, hulls, system) if row.relaxation_id not in ids)
        _store(screen, hulls, rows)
    corners = {i for rows in hulls.corners.values() for i in rows}
    _store(screen, hulls, (row for row in changed if row.candidate_id not in corners))
    screen.store.add(_verdicts(screen, hulls, [r for r in changed if r.candidate_id in corners]))


def union_hulls(screen: Screen) -> UnionHulls:
    """The hulls over reference and campaign, as the stored verdicts have them."""
    hulls = UnionHulls(screen.reference, kept=screen.union_hulls)
    for row in _corners(screen):
        hulls.corners[row.chemsys][row.candidate_id] = row
    return hulls


def _settle_corners(screen: Screen, hulls: UnionHulls, changed: Sequence[JudgedRow]) -> set[str]:
    """Find the corners with what changed; returns the systems whose hulls are others now."""
    new: dict[str, list[JudgedRow]] = defaultdict(list)
    raised: set[str] = set()  # systems that lose a corner that counted
    for row in changed:
        if row.credible and not row.pending:
            new[row.chemsys].append(row)
        elif hulls.corners[row.chemsys].pop(row.candidate_id, None):
            raised.add(row.chemsys)
    moved: set[str] = set()
    for system in _systems(screen, new.keys() | raised):
        elements = set(system.split("-"))
        above = {s for s in raised if set(s.split("-")) <= elements}
        below = {s for s in moved if set(s.split("-")) < elements}
        before = hulls.corners[system].keys()
        if above:
            hulls.add(system, _supports(screen, system))
        elif below or (new[system] and hulls.reached_by(system, new[system])):
            hulls.add(system, new[system])
        if below or above or hulls.corners[system].keys() != before:
            moved.add(system)
    return moved


def _verdicts(screen: Screen, hulls: UnionHulls, rows: Sequence[JudgedRow]) -> Iterator[Verdict]:
    """Union verdicts of judged rows, from those over the reference."""
    formulas: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if not row.pending:
            formulas[row.chemsys].add(row.formula)
    levels = {system: hulls.levels(system, sorted(found)) for system, found in formulas.items()}
    first = screen.verdicts([row.relaxation_id for row in rows])
    for row in rows:
        distance = None
        if not row.pending:
            level = levels[row.chemsys][row.formula]
            height = row.energy_ev_per_atom - level.hull_ev_per_atom
            distance = HullDistance(height, level.decomposition)
        threshold = screen.basis.metastable_ev_per_atom
        changes = over(distance, _amounts(row.formula), screen.reference, threshold)
        yield first[row.relaxation_id].model_copy(update={"height": "union", **changes})


def _store(screen: Screen, hulls: UnionHulls, rows: Iterable[JudgedRow]) -> None:
    batch: list[JudgedRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            screen.store.add(_verdicts(screen, hulls, batch))
            batch = []
    screen.store.add(_verdicts(screen, hulls, batch))


# ---- what the store holds ----

_CREDIBLE = "(len(v.suspicions) = 0 OR v.second_look = 'confirmed')"
_PENDING = "v.label = 'hull_pending'"
_REPEATED = ("suspicions", "second_look", "rediscovered", "typical_error_ev_per_atom")
_ROW = f"""r.relaxation_id, c.candidate_id, c.chemsys, c.formula, r.energy_ev_per_atom,
    {_PENDING} AS pending, {_CREDIBLE} AS credible"""
# Judged relaxations of the basis, as v, with their candidates.
_JUDGED = f"""
    (FROM verdicts WHERE height = 'reference' AND {OVER_REFERENCE}) v
    JOIN (FROM relaxations WHERE {RELAXED}) r USING (relaxation_id)
    JOIN candidates c USING (candidate_id)
"""
_UNION = f"(FROM verdicts WHERE height = 'union' AND {OVER_REFERENCE})"


def _rows(screen: Screen, sql: str, **parameters: Any) -> list[JudgedRow]:
    given = {**screen.judged_by, **screen.relaxed_by, **parameters}
    return [JudgedRow(**row) for row in screen.store.rows(f"SELECT {_ROW} FROM {sql}", given)]


def _changed(screen: Screen) -> list[JudgedRow]:
    """Rows whose union verdict is missing, or repeats what is no longer so."""
    other = " OR ".join(f"u.{name} IS DISTINCT FROM v.{name}" for name in _REPEATED)
    pending = f"(u.label = 'hull_pending') <> ({_PENDING})"
    return _rows(
        screen,
        f"""{_JUDGED} LEFT JOIN {_UNION} u USING (relaxation_id)
            WHERE u.relaxation_id IS NULL OR {other} OR {pending} ORDER BY relaxation_id""",
    )


def _corners(screen: Screen) -> list[JudgedRow]:
    """Rows that decompose into themselves."""
    return _rows(
        screen,
        f"""{_JUDGED} JOIN {_UNION} u USING (relaxation_id)
            WHERE abs(u.e_above_hull_ev_per_atom) < {NEAR_EV_PER_ATOM}
                AND starts_with(u.decomposition, '[{{"phase_id":"' || c.candidate_id || '"')""",
    )


def judged_by_system(screen: Screen) -> dict[str, int]:
    """How many relaxations with a height there are, by chemical system."""
    rows = screen.store.rows(
        f"SELECT c.chemsys, count(*) AS n FROM {_JUDGED} WHERE NOT ({_PENDING}) GROUP BY c.chemsys",
        {**screen.judged_by, **screen.relaxed_by},
    )
    return {row["chemsys"]: row["n"] for row in rows}


def _supports(screen: Screen, system: str) -> list[JudgedRow]:
    """Every row of one system that may support a hull."""
    condition = f"c.chemsys = $chemsys AND {_CREDIBLE} AND NOT ({_PENDING})"
    return _rows(screen, f"{_JUDGED} WHERE {condition}", chemsys=system)


def _systems(screen: Screen, changed: Collection[str]) -> list[str]:
    """The systems of candidates in which something changed or may change, the smallest first."""
    parts = [set(system.split("-")) for system in changed]
    rows = screen.store.rows("SELECT DISTINCT chemsys FROM candidates")
    systems = [str(row["chemsys"]) for row in rows]
    found = [s for s in systems if any(part <= set(s.split("-")) for part in parts)]
    held = [s for s in found if not screen.reference.lacking(frozenset(s.split("-")))]
    return sorted(held, key=lambda system: (system.count("-"), system))


def _moved_rows(screen: Screen, hulls: UnionHulls, system: str) -> list[JudgedRow]:
    """Rows of a system at compositions where the hull is no longer what union verdicts show."""
    stored = screen.store.rows(
        f"""SELECT c.formula, min(u.decomposition) AS one, max(u.decomposition) AS other,
                min(r.energy_ev_per_atom - u.e_above_hull_ev_per_atom) AS low,
                max(r.energy_ev_per_atom - u.e_above_hull_ev_per_atom) AS high
            FROM {_JUDGED} JOIN {_UNION} u USING (relaxation_id)
            WHERE c.chemsys = $chemsys AND NOT ({_PENDING}) GROUP BY c.formula""",
        {**screen.judged_by, **screen.relaxed_by, "chemsys": system},
    )
    levels = hulls.levels(system, [row["formula"] for row in stored]) if stored else {}
    moved = [row["formula"] for row in stored if not _is_at(levels[row["formula"]], row)]
    if not moved:
        return []
    return _rows(
        screen,
        f"""{_JUDGED} WHERE c.chemsys = $chemsys AND NOT ({_PENDING})
            AND list_contains($formulas, c.formula) ORDER BY relaxation_id""",
        chemsys=system,
        formulas=moved,
    )


def _is_at(level: Level, stored: Mapping[str, Any]) -> bool:
    """Whether union verdicts of one formula show what the hull holds there."""
    heights = (stored["low"], stored["high"])
    if any(h is None or abs(h - level.hull_ev_per_atom) > SAME_HEIGHT_EV_PER_ATOM for h in heights):
        return False
    return all(_same_parts(level.decomposition, stored[name]) for name in ("one", "other"))


def _same_parts(decomposition: Sequence[Product], stored: str) -> bool:
    parts = json.loads(stored)
    return len(parts) == len(decomposition) and all(
        new.phase_id == old["phase_id"] and abs(new.fraction - old["fraction"]) < SAME_SHARE
        for new, old in zip(decomposition, parts, strict=True)
    )


def _as_phase(row: JudgedRow) -> Phase:
    return Phase(
        phase_id=row.candidate_id,
        formula=row.formula,
        composition=_amounts(row.formula),
        energy_ev_per_atom=row.energy_ev_per_atom,
        source="this campaign",
    )


@lru_cache(maxsize=10_000)
def _amounts(formula: str) -> dict[str, float]:
    return {element: float(n) for element, n in parse_formula(formula).items()}
