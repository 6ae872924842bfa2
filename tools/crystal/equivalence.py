"""Whether two crystals are the same, tried in several cells.

First in their primitive cells. A primitive cell is one within a tolerance, so two crystals that are
nearly the same may have primitive cells of different size where both lie near that tolerance. They
are compared again in the cells that remain without it, and one as a repetition of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.geometry import compact_cell, plane_spacings_a
from hullward.tools.crystal.reduced_cell import Cell, reduced_cell
from hullward.tools.crystal.repetition import NOISE, may_repeat, repeated_rms_displacement
from hullward.tools.crystal.superposition import may_superpose, rms_displacement

# Compared by content only, because reduction and superposition would take minutes and gigabytes:
# primitive cells with more sites than this (time grows with the cube of the sites and more),
MAX_MATCHED_SITES = 200
# needles and sheets with more lattice points than this within 1.2 of the longest edge,
MAX_LATTICE_POINTS = 20_000
# and cells thinner than any crystal's.
THINNEST_A = 0.5
# rms values closer than this tie, and the entry added first wins.
RMS_DIGITS = 6
# What reduction and superposition raise on degenerate cells (LinAlgError is a ValueError).
CELL_ERRORS = (ValueError, ArithmeticError, IndexError)
UNREDUCED_TOLERANCE_A = 0.05  # of translations; relaxed sites are no more exact
UNREDUCED_RMS = 0.05  # of (V/n)^(1/3); what differs by more in these cells has its own distortion


@dataclass(frozen=True, eq=False)
class ComparedCells:
    """The cells in which a crystal is compared.

    primitive: with pymatgen's tolerance.  whole: with a narrow one; None if it is the same cell.
    """

    primitive: Cell
    whole: Cell | None


@lru_cache(maxsize=1000)  # every stage of a cycle compares the same crystals
def compared_cells(crystal: Crystal) -> ComparedCells | None:
    """The cells of a crystal (about 3 kB); None if it cannot be superposed."""
    matrix = compact_cell(np.array(crystal.lattice))
    volume = abs(float(np.linalg.det(matrix)))
    sphere = 4 / 3 * math.pi * (1.2 * float(np.linalg.norm(matrix, axis=1).max())) ** 3
    if plane_spacings_a(matrix).min() < THINNEST_A or sphere > MAX_LATTICE_POINTS * volume:
        return None
    try:
        cell, whole = reduced_cell(crystal), None
        if len(cell) < crystal.n_atoms:
            whole = reduced_cell(crystal, UNREDUCED_TOLERANCE_A)
    except CELL_ERRORS:
        return None
    if len(cell) > MAX_MATCHED_SITES:
        return None
    other = whole is not None and len(cell) < len(whole) <= MAX_MATCHED_SITES
    return ComparedCells(cell, whole if other else None)


def superposed_rms(one: ComparedCells, two: ComparedCells, *, first: bool = False) -> float | None:
    """Smallest normalised rms displacement found, rounded; None if the two do not superpose.

    first: that of the first superposition found instead.
    """
    try:
        rms = rms_displacement(one.primitive, two.primitive, first=first)
        if rms is None and (one.whole is not None or two.whole is not None):
            rms = rms_displacement(one.whole or one.primitive, two.whole or two.primitive)
            rms = None if rms is None or rms > UNREDUCED_RMS else rms
        if rms is None:
            small, large = sorted((one.primitive, two.primitive), key=len)
            rms = repeated_rms_displacement(small, large)
    except CELL_ERRORS:
        return None
    return None if rms is None else round(rms, RMS_DIGITS)


def may_superpose_any(pairs: Sequence[tuple[ComparedCells, ComparedCells]]) -> np.ndarray:
    """(p,) False for pairs that do not superpose; of the others, `superposed_rms` decides.

    For many pairs at once, a fraction of its time.
    """
    cells = [(one.primitive, two.primitive) for one, two in pairs]
    both = [
        (one.whole or a, two.whole or b) for (one, two), (a, b) in zip(pairs, cells, strict=True)
    ]
    others = [k for k, (one, two) in enumerate(zip(cells, both, strict=True)) if one != two]
    sizes = [(a, b) if len(a) <= len(b) else (b, a) for a, b in cells]
    try:
        may: np.ndarray = may_superpose(cells) | may_repeat(sizes, NOISE)
        may[others] |= may_superpose([both[k] for k in others])
    except CELL_ERRORS:
        return np.ones(len(pairs), dtype=bool)
    return may
