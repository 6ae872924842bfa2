"""Charge balance of formulas: a label and a ranking aid, never a proof.

Every element takes one of its common oxidation states. One cation at a time may be mixed
valent between two neighbouring states of its list (Fe3O4 is one Fe2+ and two Fe3+); anions are
not mixed. No element takes electrons from one that is clearly more electronegative. Peroxides
and superoxides of the electropositive metals are recognised. Charges do not apply to elements and
metals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.crystal.formulas import reduced_amounts
from hullward.tools.crystal.oxidation_states import known_states

States = Mapping[str, tuple[int, ...]]
Composition = Mapping[str, int | float]

# A cation may exceed an anion by this much on Pauling's scale: H in PH3, W in WTe2, Pt in PtTe2.
ELECTRONEGATIVITY_SLACK = 0.3
# Neighbouring states mix up to this distance: Pb2+ with Pb4+, but not Mn4+ with Mn7+.
WIDEST_MIX = 2
# Charge of an oxygen of an O2 unit, assumed only for compounds with the metals below.
DIOXYGEN = {Fraction(-1): "peroxide", Fraction(-1, 2): "superoxide"}
DIOXYGEN_METALS = frozenset({"Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba"})
METALLOIDS = frozenset({"B", "Si", "Ge", "As", "Sb", "Te", "Po"})
MAX_ENUMERATED = 3_000_000
FEW_COMBINATIONS = 10_000
MAX_STEPS = 2_000_000  # of one search for states; a second or two
MAX_DENOMINATOR = 10_000
ROUNDING_WITHIN = 0.01  # of an amount, as a fraction of whole numbers


@dataclass(frozen=True)
class ChargeClaim:
    """Whether a formula is charge balanced, and how.

    balanced: None where charges do not apply (elements, metals, elements without known states) or
    cannot be judged (traces, too many combinations).
    states: mean oxidation state of each element; empty unless balanced.
    """

    balanced: bool | None
    note: str
    states: Mapping[str, float]


def charge_balance(composition: Composition, allowed: States | None = None) -> ChargeClaim:
    """Look for oxidation states that sum to zero.

    composition: atoms per element symbol, any multiple of the formula.
    allowed: states that replace the common ones, for the elements it names.
    Raises InputError for an amount that is not positive and finite.
    """
    amounts = _whole_amounts(composition)
    if not amounts:
        return ChargeClaim(None, f"traces below 1 in {MAX_DENOMINATOR}: not judged", {})
    if len(amounts) == 1:
        return ChargeClaim(None, "element", {})
    if all(is_metal(s) for s in amounts):
        return ChargeClaim(None, "metal", {})
    choices = {s: common_states(s, allowed) for s in amounts}
    if unknown := sorted(s for s in amounts if not choices[s]):
        return ChargeClaim(None, f"no oxidation states known for {' '.join(unknown)}", {})
    combinations = math.prod(map(len, choices.values()))
    if combinations > FEW_COMBINATIONS and _steps(amounts, choices) > MAX_STEPS:
        return ChargeClaim(None, "too many combinations of states to try", {})
    states = _solve(amounts, choices)
    if states is not None:
        return ChargeClaim(True, states_text(states), _means(amounts, states))
    if claim := _dioxygen(amounts, choices, allowed):
        return claim
    if all(is_metal(s) or s in METALLOIDS for s in amounts):
        return ChargeClaim(None, "metal", {})
    return ChargeClaim(False, "no combination of common states", {})


def common_states(symbol: str, allowed: States | None = None) -> tuple[int, ...]:
    """Oxidation states to try for an element, likeliest first; empty if none is known."""
    if allowed is not None and symbol in allowed:
        return tuple(allowed[symbol])
    return known_states(symbol)


def has_bonded_carbon(states: Mapping[str, float]) -> bool:
    """Whether carbon is an anion below its full charge, so bonded to itself: C2 or C3 units."""
    return -4 < states.get("C", 0.0) < 0


def charge_balanced_formulas(
    elements: Sequence[str], max_coefficient: int, allowed: States | None = None
) -> list[dict[str, int]]:
    """Reduced formulas of all the given elements whose charges balance, simplest first.

    Formulas are ordered by their number of atoms, then those without mixed valence first, then by
    the coefficients of the elements in alphabetical order. A system of metals has no charges to
    balance: all its reduced formulas count. Raises InputError for no elements or too many cases.
    """
    symbols = sorted(set(elements))
    if not symbols or max_coefficient < 1 or max_coefficient ** len(symbols) > MAX_ENUMERATED:
        raise InputError(
            f"cannot enumerate formulas of {len(symbols)} elements with coefficients up to "
            f"{max_coefficient}: give at least one element, and fewer than {MAX_ENUMERATED} cases"
        )
    grid = np.indices((max_coefficient,) * len(symbols)).reshape(len(symbols), -1).T + 1
    grid = grid[np.gcd.reduce(grid, axis=1) == 1]
    penalty = np.zeros(len(grid), dtype=int)  # 0 plain, 1 mixed valent, 2 unbalanced
    if len(symbols) > 1 and not all(is_metal(s) for s in symbols):
        penalty = _penalties(symbols, grid, allowed)
    grid, penalty = grid[penalty < 2], penalty[penalty < 2]
    order = np.lexsort((*grid.T[::-1], penalty, grid.sum(axis=1)))
    return [dict(zip(symbols, map(int, row), strict=True)) for row in grid[order]]


def _penalties(symbols: Sequence[str], grid: np.ndarray, allowed: States | None) -> np.ndarray:
    """(n,) what each row of (n, k) coefficients needs: 0 one state each, 1 mixing, 2 impossible."""
    penalty = np.full(len(grid), 2)
    choices = {s: common_states(s, allowed) for s in symbols}
    for signed in sign_patterns(choices):
        for states in itertools.product(*(signed[s] for s in symbols)):
            charge = grid @ np.array(states)
            penalty[charge == 0] = 0
            for k, low in enumerate(states):
                if high := _next_state(low, signed[symbols[k]]):
                    mixed = (charge < 0) & (charge + grid[:, k] * (high - low) > 0)
                    penalty[mixed & (penalty == 2)] = 1
    for row in np.flatnonzero(penalty == 2):
        amounts = dict(zip(symbols, map(int, grid[row]), strict=True))
        if _dioxygen(amounts, choices, allowed):
            penalty[row] = 0
    return penalty


def _whole_amounts(composition: Composition) -> dict[str, int]:
    """Smallest whole numbers in the same ratio, elements in alphabetical order.

    Empty where traces make the ratio no fraction of whole numbers up to MAX_DENOMINATOR.
    """
    parts: dict[str, Fraction] = {}
    for symbol in sorted(composition, key=str):
        amount = float(composition[symbol])
        if not (math.isfinite(amount) and amount > 0):
            raise InputError(f"amount of {symbol} must be positive and finite, not {amount}")
        part = Fraction(amount).limit_denominator(MAX_DENOMINATOR)
        if abs(float(part) - amount) > ROUNDING_WITHIN * amount:
            return {}
        parts[str(symbol)] = part
    if not parts:
        raise InputError("a composition needs at least one element")
    scale = math.lcm(*(p.denominator for p in parts.values()))
    return reduced_amounts({s: int(p * scale) for s, p in parts.items()})


@cache
def is_metal(symbol: str) -> bool:
    """Whether pymatgen counts an element among the metals, so without METALLOIDS."""
    from pymatgen.core import Element

    return Element.is_valid_symbol(symbol) and Element(symbol).is_metal


def is_alloy(elements: Iterable[str]) -> bool:
    """Whether no element here is an anion by nature: metals and metalloids other than Te."""
    return all(is_metal(el) or el in METALLOIDS - {"Te"} for el in elements)


@cache
def electronegativity(symbol: str) -> float:
    """Pauling electronegativity, 0 if there is none."""
    from pymatgen.core import Element

    value = float(Element(symbol).data.get("X") or 0) if Element.is_valid_symbol(symbol) else 0.0
    return value if math.isfinite(value) else 0.0


def sign_patterns(
    choices: States, slack: float = ELECTRONEGATIVITY_SLACK
) -> Iterator[dict[str, tuple[int, ...]]]:
    """The choices with each element a cation or an anion, as electronegativities allow.

    slack: by how much a cation may exceed an anion on Pauling's scale.
    """
    halves = [
        [
            (s, half)
            for half in (tuple(x for x in xs if x > 0), tuple(x for x in xs if x < 0))
            if half
        ]
        for s, xs in choices.items()
    ]
    for pattern in itertools.product(*halves):
        cations = [electronegativity(s) for s, half in pattern if half[0] > 0]
        anions = [electronegativity(s) for s, half in pattern if half[0] < 0]
        if cations and anions and max(cations) <= min(anions) + slack:
            yield dict(pattern)


def _inverted(pattern: States) -> bool:
    """Whether a cation of a pattern is more electronegative than an anion of it."""
    cations = [electronegativity(s) for s, half in pattern.items() if half[0] > 0]
    anions = [electronegativity(s) for s, half in pattern.items() if half[0] < 0]
    return max(cations) > min(anions)


def _steps(amounts: Mapping[str, int], choices: States) -> int:
    """An upper bound on the sums that a search for states makes."""
    total = 0
    for pattern in sign_patterns(choices):
        spread = sum(n * (max(pattern[s]) - min(pattern[s])) for s, n in amounts.items())
        totals = min(math.prod(len(half) for half in pattern.values()), spread + 1)
        total += len(amounts) * sum(map(len, pattern.values())) * totals
    return total


def _next_state(state: int, states: Sequence[int]) -> int | None:
    """The next higher state, with which a cation may be mixed valent."""
    higher = [s for s in states if state < s <= state + WIDEST_MIX]
    return min(higher, default=None) if state > 0 else None


def _solve(amounts: Mapping[str, int], choices: States) -> dict[str, tuple[float, ...]] | None:
    """The likeliest states that balance; two states for a mixed-valent element."""
    patterns = list(sign_patterns(choices))
    plain = [
        (found[0], _inverted(p), found[1]) for p in patterns if (found := _sums(amounts, p).get(0))
    ]
    if plain:
        return {s: (float(q),) for s, q in min(plain)[-1]}
    mixed = []
    for pattern in patterns:
        for symbol, n in amounts.items():
            sums = _sums({s: m for s, m in amounts.items() if s != symbol}, pattern)
            for rank, low in enumerate(pattern[symbol]):
                high = _next_state(low, pattern[symbol])
                if high is None:
                    continue
                for total, (cost, states) in sums.items():
                    if n * low < -total < n * high:
                        two = (*states, (symbol, low), (symbol, high))
                        mixed.append((cost + rank, _inverted(pattern), two))
    if not mixed:
        return None
    best: dict[str, tuple[float, ...]] = {}
    for s, q in min(mixed)[-1]:
        best[s] = (*best.get(s, ()), float(q))
    return dict(sorted(best.items()))


Ranked = tuple[int, tuple[tuple[str, int], ...]]


def _sums(amounts: Mapping[str, int], choices: States) -> dict[int, Ranked]:
    """Every reachable total charge with its likeliest states, as (cost, ((symbol, state), …))."""
    reached: dict[int, Ranked] = {0: (0, ())}
    for symbol, n in amounts.items():
        grown: dict[int, Ranked] = {}
        for total, (cost, states) in reached.items():
            for rank, state in enumerate(choices[symbol]):
                here = (cost + rank, (*states, (symbol, state)))
                key = total + n * state
                if key not in grown or here < grown[key]:
                    grown[key] = here
        reached = grown
    return reached


def _means(amounts: Mapping[str, int], states: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Mean state of each element; that of a mixed-valent one follows from neutrality."""
    single = {s: q[0] for s, q in states.items() if len(q) == 1}
    rest = -sum(amounts[s] * q for s, q in single.items())
    return {s: single[s] if s in single else rest / amounts[s] for s in states}


