"""How a report names things: space groups, reflections, candidates, systems, searches elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from hullward.models.crystal import Crystal
from hullward.tools.crystal import space_group_symbol

MATERIALS_PROJECT = "https://next-gen.materialsproject.org/materials"
RADIATION = "CuKa"
TWO_THETA_DEG = (5.0, 90.0)
STRONGEST = 6  # lines of a powder pattern that are named
ID_CHARS = 10  # of a candidate's id in tables: 'c-4d10d3d6'


def space_group(number: int | None) -> str:
    """'Fd-3m (227)', 'C2/m (12)', 'Cmc2₁ (36)'; a dash while unknown."""
    if number is None:
        return "—"
    symbol = space_group_symbol(number)
    return re.sub(r"_(\d)", lambda m: chr(0x2080 + int(m[1])), symbol) + f" ({number})"


def symmetry_words(row: Mapping[str, Any]) -> tuple[str, str]:
    """The space group that a row of `results` is shown in, and a line on what it rests on."""
    loose, tight = (space_group(row[f"space_group_{at}"]) for at in ("loose", "tight"))
    relaxed = f"{tight} as relaxed at 0.01 Å"
    if row["symmetrised_within_a"] is not None:
        group, within = space_group(row["space_group"]), row["symmetrised_within_a"]
        higher = f"{1000 * row['symmetrised_higher_ev_per_atom']:+.1f}".replace("-", "−")
        return group, f"{relaxed}; {group} within {within:g} Å at {higher} meV/atom"
    if row["not_symmetrised"]:
        return tight, f"{relaxed}; {loose} at 0.1 Å, not accepted: {row['not_symmetrised']}"
    if loose == tight:
        return tight, f"{tight} as relaxed, at 0.01 Å and at 0.1 Å"
    return f"{loose} at 0.1 Å", f"{relaxed}; {loose} at 0.1 Å, energies not compared"


def reflections(crystal: Crystal) -> str:
    """The strongest lines of a powder for Cu Kα, by 2θ with % of the strongest: '31.7° 100'.

    Empty where no table says how an element scatters.
    """
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    calculator = XRDCalculator(RADIATION)
    try:
        pattern = calculator.get_pattern(crystal.to_structure(), two_theta_range=TWO_THETA_DEG)
    except ValueError:
        return ""
    lines = sorted(zip(pattern.x, pattern.y, strict=True), key=lambda line: -line[1])
    return ", ".join(f"{angle:.1f}° {height:.0f}" for angle, height in sorted(lines[:STRONGEST]))


def short_id(identifier: str) -> str:
    """The beginning of a candidate's or proposal's id; ids of phases stay whole."""
    return identifier[:ID_CHARS] if re.fullmatch(r"[cx]-[0-9a-f]{16,}", identifier) else identifier


def system_name(chemsys: str, order: Sequence[str]) -> str:
    """'Fe-Na-O-P' in the user's order of elements: 'Na-Fe-P-O'; elements not in it last."""
    place = {element: number for number, element in enumerate(order)}
    elements = sorted(chemsys.split("-"), key=lambda e: (place.get(e, len(place)), e))
    return "-".join(elements)


def search_links(formula: str, chemsys: str) -> tuple[tuple[str, str], ...]:
    """(what, address) of searches in the Materials Project; nothing is loaded until one clicks."""
    pages = (("formula", formula), ("chemsys", chemsys))
    return tuple((value, f"{MATERIALS_PROJECT}?{key}={quote(value)}") for key, value in pages)
