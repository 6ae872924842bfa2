"""Symmetry of crystals, by moyopy."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal


def find_symmetry(crystal: Crystal, symprec_a: float, *, standard_setting: bool = False) -> Any:
    """Moyopy's data set of a crystal at a distance tolerance in Å.

    Its warnings on operations of cells that are not primitive are suppressed. Raises ValueError if
    the search fails.
    """
    import moyopy
    from ase.data import atomic_numbers

    logging.getLogger("moyo").setLevel(logging.ERROR)
    cell = moyopy.Cell(
        basis=[list(v) for v in crystal.lattice],
        positions=[list(v) for v in crystal.frac_coords],
        numbers=[atomic_numbers[symbol] for symbol in crystal.species],
    )
    setting = moyopy.Setting.standard() if standard_setting else None
    return moyopy.MoyoDataset(cell, symprec=symprec_a, setting=setting)


def space_group(crystal: Crystal, symprec_a: float) -> int | None:
    """International number at a distance tolerance in Å; None if none can be found."""
    lattice = np.array(crystal.lattice)
    normals = np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]])  # as long as the faces are large
    heights = crystal.volume_a3 / np.linalg.norm(normals, axis=1)
    if heights.min() < 0.5 or heights.max() > 500:
        return None  # the search would not end in a cell this flat or this long
    try:
        return int(find_symmetry(crystal, symprec_a).number)
    except ValueError:
        return None
