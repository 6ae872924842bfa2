"""The formulas of a chemical system, likeliest first, each with a reason.

The score of a formula is a probability among all formulas of its system, estimated from coarse to
fine and each time mixed with the coarser estimate: how well its charges balance, how often its
pattern of charges (salts) or its bare stoichiometry (alloys) occurs among known compounds, and how
often elements of the same classes have it. Known compounds in which one element is exchanged for a
neighbour add to that. A known compound of the system itself does not count: its formula is named
as known, and stands where the others put it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hullward.models.errors import InputError
from hullward.models.formulas import reduced_spelling
from hullward.tools.crystal.charges import (
    States,
    charge_balanced_formulas,
    is_alloy,
    is_metal,
)
from hullward.tools.crystal.stoichiometry.balance import (
    Balanced,
    amounts_grid,
    balance,
    charge_pattern,
)
from hullward.tools.crystal.stoichiometry.classes import neighbours
from hullward.tools.crystal.stoichiometry.counts import (
    Amounts,
    Stoichiometries,
    read_stoichiometries,
)
from hullward.tools.crystal.stoichiometry.reasons import reason_of_formula

# Weights of the estimates, fitted by hand to systems that no figure is measured on.
PER_ATOM = 0.15  # cost of every atom of a formula
UNSEEN = 0.3  # counted for a pattern that no known compound has
PATTERN_POWER, ANONYMOUS_POWER = 0.7, 0.5
COARSE_TRUST, COARSE_TRUST_ALLOY, FINE_TRUST = 100.0, 4.0, 2.0  # known compounds that outweigh it
CHARGE_SHARE = 0.5  # of the cost of charges, applied to counted stoichiometries
NEIGHBOURS_ASKED = 60  # formulas whose neighbours are looked up, unless fewer are asked for
MOST_LISTED = 500  # of one system; five metals have 15,000
NEIGHBOUR_TRUST = 3.0
# Largest amounts of formulas that balance with rarer states only.
MOST_RARE = {2: 8, 3: 8, 4: 6, 5: 4}
MOST_RARE_OTHERWISE = 2
RARER_STATES = 4.0  # their cost

Known = Callable[[str], bool]


@dataclass(frozen=True)
class LikelyFormula:
    """A formula, its share among all formulas of its system, and the reason for its place."""

    formula: str  # reduced
    score: float
    reason: str


def likely_formulas(
    elements: Sequence[str],
    max_atoms: int,
    allowed: States | None = None,
    *,
    balanced_only: bool = False,
    known: Known | None = None,
    neighbours_asked: int = NEIGHBOURS_ASKED,
) -> list[LikelyFormula]:
    """At most `MOST_LISTED` formulas of exactly these elements, likeliest first.

    max_atoms: of a formula unit.  allowed: oxidation states that replace the usual ones; formulas
    of a salt that they do not balance are left out.  balanced_only: the same with the usual states.
    known: whether a compound of a formula is known; asked for the first `neighbours_asked` formulas
    and their neighbours.
    Raises InputError for fewer than two elements.
    """
    symbols = sorted(set(elements))
    if len(symbols) < 2:
        raise InputError(f"a compound has at least two elements, not {', '.join(symbols) or '0'}")
    strict = balanced_only or any(symbol in (allowed or {}) for symbol in symbols)
    counts = read_stoichiometries()
    fine, coarse = counts.of_classes(symbols), counts.of_classes(symbols, coarse=True)
    rare = {
        tuple(amounts[s] for s in symbols)
        for amounts in charge_balanced_formulas(
            symbols, MOST_RARE.get(len(symbols), MOST_RARE_OTHERWISE), allowed
        )
    }
    grid = _with_more(amounts_grid(symbols), sorted({*fine, *coarse, *rare}))
    grid = grid[grid.sum(axis=1) <= max_atoms]
    found = balance(symbols, grid, allowed)
    is_rare = np.array([tuple(row) in rare for row in grid.tolist()], dtype=bool)
    metals = all(is_metal(symbol) for symbol in symbols)
    if not metals and (strict or not is_alloy(symbols)):
        kept = is_rare | (found.which >= 0)  # combinations that nothing speaks for are left out
        if not strict:
            kept |= np.array([tuple(row) in fine for row in grid.tolist()], dtype=bool)
        grid, is_rare = grid[kept], is_rare[kept]
        found = Balanced(found.cost[kept], found.which[kept], found.states)
    if not len(grid):
        return []
    cost = np.where(is_rare, np.minimum(found.cost, RARER_STATES), found.cost)
    rows = [tuple(row) for row in grid.tolist()]
    score = _scores(symbols, rows, cost, found, counts, fine, coarse)
    order = np.argsort(-score, kind="stable")
    kin: dict[int, list[str]] = {}
    if known is not None:
        kin = {int(i): _known_neighbours(symbols, rows[i], known) for i in order[:neighbours_asked]}
        score = _raised(score, kin)
        order = np.argsort(-score, kind="stable")
    listed = []
    for i in order[:MOST_LISTED].tolist():
        formula = reduced_spelling(dict(zip(symbols, rows[i], strict=True)))
        compounds = round(fine.get(rows[i], 0.0))
        reason = reason_of_formula(symbols, rows[i], found.of(i), kin.get(i, []), compounds)
        if i in kin and known is not None and known(formula):
            reason = f"known compound; {reason}"
        listed.append(LikelyFormula(formula, float(score[i]), reason))
    return listed


def _with_more(grid: np.ndarray, more: Sequence[Amounts]) -> np.ndarray:
    have = {tuple(row) for row in grid.tolist()}
    extra = [row for row in more if row not in have]
    return np.vstack([grid, np.array(extra, dtype=grid.dtype)]) if extra else grid


def _scores(
    symbols: Sequence[str],
    rows: Sequence[Amounts],
    cost: np.ndarray,
    found: Balanced,
    counts: Stoichiometries,
    fine: dict[Amounts, float],
    coarse: dict[Amounts, float],
) -> np.ndarray:
    """(n,) the probability of every formula."""
    alloy = is_alloy(symbols)
    if alloy:
        anonymous = counts.anonymous.get(len(symbols), {})
        seen = [anonymous.get(tuple(sorted(row)), 0) + UNSEEN for row in rows]
        base = np.array(seen) ** ANONYMOUS_POWER
    else:
        seen = [
            UNSEEN + counts.charges.get(charge_pattern(symbols, row, states), 0)
            if (states := found.of(number)) is not None
            else UNSEEN
            for number, row in enumerate(rows)
        ]
        base = np.array(seen) ** PATTERN_POWER
    base = base * np.exp(-cost - PER_ATOM * np.array(rows).sum(axis=1))
    base /= base.sum()
    trust = COARSE_TRUST_ALLOY if alloy else COARSE_TRUST
    likely = np.exp(-CHARGE_SHARE * cost)
    return _mixed(rows, fine, likely, FINE_TRUST, _mixed(rows, coarse, likely, trust, base))


def _mixed(
    rows: Sequence[Amounts],
    counted: dict[Amounts, float],
    likely: np.ndarray,
    trust: float,
    coarser: np.ndarray,
) -> np.ndarray:
    """Counts, weighted by how likely their charges are, mixed with a coarser estimate."""
    here = np.array([counted.get(row, 0.0) for row in rows])
    total, weighted = here.sum(), here * likely
    if total == 0:
        return coarser
    weighted *= total / weighted.sum()
    return np.asarray((weighted + trust * coarser) / (total + trust))


def _raised(score: np.ndarray, kin: dict[int, list[str]]) -> np.ndarray:
    """Scores, higher for formulas with known neighbours."""
    asked = list(kin)
    total = sum(map(len, kin.values()))
    known = np.array([len(kin[i]) for i in asked]) / max(total, 1) ** 0.5
    raised = score.copy()
    raised[asked] += float(score[asked].sum()) * known / NEIGHBOUR_TRUST
    return raised


def _known_neighbours(symbols: Sequence[str], row: Amounts, known: Known) -> list[str]:
    """Formulas of known compounds with one element exchanged for a neighbour."""
    names = []
    for k, symbol in enumerate(symbols):
        for other in neighbours(symbol):
            if other not in symbols:
                exchanged = (*symbols[:k], other, *symbols[k + 1 :])
                names.append(reduced_spelling(dict(zip(exchanged, row, strict=True))))
    return [name for name in names if known(name)]
