"""Symmetry of crystals, by moyopy."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.geometry import nearest_pairs, plane_spacings_a

# Moyopy may search for ever where sites of one element are closer than this many tolerances, or in
# a needle: its longest vector times the tolerance exceeds this share of the shortest squared.
CLOSEST_TOLERANCES = 12.0
NEEDLE_SHARE = 0.4


def find_symmetry(crystal: Crystal, symprec_a: float, *, standard_setting: bool = False) -> Any:
    """Moyopy's data set of a crystal at a distance tolerance in Å.

    Its warnings on operations of cells that are not primitive are suppressed. Raises ValueError if
    the search fails, and for a crystal in which it might not end.
    """
    import moyopy

    if is_extreme(crystal) or not _search_ends(crystal, symprec_a):
        raise ValueError(
            f"sites too close, or a cell too long, for a symmetry search within {symprec_a:g} Å"
        )
    logging.getLogger("moyo").setLevel(logging.ERROR)
    basis, positions, numbers = plain_cell(crystal)
    cell = moyopy.Cell(basis=basis, positions=positions, numbers=numbers)
    setting = moyopy.Setting.standard() if standard_setting else None
    return moyopy.MoyoDataset(cell, symprec=symprec_a, setting=setting)


def space_group(crystal: Crystal, symprec_a: float) -> int | None:
    """International number at a distance tolerance in Å; None if none can be found.

    By moyopy, or by spglib where moyopy's search might not end.
    """
    if is_extreme(crystal):
        return None
    try:
        if _search_ends(crystal, symprec_a):
            return int(find_symmetry(crystal, symprec_a).number)
        return _by_spglib(crystal, symprec_a)
    except ValueError:
        return None


def is_extreme(crystal: Crystal) -> bool:
    """Whether the cell is so flat or so long that no search ends."""
    heights = plane_spacings_a(np.array(crystal.lattice))
    return not 0.5 <= heights.min() <= heights.max() <= 500


def _search_ends(crystal: Crystal, symprec_a: float) -> bool:
    from pymatgen.core import Lattice

    edges = Lattice(crystal.lattice).get_lll_reduced_lattice().abc
    if max(edges) * symprec_a > NEEDLE_SHARE * min(edges) ** 2:
        return False
    closest = CLOSEST_TOLERANCES * symprec_a
    i, j, distance = nearest_pairs(crystal, closest)
    species = np.array(crystal.species)
    return not ((distance < closest) & (species[i] == species[j])).any()


def _by_spglib(crystal: Crystal, symprec_a: float) -> int | None:
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry_dataset(plain_cell(crystal), symprec=symprec_a)
    return None if found is None else int(found.number)


def plain_cell(crystal: Crystal) -> tuple[list[list[float]], list[list[float]], list[int]]:
    """The lattice, the positions and the atomic numbers as lists."""
    from ase.data import atomic_numbers

    return (
        [list(v) for v in crystal.lattice],
        [list(v) for v in crystal.frac_coords],
        [atomic_numbers[symbol] for symbol in crystal.species],
    )


def space_group_symbol(number: int | None) -> str:
    """The short symbol of a space group by its number; '' for None.

    >>> space_group_symbol(14), space_group_symbol(225)
    ('P2_1/c', 'Fm-3m')
    """
    if number is None:
        return ""
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    symbol = str(sg_symbol_from_int_number(number))
    if 3 <= number <= 15:  # monoclinic: 'C2/m' rather than 'C12/m1'
        symbol = symbol[0] + symbol[2:-1]
    return symbol
