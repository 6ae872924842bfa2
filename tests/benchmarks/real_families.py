"""Families of real structures: orderings of one lattice found, polymorphs kept apart.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/real_families.py DATA [--skip 100]

Of known structures of at most 16 atoms with two elements that may share sites: 100 sets of three
random orderings of one, in supercells of two, rattled by 0.05 Å and strained by 1 %, which are one
family; and 100 sets of two to four polymorphs of one formula. A set is right if all its pairs are.

Elements that may share sites are made one. Of two polymorphs, real_families_by_eye.csv then says
whether they are one family, and StructureMatcher where it says nothing. All pairs of the first two
hundred sets (--skip 0 and 100) on which the code and StructureMatcher differed were looked at, and
those on which they agree but a wider StructureMatcher does not: stackings, neighbours, symmetry
within 0.1 to 0.7 Å and coordination sequences. The verdicts are ours and were given after looking.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
BY_EYE = Path(__file__).with_name("real_families_by_eye.csv")
Verdicts = Mapping[frozenset[str], bool]  # of two ids: whether they are one family


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--skip", type=int, default=0, help="sets of each kind to leave out first")
    asked = parser.parse_args()
    if not (asked.data / MP_STRUCTURES).is_file():
        sys.exit(f"skipped: no {MP_STRUCTURES} in {asked.data}")
    crystals = shuffled(asked.data)
    wrong: list[str] = []
    for names, members in orderings(crystals, asked.skip):
        wrong += missed(names, members, np.ones((3, 3), dtype=bool))[:1]
    print(f"orderings: {SETS - len(wrong)} of {SETS} sets right; wrong:", *wrong, sep="\n    ")
    verdicts, wrong, differ, judged = read_verdicts(), [], 0, 0
    for names, members in polymorphs(crystals, asked.skip):
        peer = by_matcher(members)
        truth = np.array(
            [
                [verdicts.get(frozenset((a, b)), peer[i, j]) for j, b in enumerate(names)]
                for i, a in enumerate(names)
            ]
        )
        differ += bool(missed(names, members, peer))
        judged += any(frozenset(pair) in verdicts for pair in combinations(names, 2))
        wrong += missed(names, members, truth)[:1]
    print(
        f"polymorphs: {SETS - len(wrong)} of {SETS} sets right, {judged} of them judged by eye; "
        f"{SETS - differ} agree with StructureMatcher alone; wrong:",
        *wrong,
        sep="\n    ",
    )


def missed(names: Sequence[str], members: Sequence[Crystal], truth: np.ndarray) -> list[str]:
    """The pairs on which the code differs from truth (n, n)."""
    lattices = [OrderedLattice(crystal) for crystal in members]
    words = []
    for i, j in combinations(range(len(members)), 2):
        found = shared_by(lattices[i], lattices[j]) is not None
        if found != truth[i, j]:
            one = "one family" if found else "apart"
            words.append(f"{members[i].formula} {names[i]} {names[j]}, {one}")
    return words


def read_verdicts() -> Verdicts:
    with BY_EYE.open(encoding="utf-8", newline="") as file:
        return {
            frozenset((row["one"], row["other"])): row["verdict"] == "one"
            for row in csv.DictReader(file)
        }


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


Sets = Iterator[tuple[Sequence[str], list[Crystal]]]  # (names, crystals) of each


def orderings(crystals: Sequence[tuple[str, Crystal]], skip: int) -> Sets:
    rng = np.random.default_rng(SEED + skip)
    for name, crystal in crystals[skip : skip + SETS]:
        members = [shaken(reordered(crystal, rng), rng) for _ in range(3)]
        yield [f"{name}#{k}" for k in range(3)], members


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


def polymorphs(crystals: Sequence[tuple[str, Crystal]], skip: int) -> Sets:
    of_formula: dict[str, list[tuple[str, Crystal]]] = defaultdict(list)
    for name, crystal in crystals:
        of_formula[crystal.formula].append((name, crystal))
    groups = [group[:4] for group in of_formula.values() if len(group) > 1]
    for group in groups[skip : skip + SETS]:
        yield [name for name, _ in group], [crystal for _, crystal in group]


def by_matcher(members: Sequence[Crystal]) -> np.ndarray:
    """(n, n) whether StructureMatcher matches them once alike elements are one."""
    merged = [whitened(crystal) for crystal in members]
    found = np.eye(len(members), dtype=bool)
    for i, j in combinations(range(len(members)), 2):
        found[i, j] = found[j, i] = bool(StructureMatcher().fit(merged[i], merged[j]))
    return found


def whitened(crystal: Crystal):
    """The structure with every group of elements that may share sites as its first element."""
    first = {symbol: group[0] for group in kinds_of(crystal) for symbol in group}
    species = [first[symbol] for symbol in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords).to_structure()


if __name__ == "__main__":
    main()
