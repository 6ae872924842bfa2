"""Families of real structures: orderings of one lattice found, polymorphs kept apart.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/real_families.py DATA

Of known structures of at most 16 atoms with two elements that may share sites: 100 sets of three
random orderings of one, in supercells of two, rattled by 0.05 Å and strained by 1 %, which are one
family; and 100 sets of two to four polymorphs of one formula, which are one where StructureMatcher
matches them once elements that may share sites are made one. A set is right if all its pairs are.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from common import MP_STRUCTURES, options, read_plain_cif
from pymatgen.analysis.structure_matcher import StructureMatcher

from hullward.models.crystal import Crystal
from hullward.tools.crystal import OrderedLattice, shared_by
from hullward.tools.crystal.parent_lattice import kinds_of

SEED = 16
MOST_ATOMS = 16
SETS = 100


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    if not (data / MP_STRUCTURES).is_file():
        sys.exit(f"skipped: no {MP_STRUCTURES} in {data}")
    crystals = shuffled(data)
    for name, sets in (("orderings", orderings(crystals)), ("polymorphs", polymorphs(crystals))):
        right, pairs, wrong = 0, 0, []
        for label, members, one in sets:
            lattices = [OrderedLattice(crystal) for crystal in members]
            missed = [
                (i, j, found)
                for i, j in combinations(range(len(members)), 2)
                if (found := shared_by(lattices[i], lattices[j]) is not None) != one(i, j)
            ]
            pairs += len(members) * (len(members) - 1) // 2
            right += not missed
            wrong += [f"{label}, {'one family' if f else 'apart'}: {i} {j}" for i, j, f in missed]
        print(f"{name}: {right} of {SETS} sets right, {pairs} pairs; wrong:", *wrong, sep="\n    ")


def shuffled(data: Path) -> list[tuple[str, Crystal]]:
    """Ordered structures with two elements that may share sites."""
    table = pd.read_parquet(data / MP_STRUCTURES, columns=["material_id", "cif"])
    table = table.drop_duplicates("material_id").sample(frac=1, random_state=SEED)
    found = []
    for name, cif in zip(table["material_id"], table["cif"], strict=True):
        crystal = read_plain_cif(cif)
        alike = any(len(group) > 1 for group in kinds_of(crystal))
        if crystal.n_atoms <= MOST_ATOMS and alike:
            found.append((name, crystal))
    return found


def orderings(crystals: Sequence[tuple[str, Crystal]]) -> Iterator:
    rng = np.random.default_rng(SEED)
    for name, crystal in crystals[:SETS]:
        members = [shaken(reordered(crystal, rng), rng) for _ in range(3)]
        yield f"{name} {crystal.formula}", members, lambda i, j: True


def reordered(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    structure = crystal.to_structure()
    structure.make_supercell(rng.permutation([2, 1, 1]).tolist())
    species = np.array([site.specie.symbol for site in structure], dtype=object)
    for group in kinds_of(crystal):
        places = np.flatnonzero(np.isin(species, group))
        species[places] = rng.permutation(species[places])
    return Crystal.from_arrays(structure.lattice.matrix, species.tolist(), structure.frac_coords)


def shaken(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    strain = rng.normal(0, 0.01, (3, 3))
    lattice = np.array(crystal.lattice) @ (np.eye(3) + (strain + strain.T) / 2)
    steps = rng.normal(0, 0.05, (crystal.n_atoms, 3)) @ np.linalg.inv(lattice)
    return Crystal.from_arrays(lattice, crystal.species, np.array(crystal.frac_coords) + steps)


def polymorphs(crystals: Sequence[tuple[str, Crystal]]) -> Iterator:
    of_formula: dict[str, list[tuple[str, Crystal]]] = defaultdict(list)
    for name, crystal in crystals:
        of_formula[crystal.formula].append((name, crystal))
    groups = [group[:4] for group in of_formula.values() if len(group) > 1]
    for group in groups[:SETS]:
        merged = [whitened(crystal) for _, crystal in group]

        def one(i: int, j: int, merged: Sequence = merged) -> bool:
            return bool(StructureMatcher().fit(merged[i], merged[j]))

        names = " ".join(name for name, _ in group)
        yield f"{group[0][1].formula} {names}", [crystal for _, crystal in group], one


def whitened(crystal: Crystal):
    """The structure with every group of elements that may share sites as its first element."""
    first = {symbol: group[0] for group in kinds_of(crystal) for symbol in group}
    species = [first[symbol] for symbol in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords).to_structure()


if __name__ == "__main__":
    main()
