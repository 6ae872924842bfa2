"""The description by Wyckoff positions, and the powder pattern of pairs of elements."""

from itertools import combinations

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal.identity import PowderPattern, find_protostructure, packed, unpacked

ROCK_SALT = Crystal.from_parameters(
    (5.64,) * 3,
    (90,) * 3,
    ["Na"] * 4 + ["Cl"] * 4,
    [
        *([0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]),
        *([0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]),
    ],
)
WURTZITE = Crystal.from_parameters(
    (3.81, 3.81, 6.23),
    (90, 90, 120),
    ["Zn", "Zn", "S", "S"],
    [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]],
)
QUARTZ = Crystal.from_parameters(  # P3_221
    (4.913, 4.913, 5.405),
    (90, 90, 120),
    ["Si"] * 3 + ["O"] * 6,
    [
        *([0.470, 0, 2 / 3], [0, 0.470, 1 / 3], [-0.470, -0.470, 0]),
        *([0.413, 0.267, 0.786], [-0.267, 0.146, 0.453], [-0.146, -0.413, 0.119]),
        *([0.267, 0.413, -0.786], [0.146, -0.267, -0.453], [-0.413, -0.146, -0.119]),
    ],
)


def moved(crystal, matrix=(1, 1, 1), shift=(0, 0, 0), turn=1.0):
    """The crystal in another cell (rows of `matrix`), shifted, and mirrored where turn is -1."""
    structure = crystal.to_structure()
    structure.make_supercell(matrix)
    frac = np.array(structure.frac_coords) * turn + shift
    order = np.random.default_rng(3).permutation(len(frac))
    species = [structure[int(i)].specie.symbol for i in order]
    return Crystal.from_arrays(structure.lattice.matrix, species, frac[order])


@pytest.mark.parametrize(
    ("crystal", "label"),
    [
        (ROCK_SALT, "AB_cF8_225_a_b:Cl-Na"),
        (WURTZITE, "AB_hP4_186_b_b:S-Zn"),
        (QUARTZ, "A2B_hP9_152_c_a:O-Si"),
    ],
    ids=["rock salt", "wurtzite", "quartz"],
)
@pytest.mark.parametrize(
    "change",
    [
        {"shift": (0.5, 0.5, 0.5)},
        {"shift": (0.13, 0.27, 0.41)},
        {"matrix": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"matrix": [[0, 1, 0], [1, 0, 0], [0, 0, -1]]},
        {"matrix": [[1, 1, 0], [0, 1, 0], [0, 1, 1]]},
        {"turn": -1.0},
    ],
    ids=["origin", "anywhere", "supercell", "axes", "skew", "mirror"],
)
def test_one_label_and_one_pattern_whatever_the_setting(crystal, label, change):
    other = moved(crystal, **change)
    assert find_protostructure(other, 0.01).label == label
    assert np.allclose(PowderPattern(other).plain, PowderPattern(crystal).plain, atol=1e-6)


def test_exchanged_elements_on_equivalent_positions_are_one_arrangement():
    """Position a of rock salt is b from another origin: the exchange changes nothing."""
    sites = ROCK_SALT.frac_coords
    exchanged = Crystal.from_arrays(ROCK_SALT.lattice, ["Cl"] * 4 + ["Na"] * 4, sites)
    assert find_protostructure(exchanged, 0.01) == find_protostructure(ROCK_SALT, 0.01)


def test_the_mark_is_of_the_arrangement_and_not_of_the_elements():
    sites = ROCK_SALT.frac_coords
    other = Crystal.from_arrays(ROCK_SALT.lattice, ["Ag"] * 4 + ["I"] * 4, sites)
    # in alphabetical order the cation comes first here and second there: a and b are equivalent
    assert find_protostructure(other, 0.01).mark == find_protostructure(ROCK_SALT, 0.01).mark


def test_volume_does_not_count():
    larger = Crystal.from_arrays(
        1.1 * np.array(WURTZITE.lattice), WURTZITE.species, WURTZITE.frac_coords
    )
    assert np.allclose(PowderPattern(larger).plain, PowderPattern(WURTZITE).plain, atol=1e-6)


def test_a_strain_is_fitted():
    strain = np.array([[0.01, 0.004, 0], [0.004, -0.006, -0.008], [0, -0.008, 0.012]])
    strained = Crystal.from_arrays(
        np.array(WURTZITE.lattice) @ (np.eye(3) + strain), WURTZITE.species, WURTZITE.frac_coords
    )
    target = PowderPattern(WURTZITE).plain
    pattern = PowderPattern(strained)
    before = np.linalg.norm(pattern.plain - target)
    after, _ = pattern.fit(target)
    assert after < before / 5


def test_a_sketch_survives_one_byte_a_number():
    sketch = PowderPattern(QUARTZ).plain
    assert packed(sketch).dtype == np.int8
    assert np.abs(unpacked(packed(sketch)) - sketch).max() <= 0.002 + 1e-12


@pytest.mark.parametrize(
    ("matrix", "count"), [(np.diag([1, 1, 1e-9]), 1), (np.eye(3) * 20, 501)], ids=["flat", "large"]
)
def test_no_pattern_of_a_cell_without_volume_or_too_large(matrix, count):
    crystal = Crystal.from_arrays(
        matrix, ["Na"] * count, np.random.default_rng(0).random((count, 3))
    )
    with pytest.raises(ValueError, match="no pattern"):
        PowderPattern(crystal)


def test_the_nearest_exchange_is_that_of_patterns_made_one_by_one():
    rng = np.random.default_rng(0)
    places = np.array(QUARTZ.frac_coords) + rng.normal(0, 0.02, (QUARTZ.n_atoms, 3))
    species = ["Si", "Ge", "Si", *["O"] * 6]
    crystal = Crystal.from_arrays(QUARTZ.lattice, species, places)
    own = PowderPattern(crystal)
    apart = []
    for i, j in combinations(range(len(species)), 2):
        if species[i] != species[j]:
            exchanged = list(species)
            exchanged[i], exchanged[j] = species[j], species[i]
            other = Crystal.from_arrays(QUARTZ.lattice, exchanged, places)
            apart.append(np.linalg.norm(PowderPattern(other).plain - own.plain))
    assert own.nearest_exchange == pytest.approx(min(apart), rel=0.05)
    one = Crystal.from_arrays(QUARTZ.lattice, ["Si"] * 9, places)
    assert PowderPattern(one).nearest_exchange == 0.0
