"""Why a formula is likely, in words."""

from __future__ import annotations

from collections.abc import Sequence

from hullward.tools.crystal.charges import is_alloy, states_text
from hullward.tools.crystal.stoichiometry.balance import ZINTL_STATES, by_symbol
from hullward.tools.crystal.stoichiometry.counts import Amounts

# Families of intermetallics by their amounts, in any order of the elements.
FAMILIES = {
    (1, 1): "AB stoichiometry (CsCl, CrB, …)",
    (1, 2): "AB2 stoichiometry (Laves phases, MoSi2, …)",
    (1, 3): "AB3 stoichiometry (Cu3Au, Cr3Si, …)",
    (1, 4): "AB4 stoichiometry (Ni4Mo, BaAl4, …)",
    (1, 5): "AB5 stoichiometry (CaCu5, …)",
    (2, 3): "A2B3 stoichiometry (Ni2Al3, …)",
    (3, 5): "A5B3 stoichiometry (Mn5Si3, Cr5B3, …)",
    (6, 23): "A6B23 stoichiometry (Th6Mn23)",
    (1, 1, 1): "ABC stoichiometry (half-Heusler, TiNiSi, ZrNiAl, …)",
    (1, 1, 2): "A2BC stoichiometry (Heusler, …)",
    (1, 2, 2): "AB2C2 stoichiometry (ThCr2Si2, CaAl2Si2, …)",
    (1, 1, 1, 1): "ABCD stoichiometry (quaternary Heusler, …)",
}
NAMED_NEIGHBOURS = 2


def reason_of_formula(
    symbols: Sequence[str],
    amounts: Amounts,
    states: Sequence[tuple[int, ...]] | None,
    known_neighbours: Sequence[str],
    compounds: int,
) -> str:
    """The reason, e.g. 'charge-balanced Na+ Fe2+ P5+ O2-; as LiFePO4 (known)'.

    states: that balance the formula; None where none do.
    known_neighbours: known compounds with one element exchanged for a neighbour.
    compounds: known ones of this stoichiometry, of elements of the same classes.
    """
    parts = []
    family = FAMILIES.get(tuple(sorted(amounts))) if is_alloy(symbols) else None
    if states is not None:
        text = states_text(by_symbol(symbols, states))
        zintl = is_alloy(symbols) and any(
            q[0] < 0 and s in ZINTL_STATES for s, q in zip(symbols, states, strict=True)
        )
        parts.append(f"{'Zintl' if zintl else 'charge-balanced'} {text}")
    elif family:
        parts.append(family)
    if known_neighbours:
        parts.append(f"as {' and '.join(known_neighbours[:NAMED_NEIGHBOURS])} (known)")
    elif compounds:
        plural = "s" if compounds > 1 else ""
        parts.append(f"as {compounds} known compound{plural} of such elements")
    return "; ".join(parts) or "combinatorial"
