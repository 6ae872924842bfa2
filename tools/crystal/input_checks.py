"""Checks of every crystal that is read: finite numbers, a possible cell, real elements.

Readers differ in grammar but share these last checks, which never change a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.formulas import ELEMENTS
from hullward.tools.records import Flaw, Reason

MAX_SITES = 500
MAX_LENGTH_A = 1000.0
MAX_FRACTION = 1000.0  # beyond it, wrapping into the cell leaves few correct digits
MIN_FLATNESS = 1e-5  # cell volume over a·b·c


def checked_crystal(
    lattice: object, species: Sequence[str], frac_coords: object, otherwise: Reason
) -> Crystal | Flaw:
    """The crystal of a (3, 3) lattice in Å, n symbols and (n, 3) fractions, or its flaw.

    `otherwise` is the reason given for faults in neither the cell nor an element.
    """
    try:
        cell = np.asarray(lattice, dtype=float)
        coords = np.asarray(frac_coords, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        return Flaw(reason=otherwise, detail=f"not an array of numbers: {shorten(str(error))}")
    if not species:
        return Flaw(reason=Reason.NO_SITES, detail="no atoms")
    if len(species) > MAX_SITES:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{len(species)} sites, limit {MAX_SITES}")
    for number, symbol in enumerate(species, 1):
        if symbol not in ELEMENTS:
            detail = f"site {number}: {shorten(symbol)} is not an element"
            return Flaw(reason=Reason.UNKNOWN_ELEMENT, detail=detail)
    if cell.shape != (3, 3) or coords.shape != (len(species), 3):
        detail = f"shapes: lattice {cell.shape}, {len(species)} species, coordinates {coords.shape}"
        return Flaw(reason=otherwise, detail=detail)
    if fault := _cell_fault(cell):
        return Flaw(reason=Reason.IMPOSSIBLE_CELL, detail=fault)
    if not bool(np.all(np.abs(coords) <= MAX_FRACTION)):  # False for NaN too
        detail = f"a fractional coordinate is not finite or beyond {MAX_FRACTION:g}"
        return Flaw(reason=otherwise, detail=detail)
    return Crystal.from_arrays(cell, species, coords)


def _cell_fault(cell: np.ndarray) -> str | None:
    """Why a (3, 3) matrix in Å is no cell; None if it is one."""
    if not bool(np.all(np.isfinite(cell))):
        return "the lattice is not finite"
    if float(np.max(np.abs(cell))) > MAX_LENGTH_A:
        return f"a lattice vector is longer than {MAX_LENGTH_A:g} Å"
    a, b, c = (float(x) for x in np.linalg.norm(cell, axis=1))
    volume = abs(float(np.linalg.det(cell)))
    if min(a, b, c) <= 0 or not math.isfinite(volume) or volume <= MIN_FLATNESS * a * b * c:
        return f"lengths {a:.4g}, {b:.4g}, {c:.4g} Å span a volume of {volume:.3g} Å³"
    return None


def shorten(text: str, width: int = 60) -> str:
    """A text for a message, shortened and in plain ASCII."""
    return ascii(text if len(text) <= width else text[:width] + "...")
