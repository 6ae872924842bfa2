"""Compositional validity of generated crystals: SMACT's rules of thumb.

A formula passes when some oxidation states of its elements sum to zero with every cation less
electronegative than every anion. Elements and alloys of metals pass too. The rules are those of
SMACT (Davies et al., doi:10.21105/joss.01361) as CDVAE applies them (arXiv:2110.06197), and the
states are SMACT's list of 2014, on which published figures are based. They are lax: the rate that
random amounts of the same elements reach is part of every report.

Campaigns use the stricter `hullward.tools.crystal.charges`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from hullward.tools.crystal import reduced_amounts

# Every oxidation state SMACT lists for an element (MIT licence); elements without any are absent.
_STATES = """
H -1 1; Li 1; Be 1 2; B 1 2 3; C -4 -3 -2 -1 1 2 3 4; N -3 -2 -1 1 2 3 4 5; O -2 -1 1 2; F -1;
Na -1 1; Mg 1 2; Al 1 2 3; Si -4 -3 -2 -1 1 2 3 4; P -3 -2 -1 1 2 3 4 5; S -2 -1 1 2 3 4 5 6;
Cl -1 1 2 3 4 5 6 7; K -1 1; Ca 1 2; Sc 1 2 3; Ti -1 1 2 3 4; V -1 1 2 3 4 5;
Cr -2 -1 1 2 3 4 5 6; Mn -3 -2 -1 1 2 3 4 5 6 7; Fe -2 -1 1 2 3 4 5 6; Co -1 1 2 3 4 5;
Ni -1 1 2 3 4; Cu 1 2 3 4; Zn 1 2; Ga 1 2 3; Ge -4 -3 -2 -1 1 2 3 4; As -3 1 2 3 5; Se -2 1 2 4 6;
Br -1 1 2 3 4 5 7; Kr 2; Rb -1 1; Sr 1 2; Y 1 2 3; Zr 1 2 3 4; Nb -1 1 2 3 4 5;
Mo -2 -1 1 2 3 4 5 6; Tc -3 -1 1 2 3 4 5 6 7; Ru -2 1 2 3 4 5 6 7 8; Rh -1 1 2 3 4 5 6;
Pd 1 2 4 6; Ag 1 2 3 4; Cd 1 2; In 1 2 3; Sn -4 2 4; Sb -3 3 5; Te -2 2 4 5 6; I -1 1 3 4 5 7;
Xe 1 2 4 6 8; Cs -1 1; Ba 2; La 2 3; Ce 2 3 4; Pr 2 3 4; Nd 2 3 4; Pm 2 3; Sm 2 3; Eu 2 3;
Gd 1 2 3; Tb 1 2 3 4; Dy 2 3 4; Ho 2 3; Er 2 3; Tm 2 3; Yb 2 3; Lu 3; Hf 2 3 4; Ta -1 2 3 4 5;
W -2 -1 1 2 3 4 5 6; Re -3 -1 1 2 3 4 5 6 7; Os -2 -1 1 2 3 4 5 6 7 8; Ir -3 -1 1 2 3 4 5 6 7 8;
Pt -2 -1 1 2 3 4 5 6; Au -1 1 2 3 5; Hg 1 2 4; Tl -1 1 3; Pb -4 2 4; Bi -3 1 3 5 7;
Po -2 2 4 5 6; At -1 1 3 5 7; Rn 2 6; Fr 1; Ra 2; Ac 2 3; Th 2 3 4; Pa 2 3 4 5; U 2 3 4 5 6;
Np 3 4 5 6 7; Pu 2 3 4 5 6 7 8; Am 2 3 4 5 6 7; Cm 2 3 4 6 8; Bk 2 3 4; Cf 2 3 4; Es 2 3 4;
Fm 2 3; Md 2 3; No 2 3; Lr 3; Rf 4; Db 5; Sg 6; Bh 7; Hs 8"""
# SMACT's metals: with germanium and antimony, without promethium.
_METALS = frozenset(
    (  # noqa: SIM905 - a list literal would take a page
        "Li Be Na Mg Al K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd "
        "In Sn Sb Cs Ba La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb "
        "Bi Po Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No"
    ).split(" ")
)


def smact_valid(amounts: Mapping[str, int]) -> bool:
    """Whether a formula passes. amounts: atoms of each element, any multiple of the formula.

    >>> smact_valid({"Na": 1, "Cl": 1}), smact_valid({"Na": 1, "Cl": 2}), smact_valid({"Cu": 7})
    (True, False, True)
    """
    return _valid(tuple(sorted(reduced_amounts(amounts).items())))


def random_amounts(
    compositions: Sequence[Mapping[str, int]], seed: int = 0
) -> list[dict[str, int]]:
    """The control: the elements of each composition with the amounts of another, in random order.

    The other has as many elements and is drawn from the same list.
    """
    rng = np.random.default_rng(seed)
    pools: dict[int, list[tuple[int, ...]]] = {}
    for composition in compositions:
        pools.setdefault(len(composition), []).append(tuple(composition.values()))
    drawn = []
    for composition in compositions:
        pool = pools[len(composition)]
        amounts = rng.permutation(pool[int(rng.integers(len(pool)))])
        drawn.append(dict(zip(composition, map(int, amounts), strict=True)))
    return drawn


@cache
def _valid(amounts: tuple[tuple[str, int], ...]) -> bool:
    symbols = [symbol for symbol, _ in amounts]
    if len(amounts) == 1 or _METALS.issuperset(symbols):
        return True
    states, pauling = _states(), _electronegativities(tuple(symbols))
    if pauling is None or any(symbol not in states for symbol in symbols):
        return False
    ordered = sorted(amounts, key=lambda pair: pauling[pair[0]])
    for cut in range(1, len(ordered)):  # cations before the cut, anions from there on
        if pauling[ordered[cut - 1][0]] == pauling[ordered[cut][0]]:
            continue
        sums = {0}
        for index, (symbol, n) in enumerate(ordered):
            sign = 1 if index < cut else -1
            sums = {s + n * q for s in sums for q in states[symbol] if q * sign > 0}
        if 0 in sums:
            return True
    return False


@cache
def _states() -> dict[str, tuple[int, ...]]:
    entries = (entry.split() for entry in _STATES.split(";"))
    return {symbol: tuple(map(int, numbers)) for symbol, *numbers in entries}


@cache
def _electronegativities(symbols: tuple[str, ...]) -> dict[str, float] | None:
    """Pauling electronegativities; None if an element has none, which fails the rules."""
    from pymatgen.core import Element

    found = {symbol: Element(symbol).data.get("X") for symbol in symbols}
    if any(not isinstance(x, int | float) or math.isnan(x) for x in found.values()):
        return None
    return {symbol: float(x) for symbol, x in found.items() if x is not None}
