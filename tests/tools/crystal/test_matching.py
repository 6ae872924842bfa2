import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal import StructureLibrary, group_equal, matching
from hullward.tools.crystal.matching import ComparedCrystal, Match
from hullward.tools.crystal.reduced_cell import reduced_cell
from hullward.tools.crystal.superposition import comparable, rms_displacement

QUARTZ = Crystal.from_parameters(  # P3_221
    (4.913, 4.913, 5.405),
    (90, 90, 120),
    ["Si"] * 3 + ["O"] * 6,
    [
        (0.4697, 0, 0),
        (0, 0.4697, 2 / 3),
        (0.5303, 0.5303, 1 / 3),
        (0.4135, 0.2669, 0.1191),
        (0.7331, 0.1466, 0.4524),
        (0.8534, 0.5865, 0.7858),
        (0.2669, 0.4135, 0.5476),
        (0.1466, 0.7331, 0.2142),
        (0.5865, 0.8534, 0.8809),
    ],
)
RUTILE = Crystal.from_parameters(
    (4.594, 4.594, 2.959),
    (90, 90, 90),
    ["Ti"] * 2 + ["O"] * 4,
    [
        (0, 0, 0),
        (0.5, 0.5, 0.5),
        (0.305, 0.305, 0),
        (0.695, 0.695, 0),
        (0.195, 0.805, 0.5),
        (0.805, 0.195, 0.5),
    ],
)
ANATASE = Crystal.from_arrays(
    [[-1.893, 1.893, 4.757], [1.893, -1.893, 4.757], [1.893, 1.893, -4.757]],
    ["Ti"] * 2 + ["O"] * 4,
    [
        (0, 0, 0),
        (0.75, 0.25, 0.5),
        (0.208, 0.208, 0),
        (0.792, 0.792, 0),
        (0.958, 0.458, 0.5),
        (0.542, 0.042, 0.5),
    ],
)


def moved(crystal, shift):
    return Crystal.from_arrays(
        crystal.lattice, crystal.species, np.array(crystal.frac_coords) + shift
    )


def mirrored(crystal):
    lattice = np.array(crystal.lattice) * [1, 1, -1]
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


def turned(crystal):
    """Another handedness of the content: coordinates inverted within the same cell."""
    return Crystal.from_arrays(crystal.lattice, crystal.species, -np.array(crystal.frac_coords))


def repeated(crystal, matrix):
    return Crystal.from_structure(crystal.to_structure().make_supercell(matrix, in_place=False))


def scaled(crystal, factor):
    lattice = np.array(crystal.lattice) * factor
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


def rattled(crystal, size_a, seed=0):
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(crystal.n_atoms, 3))
    steps *= size_a / np.linalg.norm(steps, axis=1, keepdims=True)
    return moved(crystal, steps @ np.linalg.inv(np.array(crystal.lattice)))


PAIRS = {
    "same": (RUTILE, RUTILE),
    "supercell": (RUTILE, repeated(RUTILE, [[2, 0, 0], [0, 1, 0], [0, 1, 1]])),
    "origin": (QUARTZ, moved(QUARTZ, [0.21, 0.4, -0.3])),
    "enantiomorph": (QUARTZ, turned(QUARTZ)),
    "mirror": (QUARTZ, mirrored(QUARTZ)),
    "swollen": (ANATASE, scaled(ANATASE, 1.05)),
    "rattled": (ANATASE, rattled(ANATASE, 0.1)),
    "polymorph": (RUTILE, ANATASE),
    "shuffled": (RUTILE, rattled(RUTILE, 1.2)),
    "other formula": (QUARTZ, RUTILE),
}
SUPERCELLS = [np.diag([2, 1, 1]), [[1, 1, 0], [-1, 1, 0], [0, 0, 1]]]
MATCHING = {"same", "supercell", "origin", "enantiomorph", "mirror", "swollen", "rattled"}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_library_agrees_with_the_structure_matcher(pair):
    from pymatgen.core.structure_matcher import StructureMatcher

    one, two = PAIRS[pair]
    found = StructureLibrary([("one", one)]).match(two) is not None
    assert found is (pair in MATCHING)
    assert found is bool(StructureMatcher().fit(one.to_structure(), two.to_structure()))


@pytest.mark.parametrize("pair", PAIRS)
def test_displacements_are_those_of_the_structure_matcher(pair):
    from pymatgen.core.structure_matcher import StructureMatcher

    one, two = PAIRS[pair]
    ours = rms_displacement(reduced_cell(one), reduced_cell(two))
    theirs = StructureMatcher().get_rms_dist(one.to_structure(), two.to_structure())
    assert (ours is None) == (pair not in MATCHING)
    if ours is not None:
        assert ours == pytest.approx(theirs[0], abs=1e-5)


@pytest.mark.parametrize("pair", sorted(MATCHING))
def test_buckets_part_no_match(pair):
    one, two = (reduced_cell(c) for c in PAIRS[pair])
    assert comparable(one, two)
    assert comparable(two, one)


