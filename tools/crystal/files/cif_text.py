"""Write CIF that reads back as the crystal it was made from.

The symmetrised form takes atoms and operators from one symmetry search, and averages atoms and cell
over these operators. If it does not read back as the crystal, every atom is written, in P1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hullward.models.crystal import Crystal, lattice_parameters
from hullward.tools.crystal.files.cif_block import RefusedError
from hullward.tools.crystal.files.cif_crystal import read_block
from hullward.tools.crystal.geometry import nearest_pairs
from hullward.tools.crystal.input_checks import MAX_SITES
from hullward.tools.crystal.matching import StructureLibrary
from hullward.tools.crystal.symmetry import symmetric_cell

if TYPE_CHECKING:
    import gemmi

MAX_OPERATORS = 192
REACH_A = 4.0  # longer shortest distances are not compared
SAME_DISTANCE_A = 0.05  # atoms move by the tolerance of the symmetry search at most
SAME_VOLUME = 0.01  # relative
SAME_RMS = 0.02  # of (V/n)^(1/3)
EXACT = 1e-5  # of fractions; relative for lengths and angles
SITE_TAGS = (
    "label", "type_symbol", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy",
)  # fmt: skip

Site = tuple[str, int, np.ndarray]  # element, multiplicity, (3,) fractions


def write_cif(crystal: Crystal, symprec_a: float | None = None) -> tuple[str, str]:
    """The CIF of a crystal and its setting in words.

    symprec_a: distance tolerance in Å of the symmetrised form; None: every atom, in P1.
    Raises ValueError if not even P1 reads back as the crystal.
    """
    setting = "P1, every atom as stored"
    if symprec_a is not None:
        text = _symmetrised(crystal, symprec_a)
        fault = "no symmetry is found" if text is None else cif_fault(crystal, text)
        if text is not None and fault is None:
            return text, f"symmetry within {symprec_a:g} Å"
        setting += f"; symmetry within {symprec_a:g} Å: {fault}"
    matrix = np.array(crystal.lattice)
    sites = [
        (el, 1, np.array(xyz)) for el, xyz in zip(crystal.species, crystal.frac_coords, strict=True)
    ]
    text = _text(crystal, matrix, "P 1", ["x,y,z"], sites)
    if fault := cif_fault(crystal, text):
        raise ValueError(f"the CIF of {crystal.formula} does not read back: {fault}")
    return text, setting


def cif_fault(crystal: Crystal, text: str) -> str | None:
    """How the only crystal of a CIF differs from another one; None if it is the same."""
    try:
        read = read_block(text, MAX_SITES, MAX_OPERATORS)
    except RefusedError as refusal:
        return f"the file is refused: {refusal}"
    return difference(
        crystal, Crystal.from_arrays(read["lattice"], read["species"], read["coords"])
    )


def difference(stored: Crystal, read: Crystal) -> str | None:
    """How a crystal that was read back differs from the stored one; None if it is the same.

    Compared are formula, volume per atom, shortest distance and the structures.
    """
    if stored.formula != read.formula:
        return f"{stored.formula} reads back as {read.formula}"
    if _equal(stored, read):
        return None
    before, after = stored.volume_per_atom_a3, read.volume_per_atom_a3
    if abs(before - after) > SAME_VOLUME * before:
        return f"{before:.4f} Å3 per atom read back as {after:.4f}"
    near, nearer = (min(REACH_A, float(nearest_pairs(c, REACH_A)[2].min())) for c in (stored, read))
    if abs(near - nearer) > SAME_DISTANCE_A:
        return f"the shortest distance of {near:.3f} Å reads back as {nearer:.3f} Å"
    match = StructureLibrary([("stored", stored)]).match(read)
    if match is None or (match.rms_a or 0.0) > SAME_RMS:
        return "the structures do not match"
    return None


def _equal(one: Crystal, two: Crystal) -> bool:
    """Whether the cells are equal, up to the order of elements and within rounding."""
    if one.n_atoms != two.n_atoms:
        return False
    size, other = (np.ravel(c.parameters) for c in (one, two))
    order = [np.argsort(c.species, kind="stable") for c in (one, two)]
    species = [np.array(c.species)[o] for c, o in zip((one, two), order, strict=True)]
    first, second = (np.array(c.frac_coords)[o] for c, o in zip((one, two), order, strict=True))
    apart = first - second
    return bool(
        np.allclose(size, other, rtol=EXACT, atol=0.0)
        and (species[0] == species[1]).all()
        and (np.abs(apart - np.round(apart)) <= EXACT).all()
    )


def _symmetrised(crystal: Crystal, symprec_a: float) -> str | None:
    """The CIF in the standard setting of the symmetry; None if none but P1 is found."""
    cell = symmetric_cell(crystal, symprec_a)
    if cell is None:
        return None
    return _text(crystal, cell.matrix, cell.group, cell.operators, cell.sites)


def _text(
    crystal: Crystal,
    matrix: np.ndarray,
    group: gemmi.SpaceGroup | str,
    operators: Sequence[str],
    sites: Sequence[Site],
) -> str:
    """The data block of sites, each with its number of images, in a (3, 3) cell in Å."""
    amounts: Counter[str] = Counter()
    for element, multiplicity, _ in sites:
        amounts[element] += multiplicity
    units = math.gcd(*amounts.values())
    named = group if isinstance(group, str) else group.hm
    number = 1 if isinstance(group, str) else group.number
    lengths, angles = lattice_parameters(matrix)
    lines = [
        f"data_{crystal.formula.replace(' ', '')}",
        f"_symmetry_space_group_name_H-M   '{named}'",
        *(f"_cell_length_{x}   {v:.8f}" for x, v in zip("abc", lengths, strict=True)),
        *(
            f"_cell_angle_{x}   {v:.8f}"
            for x, v in zip(("alpha", "beta", "gamma"), angles, strict=True)
        ),
        f"_symmetry_Int_Tables_number   {number}",
        "_chemical_formula_sum   '"
        + " ".join(f"{element}{amount // units}" for element, amount in amounts.items())
        + "'",
        f"_cell_volume   {abs(float(np.linalg.det(matrix))):.8f}",
        f"_cell_formula_units_Z   {units}",
        "loop_",
        " _symmetry_equiv_pos_as_xyz",
        *(f"  '{operator}'" for operator in operators),
        "loop_",
        *(f" _atom_site_{tag}" for tag in SITE_TAGS),
    ]
    for i, (element, multiplicity, xyz) in enumerate(sites):
        x, y, z = (f"{v:.10f}" for v in xyz % 1.0)
        lines.append(f"  {element}{i}  {element}  {multiplicity}  {x}  {y}  {z}  1")
    return "\n".join(lines) + "\n"
