"""The prompts of crystal generators, for training and serving.

The words are those on which LLaMat-CIF was trained (Gruver et al., arXiv:2402.04379;
doi:10.1038/s42256-026-01199-8). `hullward-nano-cif` is trained on the same ones, and on a second
request for the asymmetric unit, which is our own. A prompt ends with a newline; the model's answer
follows at once.

LLaMat reads a formula as pymatgen spells it, 'Ca3(PO4)2'. The nano model counts better without
brackets and is given 'Ca3P2O8', which `flat_formula` makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts

TextForm = Literal["cell", "asymmetric"]  # every site of a cell, or one site an orbit

MASK = "[MASK]"
OPENING = "Below is a description of a bulk material. "
CELL = (
    "Generate a description of the lengths and angles of the lattice vectors and then the element "
    "type and coordinates for each atom within the lattice:\n"
)
ASYMMETRIC = (
    "Generate its space group number, then for each element its number in the unit cell and its "
    "Wyckoff sites with their free coordinates, then the free lengths and angles:\n"
)
FORMULA, ELEMENTS = "The chemical formula is ", "The elements are "
E_HULL, SPACE_GROUP = "The energy above the convex hull is ", "The spacegroup number is "
INFILL = (
    "Below is a partial description of a bulk material where one element has been replaced with "
    'the string "[MASK]":\n'
)
INFILL_ASK = "\nGenerate an element that could replace [MASK] in the bulk material:\n"

_FORMULA = re.compile(r"[A-Za-z0-9()]+")
_SYMBOL = re.compile(r"[A-Z][a-z]?")


def crystal_prompt(
    *,
    formula: str | None = None,
    elements: Sequence[str] = (),
    e_above_hull_ev_per_atom: float | None = None,
    space_group: int | None = None,
    form: TextForm = "cell",
) -> str:
    """The prompt for a crystal that obeys what is given; nothing given: any crystal.

    formula: as it is to stand in the prompt.  elements: symbols, kept in their order.
    e_above_hull_ev_per_atom: eV/atom, written with two decimals.  space_group: 1 to 230.
    form: of the text that is asked for.

    Raises ValueError for a wrong formula, symbol, height or space group.

    >>> print(crystal_prompt(formula="NaCl", space_group=225)[43:102])
    The chemical formula is NaCl. The spacegroup number is 225.
    """
    words = [OPENING]
    if formula is not None:
        if not _FORMULA.fullmatch(formula):
            raise ValueError(f"formula {formula!r}: expected letters, digits and brackets")
        words.append(f"{FORMULA}{formula}. ")
    if elements:
        if wrong := [x for x in elements if not _SYMBOL.fullmatch(x)]:
            raise ValueError(f"elements: {wrong[0]!r} is no symbol")
        words.append(f"{ELEMENTS}{', '.join(elements)}. ")
    if e_above_hull_ev_per_atom is not None:
        if not -10 < e_above_hull_ev_per_atom < 10:
            raise ValueError(
                f"energy above hull {e_above_hull_ev_per_atom} eV/atom is out of range"
            )
        words.append(f"{E_HULL}{_height(e_above_hull_ev_per_atom)}. ")
    if space_group is not None:
        if not 1 <= space_group <= 230:
            raise ValueError(f"space group {space_group}: numbers run from 1 to 230")
        words.append(f"{SPACE_GROUP}{space_group}. ")
    words.append({"cell": CELL, "asymmetric": ASYMMETRIC}[form])
    return "".join(words)


def infill_prompt(text: str, element: str) -> str:
    """The prompt that asks which element could replace `element` in a crystal text (cell form).

    Every line that is just `element` becomes the mask. Raises ValueError where there is none.
    """
    lines = text.split("\n")
    if element not in lines[2:]:
        raise ValueError(f"no site of {element} in the text")
    masked = lines[:2] + [MASK if line == element else line for line in lines[2:]]
    return INFILL + "\n".join(masked) + INFILL_ASK


def flat_formula(formula: str) -> str:
    """The reduced formula without brackets, elements from electropositive to electronegative.

    >>> flat_formula("Ca3(PO4)2"), flat_formula("O3Ti1Sr1")
    ('Ca3P2O8', 'SrTiO3')

    Raises InputError for a text that is no formula of whole numbers.
    """
    from pymatgen.core import Composition

    amounts = formula_amounts(formula)
    if any(not n.is_integer() for n in amounts.values()):
        raise InputError(f"{formula!r} has amounts that are not whole numbers")
    reduced = Composition(amounts).reduced_composition
    # noble gases have no electronegativity: they come first
    ordered = sorted(reduced.items(), key=lambda x: (x[0].data.get("X") or 0.0, x[0].symbol))
    return "".join(f"{el.symbol}{round(n) if n != 1 else ''}" for el, n in ordered)


def _height(ev_per_atom: float) -> str:
    text = f"{ev_per_atom:.2f}"
    return "0.00" if text == "-0.00" else text