def test_what_is_compared_at_once_parts_no_match():
    """Nor does it leave much to compare: of different crystals, most are excluded."""
    singles = [RUTILE, ANATASE, QUARTZ]
    larger = [repeated(one, matrix) for one in singles for matrix in SUPERCELLS]
    noise = [rattled(one, size, 1) for one in (*singles, *larger) for size in (0.16, 0.4)]
    compared = [ComparedCrystal("", one) for one in (*singles, *larger, *noise)]
    total, excluded = 0, 0
    for one in compared:
        for other, may in zip(compared, one.may_match(compared), strict=True):
            matches = other.rms_to(one) is not None
            assert may or not matches
            total, excluded = total + (not matches), excluded + (not may)
    assert excluded > 0.7 * total > 0


@pytest.mark.parametrize("matrix", [np.diag([3, 1, 2]), [[1, 1, 0], [-1, 1, 0], [0, 0, 2]]])
def test_a_supercell_has_the_cell_it_repeats(matrix):
    small = reduced_cell(QUARTZ)
    large = reduced_cell(rattled(repeated(QUARTZ, matrix), 0.02))
    assert large.counts == small.counts == (6, 3)
    np.testing.assert_allclose(large.lengths, small.lengths, atol=1e-4)


def test_groups_are_those_of_equal_crystals():
    crystals = [RUTILE, QUARTZ, ANATASE, moved(QUARTZ, 0.3), rattled(RUTILE, 0.05), ANATASE]
    assert group_equal(crystals) == [[0, 4], [1, 3], [2, 5]]
    assert group_equal([]) == []


def test_identical_content_is_found_before_anything_is_compared(monkeypatch):
    library = StructureLibrary([("a", RUTILE), ("b", scaled(RUTILE, 1.01))])
    monkeypatch.setattr(matching, "_rms", lambda *_: pytest.fail("compared"))
    whole_steps = moved(RUTILE, [1, -2, 0])
    assert library.match(whole_steps) == Match("a", None)


def test_the_smallest_displacement_wins_and_the_first_added_among_equals():
    rough, fine = rattled(ANATASE, 0.3), rattled(ANATASE, 0.05)
    library = StructureLibrary([("rough", rough), ("fine", fine)])
    found = library.match(scaled(ANATASE, 1.02))
    assert found.match_id == "fine"
    assert 0 < found.rms_a < 0.05
    twins = StructureLibrary([("first", moved(ANATASE, 0.1)), ("second", moved(ANATASE, 0.2))])
    assert twins.match(ANATASE) == Match("first", 0.0)


def test_a_name_for_content_is_given_once():
    library = StructureLibrary([("a", RUTILE), ("b", RUTILE)])
    library.add("c", moved(RUTILE, [1, 0, 0]))
    assert len(library) == 1
    assert library.match(RUTILE) == Match("a", None)


