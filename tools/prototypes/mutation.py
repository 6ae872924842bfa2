"""New crystals from parents: strain and rattle, or exchange of unlike atoms.

Both are seeded: the same parent, seed and index give the same crystal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import charge_balance
from hullward.tools.records import stable_id

ALIKE = 0.6  # difference in electronegativity of metals that change places, e.g. Al and Ni


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

    Metals of like charge and like electronegativity change places, or anions: charge and
    composition stay, and another ordering is tried. None where no two elements are alike.
    """
    cell = enlarged(parent, max_atoms)
    pairs = exchangeable(cell)
    if not pairs:
        return None
    first, second = pairs[int(rng.integers(len(pairs)))]
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


def exchangeable(crystal: Crystal) -> list[tuple[str, str]]:
    """Pairs of elements that may change places: two metals or two anions, never one of each.

    Where a crystal has oxidation states, both are of one sign and cations in a network of their own
    (P in PO4, C in CO3) stay; where it has none, Pauling electronegativities are alike.
    """
    from pymatgen.core import Element

    states = charge_balance(crystal.amounts).states
    kinds = sorted(set(crystal.species), key=lambda s: Element(s).Z)

    def alike(one: str, other: str) -> bool:
        first, second = Element(one), Element(other)
        if states:
            cations = states[one] > 0 and states[other] > 0 and first.is_metal and second.is_metal
            return cations or (states[one] < 0 and states[other] < 0)
        values = [float(e.data["X"] or 0) for e in (first, second)]
        return min(values) > 0 and abs(values[0] - values[1]) <= ALIKE

    return [pair for pair in combinations(kinds, 2) if alike(*pair)]
