"""What Wyckoff positions can hold, for the grammar of form B: numbers of atoms, coordinates."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from hullward.models import wyckoff
from hullward.tools.asymmetric_text import PARTS
from hullward.tools.word_grammar import Words

GENERIC = ((13, 29), (37, 71), (7, 43), (61, 19))  # hundredths that no symmetry element passes


@cache
def centring(group: int) -> int:
    """Primitive cells in the conventional one."""
    return round(1 / abs(float(np.linalg.det(wyckoff.primitive_basis(group)))))


@cache
def multiplicities(group: int) -> tuple[int, ...]:
    return tuple(sorted({p.multiplicity for p in wyckoff.positions(group).values()}))


Stock = tuple[tuple[int, int], ...]  # (multiplicity, how many positions without freedom are left)


@lru_cache(maxsize=4096)
def stock_left(group: int, taken: tuple[str, ...]) -> Stock:
    left: dict[int, int] = {}
    for name, position in wyckoff.positions(group).items():
        if not position.free and name not in taken:
            left[position.multiplicity] = left.get(position.multiplicity, 0) + 1
    return tuple(sorted(left.items()))


@lru_cache(maxsize=65536)
def placeable(group: int, stock: Stock, needs: tuple[int, ...]) -> bool:
    """Whether positions can be found that hold exactly `needs` atoms of each element."""
    needs = tuple(sorted((n for n in needs if n), reverse=True))
    if not needs:
        return True
    first, rest = needs[0], needs[1:]
    for m in _free_multiplicities(group):
        if m <= first and placeable(group, stock, (first - m, *rest)):
            return True
    for i, (m, left) in enumerate(stock):
        if m <= first:
            fewer = ((m, left - 1),) if left > 1 else ()
            if placeable(group, (*stock[:i], *fewer, *stock[i + 1 :]), (first - m, *rest)):
                return True
    return False


@cache
def _free_multiplicities(group: int) -> tuple[int, ...]:
    table = wyckoff.positions(group).values()
    return tuple(sorted({p.multiplicity for p in table if p.free}))


@lru_cache(maxsize=16384)
def open_coordinates(
    group: int, name: str, said: tuple[int, ...], orbits: tuple[int, ...]
) -> Words:
    """The next free coordinate: what leaves a position its own symmetry, and no point twice."""
    position = wyckoff.positions(group)[name]
    more = len(position.free) - len(said) - 1
    open_ = np.zeros(100, dtype=bool)
    for rest in GENERIC if more else ((),):
        values = np.zeros((100, 3), dtype=int)
        values[:, list(position.free[: len(said)])] = said
        values[:, position.free[len(said)]] = np.arange(100)
        values[:, list(position.free[len(said) + 1 :])] = rest[:more]
        codes = _codes(group, position, values)
        open_ |= (codes >= 0) & ~np.isin(codes, orbits)
    return Words(f" 0.{n:02d}" for n in np.flatnonzero(open_))


def _codes(group: int, position: wyckoff.Position, values: np.ndarray) -> np.ndarray:
    """(n,) a number for each orbit of free coordinates (n, 3), in hundredths: equal for equal ones.

    -1 where the coordinates give fewer points than the position has.
    """
    shift = np.rint(position.shift * PARTS).astype(int)
    firsts = values @ position.linear.T * (PARTS // 100) + shift
    rotations, translations = wyckoff.operations(group)
    images = np.einsum("oij,nj->noi", rotations, firsts) + np.rint(translations * PARTS).astype(int)
    codes = np.sort((images % PARTS) @ np.array([PARTS * PARTS, PARTS, 1]), axis=1)
    distinct = 1 + (np.diff(codes, axis=1) != 0).sum(axis=1)
    return np.where(distinct == position.multiplicity, codes[:, 0], -1)


def orbit_code(group: int, name: str, free: tuple[int, ...]) -> int:
    position = wyckoff.positions(group)[name]
    values = np.zeros((1, 3), dtype=int)
    values[:, list(position.free)] = free
    return int(_codes(group, position, values)[0])