@pytest.mark.parametrize(
    "monster",
    [
        Crystal.from_arrays(np.zeros((3, 3)), ["Ti", "O", "O"], np.zeros((3, 3))),
        Crystal.from_arrays(np.diag([1e-6, 5, 5]), ["Ti", "O", "O"], np.eye(3)),
        Crystal.from_arrays([[5, 0, 0], [5, 1e-9, 0], [0, 0, 5]], ["Ti", "O", "O"], np.eye(3) / 3),
        Crystal.from_arrays(np.diag([1e5, 5, 5]), ["Ti", "O", "O"], np.zeros((3, 3))),
        Crystal.from_arrays(
            np.eye(3) * 20, ["Ti", "O", "O"] * 150, np.random.default_rng(0).random((450, 3))
        ),
    ],
    ids=["no cell", "flat", "degenerate", "needle", "large"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_monster_is_compared_by_content_only(monster):
    library = StructureLibrary([("rutile", RUTILE), ("monster", monster)])
    assert library.match(monster) == Match("monster", None)
    assert library.match(moved(RUTILE, 0.1)).match_id == "rutile"
    assert library.match(moved(monster, 0.1)) is None or monster.n_atoms < 450


def test_matches_are_found_among_real_outputs(shared_data):
    """The duplicates of one formula, seen by the library, are those of pymatgen's grouping."""
    import json

    import pandas as pd
    from pymatgen.core.structure_matcher import StructureMatcher

    table = pd.read_parquet(shared_data / "known" / "llamat2_generated.parquet")
    rows = table[table["formula"].isin(table["formula"].value_counts().index[:8])]
    library, structures, matched = StructureLibrary(), [], 0
    for row in rows.itertuples():
        columns = [json.loads(x) for x in (row.lengths, row.angles, row.species, row.coords)]
        crystal = Crystal.from_parameters(*columns)
        structures.append(crystal.to_structure())
        if library.match(crystal):
            matched += 1
        else:
            library.add(str(row.row), crystal)
    groups = StructureMatcher().group_structures(structures)
    assert len(library) == len(groups)
    assert matched == len(structures) - len(groups)


AL3NI2 = Crystal.from_parameters(  # D5_13, P-3m1
    (4.036, 4.036, 4.9),
    (90, 90, 120),
    ["Al"] * 3 + ["Ni"] * 2,
    [
        (0, 0, 0),
        (1 / 3, 2 / 3, 0.648),
        (2 / 3, 1 / 3, 0.352),
        (1 / 3, 2 / 3, 0.149),
        (2 / 3, 1 / 3, 0.851),
    ],
)


def test_crystals_are_equal_though_only_one_reduces_to_the_smaller_cell():
    """As a reference phase and its perturbation were: 5 and 15 sites, 0.009 (V/n)^(1/3) apart."""
    from pymatgen.core.structure_matcher import StructureMatcher

    triple = repeated(AL3NI2, [[2, 1, 0], [-1, 1, 0], [0, 0, 1]])
    sizes = np.arange(0.02, 0.3, 0.002)
    cells = [len(reduced_cell(rattled(triple, size))) for size in sizes]
    edge = cells.index(15)
    below, above = (rattled(triple, sizes[k]) for k in (edge - 1, edge))
    assert len(reduced_cell(below)) == 5
    one, two = below.to_structure(), above.to_structure()
    assert StructureMatcher(primitive_cell=False).fit(one, two)
    match = StructureLibrary([("known", below)]).match(above)
    assert match is not None
    assert match.rms_a < 0.01
    assert StructureLibrary([("known", AL3NI2)]).match(above) is not None
    assert group_equal([above, ANATASE, below, AL3NI2]) == [[0, 2, 3], [1]]


@pytest.mark.parametrize("matrix", SUPERCELLS)
@pytest.mark.parametrize("crystal", [RUTILE, ANATASE, QUARTZ])
def test_noise_in_a_supercell_is_no_other_phase(crystal, matrix):
    copies = (rattled(repeated(crystal, matrix), 0.16, seed) for seed in range(50))
    noisy = next(copy for copy in copies if len(reduced_cell(copy)) == copy.n_atoms)
    for one, two in ((crystal, noisy), (noisy, crystal)):
        found = StructureLibrary([("known", one)]).match(two)
        assert found is not None
        assert 0.02 < found.rms_a < 0.08


def test_a_superstructure_with_symmetry_of_its_own_is_another_phase():
    """AuCd: caesium chloride, and the martensite whose planes are shifted."""
    cubic = Crystal.from_arrays(np.eye(3) * 3.32, ["Au", "Cd"], [(0, 0, 0), (0.5, 0.5, 0.5)])
    double = repeated(cubic, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    upward = np.isclose(np.array(double.frac_coords)[:, 1] % 1, 0.5)
    shifted = np.array(double.frac_coords) + 0.1 * np.outer(upward, [1, 0, 0])
    martensite = Crystal.from_arrays(double.lattice, double.species, shifted)
    assert len(reduced_cell(martensite)) == 4
    assert StructureLibrary([("cubic", cubic)]).match(martensite) is None


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF:UserWarning")
def test_groups_of_polymorphs_and_copies_are_pymatgens(shared_data):
    """Known phases that share a formula, and a moved or repeated copy of every fourth.

    Where a chain of matches connects two of its groups, they are one. It misses two that are
    the same without its reduction, and a rattled copy of twice the cell.
    """
    import pandas as pd
    from pymatgen.core.structure_matcher import StructureMatcher

    columns = ["formula", "nsites", "cif"]
    table = pd.read_parquet(shared_data / "structures" / "mp_structures.parquet", columns=columns)
    table = table[table["nsites"] <= 24]
    many = table["formula"].value_counts().index[:12]
    crystals = [
        Crystal.from_structure(structure)
        for structure in map(_from_cif, table[table["formula"].isin(many)]["cif"])
    ]
    originals = len(crystals)
    crystals += [rattled(repeated(c, np.diag([1, 2, 1])), 0.05) for c in crystals[::4]]
    structures = [c.to_structure() for c in crystals]
    number = {id(s): i for i, s in enumerate(structures)}
    matcher, found = StructureMatcher(), group_equal(crystals)
    ours = {i: n for n, group in enumerate(found) for i in group}
    joined: dict[int, list[list[int]]] = {}
    for group in matcher.group_structures(structures):
        members = [number[id(s)] for s in group]
        assert len({ours[i] for i in members}) == 1
        joined.setdefault(ours[members[0]], []).append(members)
    assert sum(len(groups) > 1 for groups in joined.values()) == 3
    missed = []
    for groups in joined.values():
        connected, *others = groups
        for other in others:
            if not any(matcher.fit(structures[i], structures[j]) for i in connected for j in other):
                missed.append(other)
            connected = connected + other
    assert len(missed) == 3
    assert sum(min(group) >= originals for group in missed) == 1


def _from_cif(text):
    from pymatgen.core import Structure

    return Structure.from_str(text, fmt="cif")
