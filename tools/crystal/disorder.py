"""Find species that may be disordered, so that the order is an artefact of the cell.

This is a flag, never a verdict. Similar species on equivalent sites usually mix
(10.1021/acs.chemmater.4c00643, 10.1103/PRXEnergy.3.011002), but a cell of a few atoms can only show
them ordered. Two species are similar if they have the same charge and their radii differ by at most
15 % (Goldschmidt, 10.1007/BF01507527; ionic radii of Shannon, 10.1107/S0567739476001551). Where
charges do not apply, as in metals: radii within 15 % and electronegativities within 0.4
(10.1524/zkri.1935.91.1.23). Their sites are equivalent if a symmetry of the crystal, with one name
for both species, maps one site onto the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.charges import charge_balance
from hullward.tools.crystal.symmetry import find_symmetry, space_group

RADII_WITHIN = 0.15  # of the smaller one
CHARGES_WITHIN = 0.5  # mean states of mixed valence are not whole numbers
ELECTRONEGATIVITIES_WITHIN = 0.4  # Pauling
SYMPREC_A = 0.1


@dataclass(frozen=True)
class PossibleDisorder:
    """Species that may share sites, and the disordered crystal that results."""

    species: tuple[str, ...]
    occupancy: str  # 'Nb0.50Ta0.50'
    space_group: int  # of the disordered parent
    ordered_space_group: int | None  # of the crystal as it is, at the same tolerance

    @property
    def words(self) -> str:
        was = f"; ordered: number {self.ordered_space_group}" if self.ordered_space_group else ""
        return (
            f"{' and '.join(self.species)} are similar and on alike sites: may be disordered, "
            f"({self.occupancy}) on one site in space group {self.space_group}{was}"
        )


def shared_sites(crystal: Crystal) -> PossibleDisorder | None:
    """The largest set of similar species on equivalent sites; None if there is none."""
    symbols = sorted(set(crystal.species))
    claim = charge_balance(Counter(crystal.species))
    pairs = {pair for pair in combinations(symbols, 2) if similar(*pair, claim.states)}
    for size in range(len(symbols), 1, -1):
        for chosen in combinations(symbols, size):
            alike = pairs.issuperset(combinations(chosen, 2))
            if alike and (found := _on_one_site(crystal, chosen)):
                return found
    return None


def similar(one: str, two: str, states: Mapping[str, float]) -> bool:
    """Whether two species may replace each other; states: mean charges, may be empty."""
    from pymatgen.core import Element

    if states:
        if abs(states[one] - states[two]) > CHARGES_WITHIN:
            return False
        return _close(_ionic_radius(one, states[one]), _ionic_radius(two, states[two]))
    a, b = Element(one), Element(two)
    if a.is_metal != b.is_metal or abs(a.X - b.X) > ELECTRONEGATIVITIES_WITHIN:
        return False
    return _close(float(a.atomic_radius or 0), float(b.atomic_radius or 0))


def _close(one: float, two: float) -> bool:
    return min(one, two) > 0 and max(one, two) <= (1 + RADII_WITHIN) * min(one, two)


def _ionic_radius(symbol: str, state: float) -> float:
    """Radius in Å of the state, else the mean of its sign; 0 if none is known."""
    from pymatgen.core import Element

    element = Element(symbol)
    if listed := element.ionic_radii.get(round(state)):
        return float(listed)
    mean = element.average_cationic_radius if state > 0 else element.average_anionic_radius
    return float(mean)


def _on_one_site(crystal: Crystal, species: tuple[str, ...]) -> PossibleDisorder | None:
    """The disorder of species that all occur on one orbit once they have one name, else None."""
    names = np.array(crystal.species)
    mixed = np.isin(names, species)
    merged = np.where(mixed, species[0], names)
    try:
        dataset = find_symmetry(
            Crystal.from_arrays(crystal.lattice, merged.tolist(), crystal.frac_coords), SYMPREC_A
        )
    except ValueError:
        return None
    orbits = np.array(dataset.orbits)
    shared = [o for o in np.unique(orbits[mixed]) if set(names[orbits == o]) == set(species)]
    if not shared:
        return None
    counts = Counter(names[np.isin(orbits, shared)].tolist())
    total = sum(counts.values())
    return PossibleDisorder(
        species=species,
        occupancy="".join(f"{s}{counts[s] / total:.2f}" for s in species),
        space_group=int(dataset.number),
        ordered_space_group=space_group(crystal, SYMPREC_A),
    )
