"""The index of known structures: copies recognised, polymorphs and substitutions told apart.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/known_index.py DATA [--relax 30] [--seed 16]

DATA is the folder of real data (structures/, hull/). Prints the figures of RESULTS.md.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from common import MP_STRUCTURES, options, read_plain_cif
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.crystal import group_equal
from hullward.tools.prototypes import decorate, prototype_library, textbook_phases_of
from hullward.tools.records import Protocol
from hullward.tools.reference import IndexedPhase, KnownIndex, load_known_index, load_reference
from hullward.tools.reference.known.build import facts_of
from hullward.tools.reference.known.recognition import Sighting
from hullward.tools.reference.recipe import all_trials
from hullward.tools.reference.sources import BuiltPhases, read_embedded
from hullward.tools.relax.stream import relax_one

SEED = 16
OTHER_TABLES = ("mp2019_union_hull", "mp_stable_phases_2024")
SIMILAR = (
    *("Li Na K Rb Cs", "Be Mg Ca Sr Ba", "F Cl Br I", "O S Se Te", "N P As Sb Bi"),
    *("Sc Y La Nd Gd Er Lu", "Ti Zr Hf", "V Nb Ta", "Cr Mo W", "Mn Tc Re", "Fe Ru Os"),
    *("Co Rh Ir", "Ni Pd Pt", "Cu Ag Au", "Zn Cd Hg", "B Al Ga In Tl", "C Si Ge Sn Pb"),
)
KINDS = ("as given", "supercell", "conventional", "primitive")
Known = dict[str, dict[str, Crystal]]  # by formula, by id


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--relax", type=int, default=0, help="copies to relax with CHGNet")
    parser.add_argument("--seed", type=int, default=SEED, help="of the draws")
    asked = parser.parse_args()
    if not (asked.data / MP_STRUCTURES).is_file():
        sys.exit(f"skipped: no {MP_STRUCTURES} in {asked.data}")
    index, known = loaded(), read_structures(asked.data)
    copies(index, known, asked.count, asked.seed)
    polymorphs(known, asked.count, asked.seed + 1)
    substituted(index, known, asked.count, asked.seed + 2)
    held_out(known, asked.data, asked.seed + 3)
    if asked.relax:
        relaxed(index, known, asked.relax, asked.seed + 4)


def loaded() -> KnownIndex:
    start = time.process_time()
    index = load_known_index()
    assert index.knows("NaCl")
    print(f"loaded in {time.process_time() - start:.2f} CPU s: {index.counts}")
    return index


def read_structures(data: Path) -> Known:
    table = pd.read_parquet(data / MP_STRUCTURES, columns=["material_id", "cif"])
    known: Known = defaultdict(dict)
    for name, cif in zip(table["material_id"], table["cif"], strict=True):
        crystal = read_plain_cif(cif)
        known[crystal.formula].setdefault(name, crystal)
    return dict(known)


def shuffled(known: Known, rng: np.random.Generator) -> Iterator[tuple[str, Crystal]]:
    pairs = sorted((name, crystal) for group in known.values() for name, crystal in group.items())
    for number in rng.permutation(len(pairs)):
        yield pairs[number]


def copies(index: KnownIndex, known: Known, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, same_id, spent, missed = 0, 0, 0.0, []
    for (name, crystal), _ in zip(shuffled(known, rng), range(count), strict=False):
        copy, how = distorted(crystal, rng)
        start = time.process_time()
        phase = index.structure(copy)
        spent += time.process_time() - start
        found += phase is not None
        same_id += phase is not None and phase.phase_id == name
        if phase is None:
            missed.append(f"{name} {crystal.formula} {how}")
    print(
        f"distorted copies: {found} of {count} recognised, {same_id} by their own id, "
        f"{1000 * spent / count:.1f} CPU ms each"
    )
    print("  missed:", *missed, sep="\n    ")


def distorted(crystal: Crystal, rng: np.random.Generator) -> tuple[Crystal, str]:
    """Another cell, rotated, shifted, permuted; four in five rattled by 0.02 to 0.08 Å as well."""
    structure = crystal.to_structure()
    kind = rng.choice(
        ["as given", "supercell", "conventional", "primitive"], p=[0.3, 0.3, 0.2, 0.2]
    )
    if kind == "conventional":
        structure = SpacegroupAnalyzer(structure, 0.01).get_conventional_standard_structure()
    elif kind == "primitive":
        structure = structure.get_primitive_structure(0.01)
    elif kind == "supercell" and len(structure) <= 40:
        structure.make_supercell(rng.permutation([2, 1, 1]).tolist())
    sigma = rng.uniform(0.02, 0.08) if rng.random() < 0.8 else 0.0
    strain = rng.uniform(-0.02, 0.02, (3, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    lattice = structure.lattice.matrix @ (np.eye(3) + (strain + strain.T) / 2) @ rotation
    steps = rng.normal(0, sigma, (len(structure), 3)) @ np.linalg.inv(lattice)
    frac = np.array(structure.frac_coords) + rng.random(3) + steps
    order = rng.permutation(len(structure))
    species = [structure[int(i)].specie.symbol for i in order]
    return Crystal.from_arrays(lattice, species, frac[order]), f"{kind}, {sigma:.3f} Å"


def polymorphs(known: Known, count: int, seed: int) -> None:
    """Each against the others of its formula that StructureMatcher says differ."""
    rng = np.random.default_rng(seed)
    matcher = StructureMatcher()
    queries = 0
    wrong: list[str] = []
    same_cells: list[str] = []
    for name, crystal in shuffled(known, rng):
        others = [(n, c) for n, c in known[crystal.formula].items() if n != name]
        structure = crystal.to_structure()
        others = [(n, c) for n, c in others if not matcher.fit(structure, c.to_structure())]
        if not others:
            continue
        queries += 1
        seen = Sighting(crystal)
        for other_name, other in others:
            facts = facts_of(other)
            if facts is not None and seen.distance(facts) is not None:
                pair = f"{crystal.formula} {name} {other_name}"
                (same_cells if are_equal(crystal, other) else wrong).append(pair)
        if queries == count:
            break
    print(
        f"polymorphs: {len(wrong)} pairs of {queries} queries called known:", *wrong, sep="\n    "
    )
    print("  besides, equal in a common or symmetrised cell:", *same_cells, sep="\n    ")


def are_equal(one: Crystal, two: Crystal) -> bool:
    """Whether they match in cells of other sizes, or once symmetrised within 0.1 Å."""
    if len(group_equal([one, two])) == 1:
        return True
    matcher = StructureMatcher(primitive_cell=False, attempt_supercell=True)
    refined = [SpacegroupAnalyzer(c.to_structure(), 0.1).find_primitive() for c in (one, two)]
    if any(structure is None for structure in refined):
        return False
    cells = [one.to_structure(), two.to_structure()]
    return any(
        StructureMatcher().fit(a, b) or matcher.fit(a, b) or matcher.fit(b, a)
        for a, b in (refined, cells)
    )


def substituted(index: KnownIndex, known: Known, count: int, seed: int) -> None:
    """One element exchanged; the formula unknown, or known with other structures alone."""
    rng = np.random.default_rng(seed)
    matcher = StructureMatcher()
    done = {"unknown formula": 0, "known formula": 0}
    right: list[str] = []
    wrong: list[str] = []
    for name, crystal in shuffled(known, rng):
        new = exchanged(crystal, rng)
        kind = (
            "known formula" if new is not None and index.knows(new.formula) else "unknown formula"
        )
        if new is None or done[kind] >= count // 2:
            continue
        group = known.get(new.formula, {})
        if kind == "known formula":
            structure = new.to_structure()
            if not group or any(matcher.fit(structure, c.to_structure()) for c in group.values()):
                continue
        done[kind] += 1
        if (phase := index.structure(new)) is None:
            continue
        words = f"{new.formula} of {name}, found {phase.phase_id} ({phase.source})"
        if any(
            matcher.fit(new.to_structure(), c.to_structure()) for c in claimed(phase, new, known)
        ):
            right.append(words)
        else:
            wrong.append(words)
        if min(done.values()) >= count // 2:
            break
    print(
        f"substituted: {len(wrong)} of {done} called known, unconfirmed by a structure:",
        *wrong,
        sep="\n    ",
    )
    print(f"  besides, {len(right)} are what the index says:", *right, sep="\n    ")


def claimed(phase: IndexedPhase, crystal: Crystal, known: Known) -> list[Crystal]:
    """The structures that the index may mean: of the table, the reference, or a structure type."""
    if phase.source == "Materials Project":
        return [known.get(crystal.formula, {})[phase.phase_id]]
    if phase.source == "embedded reference":
        entries = load_reference("embedded").library_entries(crystal.chemsys)
        return [own for name, own in entries if name == phase.phase_id]
    textbook = [p.crystal for p in textbook_phases_of(crystal.chemsys)]
    elements = sorted(crystal.amounts)
    made = decorate(elements, [crystal.formula], 200, prototypes=prototype_library())
    found = [*textbook, *(m.crystal for m in made)]
    if phase.tried_only:  # the recipe followed again
        source = read_embedded().source
        assert isinstance(source, BuiltPhases)
        facts = source.manifest.systems[crystal.chemsys]
        found += [
            trial.crystal
            for trial in all_trials(elements, facts.tried_formulas)
            if trial.prototype.removeprefix("split:") == phase.phase_id
        ]
    return [own for own in found if own.formula == crystal.formula]


def exchanged(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    own = rng.choice(sorted(set(crystal.species)))
    row = next((line.split() for line in SIMILAR if own in line.split()), [])
    free = [el for el in row if el not in crystal.species]
    if not free:
        return None
    new = str(rng.choice(free))
    species = [new if s == own else s for s in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def held_out(known: Known, data: Path, seed: int) -> None:
    """Compounds of 200 structures in an index without their table."""
    tables = [pd.read_parquet(data / "hull" / f"{name}.parquet") for name in OTHER_TABLES]
    elsewhere = {formula for table in tables for formula in table["formula"]}
    rng = np.random.default_rng(seed)
    names = [c.formula for (_, c), _ in zip(shuffled(known, rng), range(200), strict=False)]
    print(f"held out: {sum(n in elsewhere for n in names)} of 200 formulas known from other tables")


def relaxed(index: KnownIndex, known: Known, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    potential, missed, done = load_potential("chgnet-0.3.0", "cpu"), [], 0
    for name, crystal in shuffled(known, rng):
        if crystal.n_atoms > 6:
            continue
        copy, _ = distorted(crystal, rng)
        if copy.n_atoms > 12:
            continue
        result = relax_one(name, copy, potential, Protocol(max_steps=200))
        if result.crystal is None:
            continue
        done += 1
        if index.structure(result.crystal) is None:
            missed.append(f"{name} {crystal.formula} converged={result.converged}")
        if done == count:
            break
    print(f"relaxed with CHGNet: {done - len(missed)} of {done} recognised:", *missed, sep="\n    ")


if __name__ == "__main__":
    main()
