"""Amounts that may form a compound, and the oxidation states that balance them, as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hullward.tools.crystal.charges import (
    METALLOIDS,
    States,
    electronegativity,
    is_alloy,
    is_metal,
    sign_patterns,
)
from hullward.tools.crystal.oxidation_states import usual_states

# Largest amounts in a formula: of the most electronegative element (O12 of Li3V2(PO4)3), of others
MOST_ANIONS, MOST_OTHERS = 12, {1: 1, 2: 12, 3: 8, 4: 8, 5: 6, 6: 4}
MANY_ELEMENTS_MOST = 3

# Costs, in units of -ln(likelihood): fitted by hand to systems that no figure is measured on.
RARER_STATE = 0.5  # for every step down an element's list of states
MIXED_VALENCE = 0.7
CONDENSED = 1.0  # fewer oxygens than isolated oxo anions need
# Beside oxygen, an element that could be the centre of an oxo anion is seldom an anion itself.
ANION_BESIDE_OXYGEN = {
    **dict.fromkeys(("B", "C", "N", "Si", "P", "Ge", "As"), 1.0),
    **dict.fromkeys(("S", "Se", "Te"), 0.5),
}
UNBALANCED = 6.0  # salts
UNBALANCED_ALLOY = 2.0

# Oxygens around the centre of an oxo anion.
OXO_ANIONS = {
    **dict.fromkeys(("B", "C", "N", "I", "Te"), 3),
    **dict.fromkeys(("Si", "Ge", "P", "As", "S", "Se", "Cl"), 4),
}
LEAST_CENTRE_STATE = 3
ELECTROPOSITIVE = 1.31  # Pauling electronegativity of Mg
# Anions beside an electropositive metal: fully charged, then bonded to each other (Zintl phases:
# Schäfer, Eisenmann and Müller, 10.1002/anie.197306941).
ZINTL_STATES = {
    **dict.fromkeys(("Si", "Ge", "Sn", "Pb"), (-4, -1, -2, -3)),
    **dict.fromkeys(("As", "Sb", "Bi"), (-3, -1, -2)),
}


@dataclass(frozen=True)
class Balanced:
    """The likeliest states of n rows of amounts.

    cost: (n,) of the states; UNBALANCED or UNBALANCED_ALLOY where none balance.
    which: (n,) index into `states`, -1 where none balance.
    states: for every element its state, or two of a mixed-valent one.
    """

    cost: np.ndarray
    which: np.ndarray
    states: list[tuple[tuple[int, ...], ...]]

    def of(self, row: int) -> tuple[tuple[int, ...], ...] | None:
        """The states of a row; None where none balance."""
        return self.states[self.which[row]] if self.which[row] >= 0 else None


def amounts_grid(symbols: Sequence[str]) -> np.ndarray:
    """(n, elements) reduced amounts up to the largest that are tried."""
    most = MOST_OTHERS.get(len(symbols), MANY_ELEMENTS_MOST)
    anion = most_electronegative(symbols)
    wide = max(most, MOST_ANIONS) if len(symbols) <= max(MOST_OTHERS) else most
    axes = [np.arange(1, 1 + (wide if symbol == anion else most)) for symbol in symbols]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(symbols))
    reduced: np.ndarray = grid[np.gcd.reduce(grid, axis=1) == 1]
    return reduced


def most_electronegative(symbols: Sequence[str]) -> str:
    return max(symbols, key=lambda symbol: (electronegativity(symbol), symbol))


def balance(symbols: Sequence[str], grid: np.ndarray, allowed: States | None = None) -> Balanced:
    """The likeliest oxidation states of every row of (n, elements) amounts.

    allowed: states that replace the usual ones, for the elements it names.
    """
    alloy = is_alloy(symbols)
    cost = np.full(len(grid), np.inf)
    which = np.full(len(grid), -1)
    states: list[tuple[tuple[int, ...], ...]] = []

    def note(fits: np.ndarray, price: np.ndarray, found: tuple[tuple[int, ...], ...]) -> None:
        better = fits & (price < cost)
        if better.any():
            cost[better] = price[better]
            which[better] = len(states)
            states.append(found)

    for pattern in sign_patterns(_choices(symbols, allowed, alloy), slack=0.0):
        for ranks in itertools.product(*(range(len(pattern[s])) for s in symbols)):
            chosen = [pattern[s][rank] for s, rank in zip(symbols, ranks, strict=True)]
            price = RARER_STATE * sum(ranks) + _beside_oxygen(symbols, grid, chosen)
            charge = grid @ np.array(chosen)
            single = tuple((state,) for state in chosen)
            note(charge == 0, price, single)
            for k, low in enumerate(chosen):
                if high := _mixed_with(symbols[k], low, pattern[symbols[k]]):
                    fits = (charge < 0) & (charge + grid[:, k] * (high - low) > 0)
                    two = (*single[:k], (low, high), *single[k + 1 :])
                    note(fits, price + MIXED_VALENCE, two)
    cost[which < 0] = UNBALANCED_ALLOY if alloy else UNBALANCED
    return Balanced(cost, which, states)


def _choices(
    symbols: Sequence[str], allowed: States | None, alloy: bool
) -> dict[str, tuple[int, ...]]:
    """The states to try for every element.

    Among metals and metalloids an element is an anion only beside an electropositive metal.
    """
    zintl = alloy and any(electronegativity(symbol) <= ELECTROPOSITIVE for symbol in symbols)
    found = {}
    for symbol in symbols:
        if allowed is not None and symbol in allowed:
            found[symbol] = tuple(allowed[symbol])
        elif alloy:
            positive = tuple(q for q in usual_states(symbol) if q > 0)
            found[symbol] = positive + (ZINTL_STATES.get(symbol, ()) if zintl else ())
        else:
            found[symbol] = usual_states(symbol)
    return found


def _mixed_with(symbol: str, low: int, states: Sequence[int]) -> int | None:
    """The next higher state of a metal, with which it may be mixed valent."""
    if low <= 0 or not is_metal(symbol):
        return None
    return min((q for q in states if low < q <= low + 2), default=None)


def _beside_oxygen(symbols: Sequence[str], grid: np.ndarray, states: Sequence[int]) -> np.ndarray:
    """(n,) the cost of other anions beside oxygen, and of oxo anions that must share oxygens."""
    if "O" not in symbols:
        return np.zeros(len(grid))
    pairs = list(zip(symbols, states, strict=True))
    anions = sum(ANION_BESIDE_OXYGEN.get(symbol, 0.0) for symbol, state in pairs if state < 0)
    needed = sum(
        (OXO_ANIONS[s] * grid[:, k] for k, (s, state) in enumerate(pairs) if is_centre(s, state)),
        start=np.zeros(len(grid)),
    )
    condensed = np.where(grid[:, list(symbols).index("O")] < needed, CONDENSED, 0.0)
    return np.asarray(anions + condensed)


def is_centre(symbol: str, state: int) -> bool:
    """Whether an element in a state is the centre of an oxo anion."""
    metal = is_metal(symbol) and symbol not in METALLOIDS
    return state >= LEAST_CENTRE_STATE and symbol in OXO_ANIONS and not metal


def charge_pattern(
    symbols: Sequence[str], amounts: Sequence[int], states: Sequence[Sequence[int]]
) -> str:
    """Amounts with their charges and without their elements, e.g. '+1:1 +2:1 p+5:1 -2:4'.

    Marked are centres of oxo anions (p) and mixed valence (m).
    """
    parts = [
        f"{'p' if is_centre(s, q[0]) else ''}{q[0]:+d}{'m' if len(q) > 1 else ''}:{n}"
        for s, n, q in zip(symbols, amounts, states, strict=True)
    ]
    return " ".join(sorted(parts))


def by_symbol(
    symbols: Sequence[str], states: Sequence[tuple[int, ...]]
) -> Mapping[str, tuple[float, ...]]:
    return {s: tuple(map(float, q)) for s, q in zip(symbols, states, strict=True)}
