"""Orderings of cations and vacancies on the sites of a parent structure, lowest Ewald energy first.

Antifluorite and rock salt are the parents of most lithium transition-metal oxides; their
vacancy and cation orderings (Li5FeO4, Li6CoO4, …) are in no list of prototypes. Point charges rank
orderings well enough to choose which to relax (10.1103/PhysRevB.68.054405).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hullward.models.crystal import Crystal

MAX_ARRANGEMENTS = 150_000
ENERGY_STEP_EV = 1e-3  # per cell; orderings with closer Ewald energies count as the same


@dataclass(frozen=True)
class ParentStructure:
    """Anions and the cation sites between them, lengths in lattice constants."""

    name: str
    lattice: tuple[tuple[float, float, float], ...]  # rows, in lattice constants
    anions: tuple[tuple[float, float, float], ...]  # fractions
    cations: tuple[tuple[float, float, float], ...]
    bond: float  # shortest cation-anion distance, in lattice constants


_FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
PARENTS = {
    "antifluorite": ParentStructure(
        "antifluorite",
        _FCC,
        ((0.0, 0.0, 0.0),),
        ((0.25, 0.25, 0.25), (0.75, 0.75, 0.75)),
        3**0.5 / 4,
    ),
    "rocksalt": ParentStructure("rocksalt", _FCC, ((0.0, 0.0, 0.0),), ((0.5, 0.5, 0.5),), 0.5),
}
# Shapes of supercells, in parent cells; compact ones first.
SUPERCELLS = (
    ((-1, 1, 1), (1, -1, 1), (1, 1, -1)),  # 4, cubic
    ((1, 1, 0), (1, -1, 0), (0, 0, 1)),  # 2
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 2)),
    ((1, 1, 1), (1, -1, 0), (0, 1, -1)),  # 3, hexagonal layers
    ((2, 0, 0), (0, 2, 0), (0, 0, 1)),
    ((2, 0, 0), (0, 2, 0), (0, 0, 2)),
    ((1, 1, -1), (-1, 1, 1), (2, -2, 2)),  # 8
    ((0, 0, 2), (-2, 2, 0), (1, 1, -1)),  # 8, tetragonal: Li6CoO4
    ((1, 1, 0), (-1, 2, 0), (0, 0, 2)),  # 6
    ((0, 0, 2), (1, -1, 0), (1, 1, -1)),
)


def best_orderings(
    parent: ParentStructure,
    cations: Mapping[str, tuple[int, float]],
    anion: str,
    anion_charge: float,
    n_anions: int,
    bond_a: float,
    keep: int = 3,
) -> Iterator[tuple[str, Crystal]]:
    """(id, crystal) of the best orderings of one composition over all supercells that hold it.

    cations: element → (atoms in a cell of n_anions, charge); all other sites are vacant.
    bond_a: length of the shortest cation-anion distance, Å.
    """
    found: list[tuple[float, str, Crystal]] = []
    names = list(cations)
    for number, shape in enumerate(SUPERCELLS):
        lattice, anions, sites = _supercell(parent, np.array(shape), bond_a / parent.bond)
        if len(anions) != n_anions or sum(n for n, _ in cations.values()) > len(sites):
            continue
        choices = _choices(len(sites), [n for n, _ in cations.values()])
        if choices is None:
            continue
        charges = np.zeros((len(choices), len(sites) + len(anions)))
        charges[:, len(sites) :] = anion_charge
        for kind, (_, charge) in enumerate(cations.values(), start=1):
            charges[:, : len(sites)][choices == kind] = charge
        matrix = _ewald_matrix(lattice, np.vstack([sites, anions]))
        energies = np.einsum("mi,ij,mj->m", charges, matrix, charges, optimize=True)
        rank = np.argsort(energies, kind="stable")
        last, taken = -np.inf, 0
        for row in rank:
            if taken == keep:
                break
            if energies[row] - last < ENERGY_STEP_EV:
                continue
            last, taken = float(energies[row]), taken + 1
            filled = np.flatnonzero(choices[row])
            species = [names[choices[row][i] - 1] for i in filled] + [anion] * len(anions)
            crystal = Crystal.from_arrays(lattice, species, np.vstack([sites[filled], anions]))
            found.append((last, f"{parent.name}-ordering:{number}.{taken}", crystal))
    found.sort(key=lambda item: (round(item[0], 3), item[1]))
    yield from ((name, crystal) for _, name, crystal in found[: 2 * keep])


def _supercell(
    parent: ParentStructure, shape: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice (3, 3) Å, fractional anion and cation sites."""
    small = np.array(parent.lattice) * scale
    lattice = shape @ small
    shifts = np.array(list(np.ndindex(7, 7, 7))) - 3

    def images(points: tuple[tuple[float, float, float], ...]) -> np.ndarray:
        every = (np.array(points)[:, None] + shifts[None]).reshape(-1, 3) @ small
        inside = np.mod(np.round(every @ np.linalg.inv(lattice), 6), 1.0)
        return np.unique(np.round(inside, 5), axis=0)

    return lattice, images(parent.anions), images(parent.cations)


def _choices(n_sites: int, counts: list[int]) -> np.ndarray | None:
    """(m, n_sites) kind on each site, 0 for vacant; None if there are too many."""
    rows = [np.zeros(n_sites, dtype=np.int8)]
    for kind, count in enumerate(counts, start=1):
        extended = []
        for row in rows:
            for sites in combinations(np.flatnonzero(row == 0).tolist(), count):
                new = row.copy()
                new[list(sites)] = kind
                extended.append(new)
                if len(extended) > MAX_ARRANGEMENTS:
                    return None
        rows = extended
    return np.array(rows)


def _ewald_matrix(lattice: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """(n, n) eV per product of charges."""
    from pymatgen.analysis.ewald import EwaldSummation
    from pymatgen.core import Lattice, Structure

    unit = Structure(Lattice(lattice), ["H+"] * len(sites), sites)
    ewald = EwaldSummation(unit, compute_forces=False)
    return np.asarray(ewald.total_energy_matrix)
