"""Numbers of atoms and coordinates that Wyckoff positions allow, for the grammar of form B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from hullward.models import wyckoff
from hullward.tools.crystal.input_checks import MAX_SITES
from hullward.tools.crystal.text.asymmetric import PARTS
from hullward.tools.crystal.text.word_grammar import Words

MOST = 4 * MAX_SITES  # atoms in a conventional cell
GENERIC = ((13, 29), (37, 71), (7, 43), (61, 19))  # hundredths on no symmetry element


@cache
def centring(group: int) -> int:
    """The number of primitive cells in the conventional one."""
    return round(1 / abs(float(np.linalg.det(wyckoff.primitive_basis(group)))))


@cache
def multiplicities(group: int) -> tuple[int, ...]:
    return tuple(sorted({p.multiplicity for p in wyckoff.positions(group).values()}))


Stock = tuple[tuple[int, int], ...]  # (multiplicity, unused positions without free coordinates)


@lru_cache(maxsize=4096)
def stock_left(group: int, taken: tuple[str, ...]) -> Stock:
    positions = wyckoff.positions(group).items()
    left = Counter(p.multiplicity for name, p in positions if not p.free and name not in taken)
    return tuple(sorted(left.items()))


def placeable(group: int, stock: Stock, needs: tuple[int, ...]) -> bool:
    """Whether some positions hold exactly `needs` atoms of each element."""
    return _placeable(_free_multiplicities(group), stock, tuple(sorted(needs)))


@lru_cache(maxsize=1 << 17)
def _placeable(free: tuple[int, ...], stock: Stock, needs: tuple[int, ...]) -> bool:
    # Numbers that positions with free coordinates can hold take nothing from the others.
    sums = _sums(free)
    hard = tuple(n for n in needs if not sums >> n & 1)
    if not hard:
        return True
    first, rest = hard[-1], hard[:-1]
    for i, (m, left) in enumerate(stock):
        if m <= first:
            fewer = ((m, left - 1),) if left > 1 else ()
            less = tuple(sorted((*rest, first - m)))
            if _placeable(free, (*stock[:i], *fewer, *stock[i + 1 :]), less):
                return True
    return False


@cache
def _sums(terms: tuple[int, ...]) -> int:
    """Bit n is set if n is a sum of these terms, each any number of times; 0 is."""
    bits = 1
    for term in terms:
        shift = term
        while shift <= MOST:
            bits |= bits << shift
            shift *= 2
    return bits


@dataclass(frozen=True)
class Need:
    """The atoms that must fit beside the element being placed."""

    numbers: tuple[int, ...] = ()  # of elements to come, if known
    missing: int = 0  # elements that must come, in any numbers
    spare: int = 0  # elements that may come
    low: int = 0  # least number of atoms of all of those together
    most: int = 0  # and most

    def fits(self, group: int, taken: tuple[str, ...], left: int) -> bool:
        """Whether unused positions can hold these atoms and `left` atoms of the element."""
        stock, own = stock_left(group, taken), (left, *self.numbers)
        if not placeable(group, stock, own):
            return False
        if not self.missing and self.low <= 0:
            return True
        others = max(self.missing, 1)
        general = max(multiplicities(group))  # free coordinates: never used up
        if others > self.spare:
            return False
        if self.low <= 0 and others * general <= self.most:
            return True
        return any(
            placeable(group, stock, (*own, *(m,) * (others - 1), last))
            for m in multiplicities(group)
            for last in range(max(1, self.low - m * (others - 1)), self.most - m * (others - 1) + 1)
        )


@lru_cache(maxsize=16384)
def open_positions(group: int, taken: tuple[str, ...], left: int, need: Need) -> Words:
    """Positions that an element with `left` atoms to place may take next."""
    return Words(
        name
        for name, position in wyckoff.positions(group).items()
        if name not in taken
        and position.multiplicity <= left
        and need.fits(
            group,
            taken if position.free else (*taken, name),
            left - position.multiplicity,
        )
    )


@lru_cache(maxsize=16384)
def numbers_of_formula(
    group: int,
    taken: tuple[str, ...],
    times: int,
    own: int,
    rest: tuple[int, ...],
    low: int,
    most: int,
) -> Words:
    """Possible numbers of atoms of an element with `own` atoms in a formula unit.

    rest: atoms of the elements to come in a unit.  times: formula units in the cell, or 0 for any
    number that gives `low` to `most` atoms.
    """
    if times:
        options: Iterable[int] = (times,)
    else:
        unit, cells = own + sum(rest), centring(group)
        options = (
            t for t in range(1, most // unit + 1) if t * unit >= low and t * unit % cells == 0
        )
    return number_words(
        tuple(
            t * own for t in options if Need(tuple(t * n for n in rest)).fits(group, taken, t * own)
        )
    )


@lru_cache(maxsize=16384)
def numbers_of_element(group: int, taken: tuple[str, ...], need: Need) -> Words:
    """Possible numbers of atoms of an element; low and most of the need include its own atoms."""
    return number_words(
        tuple(
            n
            for n in range(1, need.most + 1)
            if replace(need, low=need.low - n, most=need.most - n).fits(group, taken, n)
        )
    )


@lru_cache(maxsize=4096)
def number_words(numbers: tuple[int, ...]) -> Words:
    return Words(f"{n} " for n in numbers)


@cache
def _free_multiplicities(group: int) -> tuple[int, ...]:
    table = wyckoff.positions(group).values()
    return tuple(sorted({p.multiplicity for p in table if p.free}))


Placed = tuple[str, tuple[int, ...]]  # a position and its free coordinates, hundredths


@lru_cache(maxsize=16384)
def open_coordinates(
    group: int, name: str, given: tuple[int, ...], orbits: tuple[Placed, ...]
) -> Words:
    """Values of the next free coordinate that keep the symmetry and take no point twice."""
    position = wyckoff.positions(group)[name]
    taken = [orbit_code(group, *placed) for placed in orbits]
    more = len(position.free) - len(given) - 1
    allowed = np.zeros(100, dtype=bool)
    for rest in GENERIC if more else ((),):
        values = np.zeros((100, 3), dtype=int)
        values[:, list(position.free[: len(given)])] = given
        values[:, position.free[len(given)]] = np.arange(100)
        values[:, list(position.free[len(given) + 1 :])] = rest[:more]
        codes = _codes(group, position, values)
        allowed |= (codes >= 0) & ~np.isin(codes, taken)
    return _fractions(np.packbits(allowed).tobytes())


@lru_cache(maxsize=4096)
def _fractions(bits: bytes) -> Words:
    """One cached list for each set of allowed coordinates."""
    allowed = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))
    return Words(f" 0.{n:02d}" for n in np.flatnonzero(allowed))


def _codes(group: int, position: wyckoff.Position, values: np.ndarray) -> np.ndarray:
    """(n,) a number for the orbit of each row of free coordinates (n, 3), in hundredths.

    It is -1 if the coordinates give fewer points than the position has.
    """
    shift = np.rint(position.shift * PARTS).astype(int)
    firsts = values @ position.linear.T * (PARTS // 100) + shift
    rotations, translations = wyckoff.operations(group)
    images = np.einsum("oij,nj->noi", rotations, firsts) + np.rint(translations * PARTS).astype(int)
    codes = np.sort((images % PARTS) @ np.array([PARTS * PARTS, PARTS, 1]), axis=1)
    distinct = 1 + (np.diff(codes, axis=1) != 0).sum(axis=1)
    return np.where(distinct == position.multiplicity, codes[:, 0], -1)


@lru_cache(maxsize=16384)
def orbit_code(group: int, name: str, free: tuple[int, ...]) -> int:
    position = wyckoff.positions(group)[name]
    values = np.zeros((1, 3), dtype=int)
    values[:, list(position.free)] = free
    return int(_codes(group, position, values)[0])
