"""Classes of elements that form compounds of the same stoichiometries, and close neighbours."""

from __future__ import annotations

from functools import cache

SINGLE = frozenset({"H", "B", "C", "N", "O", "F"})  # unlike their groups
# Families of columns, for systems whose own classes have few known compounds.
COARSE = {
    "g2": "E",
    "An": "R",
    **dict.fromkeys(("g4", "g5", "g6", "g7"), "T"),
    **dict.fromkeys(("g8", "g9", "g10", "g11"), "L"),
    **dict.fromkeys(("g12", "g13"), "M"),
    **dict.fromkeys(("g14", "B"), "Q"),
    **dict.fromkeys(("N", "Pn"), "V"),
    **dict.fromkeys(("O", "Ch"), "VI"),
    **dict.fromkeys(("F", "X"), "VII"),
}
RARE_EARTHS = (
    "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Y", "Er", "Tm", "Yb", "Lu",
    "Sc",
)  # fmt: skip  # by falling radius of R3+


@cache
def element_class(symbol: str) -> str:
    """The class of an element: its column, with exceptions; e.g. 'g8', 'Pn' (P to Bi), 'R'."""
    from pymatgen.core import Element

    element = Element(symbol)
    if symbol in SINGLE:
        return symbol
    if symbol in RARE_EARTHS:
        return "R"
    if element.is_actinoid:
        return "An"
    return {15: "Pn", 16: "Ch", 17: "X"}.get(element.group, f"g{element.group}")


@cache
def coarse_class(symbol: str) -> str:
    """The class of an element in a division of half as many."""
    own = element_class(symbol)
    return COARSE.get(own, own)


@cache
def neighbours(symbol: str) -> tuple[str, ...]:
    """Elements that most likely form the same compounds.

    Above and below in the group, beside in a row of transition metals, and the three nearest
    rare earths on each side. Hydrogen has none.
    """
    from pymatgen.core import Element

    if symbol in RARE_EARTHS:
        at = RARE_EARTHS.index(symbol)
        return (*RARE_EARTHS[max(0, at - 3) : at], *RARE_EARTHS[at + 1 : at + 4])
    here, found = Element(symbol), []
    if symbol == "H":
        return ()
    for other in Element:
        if other.is_lanthanoid or other.is_actinoid != here.is_actinoid or not 1 < other.Z <= 96:
            continue
        beside = other.row == here.row and abs(other.Z - here.Z) == 1
        if (other.group == here.group and abs(other.row - here.row) == 1) or (
            beside and here.is_transition_metal and other.is_transition_metal
        ):
            found.append(str(other.symbol))
    return tuple(found)
