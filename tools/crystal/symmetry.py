"""Symmetry of crystals, by moyopy.

A symmetrised crystal takes atoms and operators from one search: cell and positions are averaged
over the operators of Hall's symbol, which are exact.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.geometry import nearest_pairs, plane_spacings_a

if TYPE_CHECKING:
    import gemmi

# Moyopy may search for ever where sites of one element are closer than this many tolerances, or in
# a needle: its longest vector times the tolerance exceeds this share of the shortest squared.
CLOSEST_TOLERANCES = 12.0
NEEDLE_SHARE = 0.4
CENTRING = 12  # every lattice vector is a sum of twelfths of the standard cell's
ONE_SITE_A = 0.1  # atoms closer than this are on one site


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


@dataclass(frozen=True, kw_only=True)
class SymmetricCell:
    """The standard cell of a crystal, averaged over the operators of its space group.

    matrix: (3, 3) Å, one lattice vector a row.  coords: (n, 3) fractions.  sites: of each orbit the
    element, its number of atoms and the (3,) fractions of one of them.
    """

    number: int  # of the space group
    group: gemmi.SpaceGroup
    operators: tuple[str, ...]  # 'x,y,z'
    matrix: np.ndarray
    species: tuple[str, ...]
    coords: np.ndarray
    sites: tuple[tuple[str, int, np.ndarray], ...]
    linear: np.ndarray  # (3, 3): columns of the standard basis in the crystal's own
    shift: np.ndarray  # (3,) of the origin, in fractions of the crystal's own cell


class SymmetrisedCrystal(NamedTuple):
    """A crystal in an exact symmetry, with the lattice vectors and the order of atoms it had."""

    crystal: Crystal
    space_group: int
    order: int  # symmetry operations in its volume, translations included
    max_displacement_a: float  # of an atom, the crystal as a whole neither moved nor strained


def symmetric_cell(crystal: Crystal, symprec_a: float) -> SymmetricCell | None:
    """The standard cell in the symmetry that one search finds within a distance in Å.

    None if no symmetry but P1 is found, or if atoms and operators do not fit.
    """
    import gemmi
    import moyopy

    try:
        found = find_symmetry(crystal, symprec_a, standard_setting=True)
    except ValueError:
        return None
    if found.number == 1:
        return None
    # moyopy writes = for the " of Hall's axes
    symbol = moyopy.HallSymbolEntry(found.hall_number).hall_symbol.replace("=", '"')
    operations = gemmi.symops_from_hall(symbol)
    group = gemmi.find_spacegroup_by_ops(operations)
    if group is None:
        return None
    species = tuple(gemmi.Element(n).name for n in found.std_cell.numbers)
    rotations = np.array([op.rot for op in operations]) / gemmi.Op.DEN
    translations = np.array([op.tran for op in operations]) / gemmi.Op.DEN
    matrix = np.array(found.std_cell.basis)
    metric = matrix @ matrix.T
    metric = np.einsum("nji,jk,nkl->il", rotations, metric, rotations) / len(rotations)
    matrix = np.linalg.cholesky(metric)
    coords = np.array(found.std_cell.positions)
    averaged = _averaged(species, coords, rotations, translations, matrix)
    if averaged is None:
        return None
    return SymmetricCell(
        number=int(found.number),
        group=group,
        operators=tuple(op.triplet() for op in operations),
        matrix=matrix,
        species=species,
        coords=averaged[0],
        sites=tuple(averaged[1]),
        linear=np.array(found.std_linear),
        shift=np.array(found.std_origin_shift),
    )


def _averaged(
    species: Sequence[str],
    coords: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    matrix: np.ndarray,
) -> tuple[np.ndarray, list[tuple[str, int, np.ndarray]]] | None:
    """All positions and one site of each orbit, averaged; None if an image meets no atom."""
    names = np.array(species)
    left = np.ones(len(species), dtype=bool)
    everywhere = coords.copy()
    sites: list[tuple[str, int, np.ndarray]] = []
    for i in range(len(species)):
        if not left[i]:
            continue
        images = rotations @ coords[i] + translations
        apart = coords - images[:, None]
        apart -= np.round(apart)
        squared = ((apart @ matrix) ** 2).sum(axis=2)
        squared[:, names != names[i]] = np.inf
        partner = squared.argmin(axis=1)
        if not left[partner].all():
            return None
        # each partner, brought back to the first atom
        back = np.linalg.solve(rotations, apart[np.arange(len(images)), partner][..., None])
        left[partner] = False
        one = coords[i] + back[..., 0].mean(axis=0)
        everywhere[partner] = rotations @ one + translations
        sites.append((species[i], len(set(partner.tolist())), one))
    return everywhere, sites


def symmetrised(crystal: Crystal, symprec_a: float) -> SymmetrisedCrystal | None:
    """The crystal moved into the symmetry found within a distance in Å.

    Lattice vectors, their orientation and the order of atoms stay as far as the symmetry allows.
    None if no symmetry but P1 is found, or if the crystal's atoms do not take every site of the
    standard cell once.
    """
    cell = symmetric_cell(crystal, symprec_a)
    if cell is None:
        return None
    into = np.linalg.inv(cell.linear)  # fractions of the crystal into those of the standard cell
    exact = np.round(into * CENTRING) / CENTRING
    if not np.allclose(into, exact, atol=1e-4):
        return None
    own = np.array(crystal.frac_coords)
    there = (own - cell.shift) @ exact.T
    apart = there[:, None] - cell.coords
    apart -= np.round(apart)
    squared = ((apart @ cell.matrix) ** 2).sum(axis=2)
    squared[np.array(crystal.species)[:, None] != np.array(cell.species)] = np.inf
    partner = squared.argmin(axis=1)
    size = abs(float(np.linalg.det(exact)))  # of the crystal's cell, in standard cells
    moves = -apart[np.arange(len(own)), partner] @ np.linalg.inv(exact).T
    moves -= moves.mean(axis=0)
    lattice = exact.T @ cell.matrix
    lattice = lattice @ _turn(lattice, np.array(crystal.lattice))
    made = Crystal.from_arrays(lattice, crystal.species, np.mod(own + moves + 0.0, 1.0))
    # as many sites as atoms, and no two atoms on one site: every site is taken once
    if round(len(cell.species) * size) != crystal.n_atoms or _touch(made):
        return None
    return SymmetrisedCrystal(
        crystal=made,
        space_group=cell.number,
        order=round(len(cell.operators) * size),
        max_displacement_a=float(np.linalg.norm(moves @ lattice, axis=1).max()),
    )


def _touch(crystal: Crystal) -> bool:
    """Whether two atoms are on one site."""
    distance = nearest_pairs(crystal, ONE_SITE_A)[2]
    return bool((distance < ONE_SITE_A).any())


def _turn(lattice: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The (3, 3) rotation, perhaps with a reflection, of row vectors nearest to others.

    Kabsch's, DOI 10.1107/S0567739476001873.
    """
    u, _, v = np.linalg.svd(lattice.T @ onto)
    turn: np.ndarray = u @ v
    return turn


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
