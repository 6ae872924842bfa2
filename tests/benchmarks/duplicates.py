"""Agreement with StructureMatcher, speed beside it, and rates of finding duplicates at scale.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/duplicates.py DATA

DATA is the folder of real data (structures/, known/). Prints the figures of RESULTS.md.
"""

from __future__ import annotations

import gc
import itertools
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from common import known_phases, llamat2_crystals, options, read_plain_cif
from pymatgen.core.structure_matcher import StructureMatcher

from hullward.models.crystal import Crystal
from hullward.tools.crystal import LibraryEntry, StructureLibrary, group_equal
from hullward.tools.crystal.reduced_cell import Cell
from hullward.tools.crystal.superposition import comparable, rms_displacement

LANTHANIDES = (
    *("La", "Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu"),
    "Y",
)
REACH = 2.6  # of the fingerprint, in (V/n)^(1/3)
NEIGHBOURS = 8

Pair = tuple[str, Crystal, Crystal]


def by_formula(crystals: Iterable[Crystal]) -> dict[str, list[Crystal]]:
    found = defaultdict(list)
    for crystal in crystals:
        found[crystal.formula].append(crystal)
    return dict(found)


def distorted(
    crystal: Crystal, rng: np.random.Generator, rattle_a: float = 0.0, strain: float = 0.0
) -> Crystal:
    """Another setting: rotated, shifted, sites shuffled, rattled and strained up to a size."""
    e = rng.uniform(-strain, strain, (3, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    lattice = np.array(crystal.lattice) @ (np.eye(3) + (e + e.T) / 2) @ rotation
    steps = rng.normal(size=(crystal.n_atoms, 3))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    steps *= rattle_a * rng.random((len(steps), 1)) ** (1 / 3)
    frac = np.array(crystal.frac_coords) + rng.random(3) + steps @ np.linalg.inv(lattice)
    order = rng.permutation(crystal.n_atoms)
    return Crystal.from_arrays(lattice, [crystal.species[i] for i in order], frac[order])


def supercell(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    structure = crystal.to_structure()
    structure.make_supercell(np.diag(rng.permutation([2, 1, 1])))
    return distorted(Crystal.from_structure(structure), rng)


def labelled_pairs(known: Sequence[Crystal], written: Iterable[Crystal]) -> list[Pair]:
    """Pairs of one formula: polymorphs, distorted copies, generated and known, swapped."""
    rng = np.random.default_rng(5)
    phases = by_formula(known)
    pairs = [
        ("polymorphs", a, b) for same in phases.values() for a, b in itertools.combinations(same, 2)
    ]
    for i in rng.choice(len(known), 800, replace=False):
        for rattle, strain in ((0.1, 0.02), (0.2, 0.04), (0.3, 0.06)):
            copy = distorted(known[i], rng, rattle, strain)
            pairs.append((f"rattled {rattle} Å, strained {strain}", known[i], copy))
        if known[i].n_atoms <= 40:
            pairs.append(("supercells", known[i], supercell(known[i], rng)))
    for formula, same in by_formula(written).items():
        pairs += [("LLaMat-2 and known", a, b) for a in same for b in phases.get(formula, ())[:3]]
    for same in list(phases.values())[::3]:
        crystal = same[0]
        metals = [s for s in set(crystal.species) if s in LANTHANIDES]
        for new in rng.choice(LANTHANIDES, 4, replace=False) if len(metals) == 1 else ():
            species = [new if s == metals[0] else s for s in crystal.species]
            swapped = Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)
            others = phases.get(swapped.formula, ())[:2]
            pairs += [("lanthanides swapped", swapped, other) for other in others]
    return pairs


def fingerprint(cell: Cell) -> np.ndarray:
    """Mean sorted distances to the nearest sites, by pair of elements, in (V/n)^(1/3)."""
    counts = np.floor(REACH * np.linalg.norm(np.linalg.inv(cell.lattice), axis=0) + 0.5).astype(int)
    images = (np.indices(tuple(2 * counts + 1)).reshape(3, -1).T - counts) @ cell.lattice
    apart = cell.frac[:, None] - cell.frac
    vectors = (apart - np.round(apart)) @ cell.lattice
    squared = (vectors**2).sum(-1)[:, :, None] + (images**2).sum(1) + 2 * vectors @ images.T
    distance = np.minimum(np.sqrt(np.maximum(squared, 0)), REACH)
    distance[np.arange(len(cell)), np.arange(len(cell)), len(images) // 2] = REACH
    rows = []
    for a, b in itertools.product(cell.blocks, repeat=2):
        near = np.sort(distance[a, b].reshape(a.stop - a.start, -1))[:, :NEIGHBOURS]
        short = NEIGHBOURS - near.shape[1]
        rows.append(np.pad(near, ((0, 0), (0, short)), constant_values=REACH).mean(0))
    return np.concatenate(rows)


def agreement(pairs: Sequence[Pair]) -> None:
    """Matches lost and invented, pair by pair; how far apart matches lie in a fingerprint."""
    matcher = StructureMatcher()
    cells: dict[int, tuple] = {}
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    joined: list[float] = []
    parted: list[float] = []
    rms_gaps: list[float] = []
    for kind, *crystals in pairs:
        for crystal in crystals:
            if id(crystal) not in cells:
                cells[id(crystal)] = _both_cells(crystal, matcher)
        (one, first), (two, second) = (cells[id(c)] for c in crystals)
        if one is None or two is None:
            tally[kind]["by content only"] += 1
            continue
        truth = len(first) == len(second) and matcher.fit(
            first, second, skip_structure_reduction=True
        )
        ours = rms_displacement(one, two)
        tally[kind]["match" if truth else "no match"] += 1
        tally[kind]["lost"] += truth and ours is None
        tally[kind]["invented"] += not truth and ours is not None
        tally[kind]["lost by buckets"] += truth and not comparable(one, two)
        if not truth:
            tally[kind]["parted by buckets"] += not comparable(one, two)
        if one.counts == two.counts:
            gap = np.abs(fingerprint(one) - fingerprint(two)).max()
            (joined if truth else parted).append(gap)
        if truth and ours is not None and len(rms_gaps) < 300:
            rms_gaps.append(abs(ours - matcher.get_rms_dist(first, second)[0]))
    for kind, counts in tally.items():
        print(f"  {kind}: {dict(counts)}")
    print(f"  all: {dict(sum(tally.values(), Counter()))}")
    print(f"  rms differ by at most {max(rms_gaps):.1e} in {len(rms_gaps)} matches")
    reach = max(joined)
    rejected = {m: f"{100 * np.mean(np.array(parted) > m * reach):.0f} %" for m in (1, 1.25)}
    print(f"  fingerprints of matches differ by up to {reach:.2f};")
    print(f"  others of as many sites beyond that times a margin: {rejected} of {len(parted)}")


def _both_cells(crystal: Crystal, matcher: StructureMatcher) -> tuple:
    """Ours and pymatgen's; None for what the library compares by content only."""
    cell = LibraryEntry("", crystal).cell
    if cell is None:
        return None, None
    return cell, matcher._get_reduced_structure(crystal.to_structure())


def thousand(known: Sequence[Crystal], polymorphs: int) -> list[Crystal]:
    """`polymorphs` crystals that share their formula, others that do not, and 300 copies."""
    rng = np.random.default_rng(0)
    phases = list(by_formula(known).values())
    shared = [c for i in rng.permutation(len(phases)) if len(phases[i]) > 1 for c in phases[i]]
    alone = [same[0] for same in phases if len(same) == 1]
    base = shared[:polymorphs]
    base += [alone[i] for i in rng.choice(len(alone), 700 - len(base), replace=False)]
    for number, i in enumerate(rng.choice(700, 300, replace=False)):
        if number % 3 == 0 and base[i].n_atoms <= 40:
            base.append(supercell(base[i], rng))
        else:
            base.append(distorted(base[i], rng, *((0.05, 0.02) if number % 3 == 1 else ())))
    return [base[i] for i in rng.permutation(1000)]


def beside_group_structures(crystals: Sequence[Crystal], repeats: int = 5) -> None:
    """Interleaved, nothing cached from before; CPU seconds and whether the groups are the same."""
    ours_s, theirs_s, same = [], [], []
    gc.freeze()  # no collector walks over the data while one of the two is timed
    for _ in range(repeats):
        fresh = [Crystal.model_validate(c.model_dump()) for c in crystals]
        structures = [c.to_structure() for c in fresh]
        StructureMatcher._get_reduced_istructure.cache_clear()
        start = time.process_time()
        ours = group_equal(fresh)
        middle = time.process_time()
        groups = StructureMatcher().group_structures(structures)
        theirs_s.append(time.process_time() - middle)
        ours_s.append(middle - start)
        number = {id(s): i for i, s in enumerate(structures)}
        same.append(ours == sorted(sorted(number[id(s)] for s in g) for g in groups))
    formulas = Counter(crystals[g[0]].formula for g in ours)
    siblings = sum(n for n in formulas.values() if n > 1)
    ratio = median(t / o for t, o in zip(theirs_s, ours_s, strict=True))
    print(f"  {len(crystals)} structures, {len(ours)} groups, {siblings} of them share a formula;")
    print(f"  same groups: {all(same)}; {median(ours_s):.2f} s, StructureMatcher", end=" ")
    print(f"{median(theirs_s):.2f} s: {ratio:.1f} times as fast")


def against_known(known: Sequence[Crystal]) -> None:
    """Distorted copies of every known phase looked up among all known phases."""
    rng = np.random.default_rng(1)
    copies = [distorted(c, rng, 0.05, 0.02) for c in known]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    library = StructureLibrary((str(i), c) for i, c in enumerate(known))
    built = time.process_time() - start
    start = time.process_time()
    found = sum(library.match(c) is not None for c in copies)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"  {len(library)} known added in {built:.1f} s; {found} of {len(copies)} copies found in"
    )
    print(f"  {seconds:.0f} s, {1e3 * seconds / len(copies):.2f} ms each; memory +{grown:.0f} MiB")


def one_formula(data: Path) -> None:
    """Carbon: every structure is compared with every group."""
    table = pd.read_parquet(data / "structures/carbon_24_val_test.parquet", columns=["cif"])
    crystals = [read_plain_cif(text) for text in table["cif"]]
    beside_group_structures(crystals[:250], repeats=1)
    for n in (500, 1000, 2000):
        start = time.process_time()
        groups = group_equal(crystals[:n])
        print(f"  {n}: {len(groups)} groups in {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    phases = known_phases(folder)
    print("1,000 structures")
    for shared in (400, 700):
        beside_group_structures(thousand(phases, shared))
    print("one formula")
    one_formula(folder)
    print("all known phases")
    against_known(phases)
    print("labelled pairs")
    agreement(labelled_pairs(phases, llamat2_crystals(folder))[::3])