def _dioxygen(
    amounts: Mapping[str, int], choices: States, allowed: States | None
) -> ChargeClaim | None:
    metals = [s for s in amounts if s != "O"]
    if "O" not in amounts or not DIOXYGEN_METALS.issuperset(metals) or "O" in (allowed or {}):
        return None
    charge = sum(amounts[s] * choices[s][0] for s in metals)
    state = Fraction(-charge, amounts["O"])
    if state not in DIOXYGEN:
        return None
    states = {s: float(choices[s][0]) for s in metals} | {"O": float(state)}
    note = f"{states_text({s: (q,) for s, q in states.items()})} ({DIOXYGEN[state]})"
    return ChargeClaim(True, note, states)


@cache
def _electronegativity(symbol: str) -> float:
    """Pauling's; 0 where there is none."""
    from pymatgen.core import Element

    chi = float(Element(symbol).X)
    return chi if chi == chi else 0.0


def states_text(states: Mapping[str, tuple[float, ...]]) -> str:
    """'Na+ Fe2+ P5+ O2-': cations first, then by electronegativity."""

    def one(q: float) -> str:
        return f"{abs(q):g}".removeprefix("1" if abs(q) == 1 else "") + "-+"[q > 0]

    order = sorted(states, key=lambda s: (states[s][0] < 0, _electronegativity(s), s))
    return " ".join(s + "/".join(map(one, states[s])) for s in order)
