"""New crystals from parents: strain and rattle, or exchange of unlike atoms.

Both are seeded: the same parent, seed and index give the same crystal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.records import stable_id


@dataclass(frozen=True, kw_only=True)
class Constructed:
    """A crystal made without a model, and its origin."""

    crystal: Crystal
    parents: tuple[str, ...]
    note: str
    target_formula: str | None = None


def seeded_rng(*parts: object) -> np.random.Generator:
    """A random number generator that depends only on these parts."""
    return np.random.default_rng(int(stable_id("s", *map(str, parts))[2:18], 16))


def perturb(
    parent_id: str,
    parent: Crystal,
    rng: np.random.Generator,
    *,
    strain: float = 0.03,
    rattle_a: float = 0.3,
) -> Constructed:
    """Strain the cell by a random symmetric tensor and displace every atom.

    strain: standard deviation of each component.  rattle_a: of each Cartesian displacement, Å.
    The defaults are large enough to leave a shallow basin; smaller steps relax back to the parent.
    """
    draw = rng.normal(scale=strain, size=(3, 3))
    deformation = np.eye(3) + (draw + draw.T) / 2
    lattice = np.array(parent.lattice) @ deformation
    shifts = rng.normal(scale=rattle_a, size=(parent.n_atoms, 3)) @ np.linalg.inv(lattice)
    coords = np.mod(np.array(parent.frac_coords) + shifts, 1.0)
    crystal = Crystal.from_arrays(lattice, parent.species, coords)
    note = f"strain {strain:g}, rattle {rattle_a:g} Å"
    return Constructed(
        crystal=crystal, parents=(parent_id,), note=note, target_formula=parent.formula
    )


def swap(
    parent_id: str, parent: Crystal, rng: np.random.Generator, *, max_atoms: int
) -> Constructed | None:
    """Exchange two unlike atoms in a supercell of at most max_atoms.

    If there are two kinds of cations, these are exchanged: charge and composition stay, and another
    ordering is tried. None for an elemental parent.
    """
    cell = enlarged(parent, max_atoms)
    kinds = _exchangeable(cell)
    if len(kinds) < 2:
        return None
    first, second = (kinds[i] for i in rng.permutation(len(kinds))[:2])
    species = list(cell.species)
    i = int(rng.choice([k for k, s in enumerate(species) if s == first]))
    j = int(rng.choice([k for k, s in enumerate(species) if s == second]))
    species[i], species[j] = species[j], species[i]
    crystal = Crystal.from_arrays(cell.lattice, species, cell.frac_coords)
    note = f"{first} and {second} exchanged in a cell of {cell.n_atoms} atoms"
    return Constructed(
        crystal=crystal, parents=(parent_id,), note=note, target_formula=parent.formula
    )


def enlarged(parent: Crystal, max_atoms: int) -> Crystal:
    """The parent doubled along its shortest axis as often as max_atoms allows."""
    lattice = np.array(parent.lattice)
    coords = np.array(parent.frac_coords)
    species = list(parent.species)
    while 2 * len(species) <= max_atoms:
        axis = int(np.argmin(np.linalg.norm(lattice, axis=1)))
        shift = np.eye(3)[axis]
        coords = np.vstack([coords, coords + shift]) / (1 + shift)
        lattice[axis] *= 2
        species *= 2
    return Crystal.from_arrays(lattice, species, coords)


def _exchangeable(crystal: Crystal) -> list[str]:
    """Elements that may be exchanged: the less electronegative ones if there are two or more."""
    from pymatgen.core import Element

    # the Mendeleev number rises from caesium to the halogens, and every element has one
    kinds = sorted(set(crystal.species), key=lambda s: Element(s).mendeleev_no)
    return kinds[:-1] if len(kinds) > 2 else kinds
