"""Default oxidation states of the elements: one table for labels, coverage, cards and planner.

The states are those that pymatgen lists for an element as common and as frequent in the ICSD; for
elements that its ICSD statistics lack, every positive state it knows.
Their order, likeliest first, and the line between usual and rarer ones are ours. Usual are the
states of ordinary solids: Mn3+ beside Mn2+ and Mn4+, and P5+, S6+, N5+ as the centres of their oxo
anions. Metals without an anion have no charges to balance, and Zintl phases have rules of their
own (`stoichiometry`).
"""

from __future__ import annotations

from functools import cache

# symbol: usual states | rarer states, each likeliest first
_TABLE = """
H 1 -1; Li 1; Be 2; B 3 | -3; C 4 -4 | 3 2 -1 -2 -3 1; N -3 5 | 3 1 -1 -2; O -2; F -1;
Na 1; Mg 2; Al 3; Si 4 -4; P 5 -3 | 3 4 -1 -2; S -2 6 | 4 -1 2; Cl -1 | 7 5 3 1; K 1; Ca 2;
Sc 3 | 2; Ti 4 3 | 2; V 5 4 3 | 2; Cr 3 6 | 2 4 5; Mn 2 3 4 | 7; Fe 3 2; Co 2 3 | 4 1;
Ni 2 3 | 4 1; Cu 2 1 | 3; Zn 2; Ga 3 | 2; Ge 4 -4 | 2 3; As 5 3 -3 | -1 -2 2; Se -2 4 6 | -1 2;
Br -1 | 5 3 1; Kr | 2; Rb 1; Sr 2; Y 3; Zr 4 | 3 2; Nb 5 4 | 3 2; Mo 6 4 | 5 3 2;
Tc 7 4 | 6 5 3 2 1; Ru 4 5 3 | 6 2; Rh 3 4; Pd 2 4; Ag 1 | 2 3; Cd 2; In 3 1 | 2;
Sn 4 2 | -4 3; Sb 3 5 -3 | -1 -2; Te -2 4 6 | -1 2; I -1 5 | 7 3 1; Xe 6 4 2; Cs 1; Ba 2;
La 3 | 2; Ce 3 4; Pr 3 | 4; Nd 3 | 2; Pm 3; Sm 3 | 2; Eu 2 3; Gd 3; Tb 3 | 4; Dy 3; Ho 3; Er 3;
Tm 3; Yb 3 2; Lu 3; Hf 4; Ta 5 | 4 3; W 6 4 | 5 3 2; Re 7 4 | 6 5 3; Os 4 8 | 6 5 7 3 2 1;
Ir 4 3 | 5; Pt 4 2 | 5 6; Au 3 1 | 2 5; Hg 2 1; Tl 1 3; Pb 2 4; Bi 3 | 5 2 1; Po -2 4 2 | 6;
At -1 1 | 5 3; Fr 1; Ra 2; Ac 3; Th 4; Pa 5 | 4 3; U 6 4 | 5 3; Np 5 | 4 6 3 7; Pu 4 | 3 6 5 7;
Am 3 | 4 2 5 6; Cm 3 | 4; Bk 3 | 4; Cf 3 | 2 4; Es 3 | 2; Fm 3 | 2; Md 3 | 2; No 2 | 3; Lr 3;
Rf 4"""


@cache
def usual_states(symbol: str) -> tuple[int, ...]:
    """The states of ordinary solids, likeliest first; empty for an element without any."""
    return _states().get(symbol, ((), ()))[0]


@cache
def known_states(symbol: str) -> tuple[int, ...]:
    """The usual states, then the rarer ones; empty for an element without any."""
    usual, rarer = _states().get(symbol, ((), ()))
    return usual + rarer


@cache
def _states() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    found = {}
    for entry in _TABLE.split(";"):
        usual, _, rarer = entry.partition("|")
        symbol, *states = usual.split()
        found[symbol] = tuple(map(int, states)), tuple(map(int, rarer.split()))
    return found
