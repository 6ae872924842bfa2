import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hullward.models.crystal import Crystal
from hullward.tools.records import Flaw, Reason
from hullward.tools.screening import Facts, Limits, validate

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning")

SUPPORTED = frozenset({"H", "C", "N", "O", "F", "Na", "Cl", "Fe", "K", "Cs", "Li", "Mn", "Ar", "U"})
SALT = Crystal.from_parameters(
    (5.64, 5.64, 5.64),
    (90, 90, 90),
    ["Na"] * 4 + ["Cl"] * 4,
    [
        (0, 0, 0),
        (0, 0.5, 0.5),
        (0.5, 0, 0.5),
        (0.5, 0.5, 0),
        (0.5, 0.5, 0.5),
        (0.5, 0, 0),
        (0, 0.5, 0),
        (0, 0, 0.5),
    ],
)


def salt(scale=1.0, **replaced):
    coords = [list(x) for x in SALT.frac_coords]
    species = list(SALT.species)
    if "species" in replaced:
        species[: len(replaced["species"])] = replaced["species"]
    if "first_site" in replaced:
        coords[0] = replaced["first_site"]
    lattice = np.array(SALT.lattice) * scale
    return Crystal.from_arrays(replaced.get("lattice", lattice), species, coords)


def reason_of(crystal, **limits):
    outcome = validate.check_crystal(crystal, Limits(**limits), SUPPORTED)
    return outcome.reason if isinstance(outcome, Flaw) else None


def test_rock_salt_passes_with_its_facts():
    facts = validate.check_crystal(SALT, Limits(), SUPPORTED)
    assert facts.model_dump() == {
        "formula": "NaCl",
        "chemsys": "Cl-Na",
        "n_atoms": 8,
        "volume_per_atom_a3": pytest.approx(5.64**3 / 8),
        "min_distance_a": pytest.approx(2.82),
        "space_group": 225,
        "charge_balanced": True,
        "charge_note": "Na+ Cl-",
    }
    candidate = validate.candidate("x-1", SALT, facts)
    assert (candidate.proposal_id, candidate.candidate_id) == ("x-1", SALT.content_id)
    assert candidate.crystal == SALT


@pytest.mark.parametrize(
    ("crystal", "limits", "reason"),
    [
        (SALT, {"max_atoms": 7}, Reason.ATOM_COUNT),
        (SALT, {"min_atoms": 9}, Reason.ATOM_COUNT),
        (salt(species=["Xx"]), {}, Reason.UNKNOWN_ELEMENT),
        (salt(species=["D"]), {}, Reason.UNKNOWN_ELEMENT),
        (salt(species=["Pu"]), {}, Reason.UNSUPPORTED_ELEMENT),
        (SALT, {"forbidden_elements": {"Cl"}}, Reason.FORBIDDEN_ELEMENT),
        (SALT, {"allowed_elements": {"Na", "K"}}, Reason.FORBIDDEN_ELEMENT),
        (SALT, {"required_elements": {"Li"}}, Reason.ELEMENT_COUNT),
        (SALT, {"min_elements": 3}, Reason.ELEMENT_COUNT),
        (SALT, {"max_elements": 1}, Reason.ELEMENT_COUNT),
        (salt(lattice=np.diag([0.9, 12, 12])), {}, Reason.CELL_TOO_FLAT),
        (salt(lattice=[[5, 0, 0], [0, 5, 0], [5, 5, 0]]), {}, Reason.CELL_TOO_FLAT),
        (salt(lattice=np.zeros((3, 3))), {}, Reason.CELL_TOO_FLAT),
        (salt(3.0), {}, Reason.VOLUME_TOO_LARGE),
        (salt(1e150), {}, Reason.VOLUME_TOO_LARGE),
        (salt(0.5), {}, Reason.VOLUME_TOO_SMALL),  # fewer Å3 than any solid
        (salt(0.75), {}, Reason.VOLUME_TOO_SMALL),  # more atom than cell
        (salt(first_site=(0.0, 0.0, 0.45)), {}, Reason.ATOMS_TOO_CLOSE),
        (salt(first_site=(1.0, -1.0, -0.4999)), {}, Reason.ATOMS_TOO_CLOSE),  # through the faces
        (salt(lattice=np.diag([1.5, 12, 12])), {}, Reason.ATOMS_TOO_CLOSE),  # with its own image
        (
            Crystal.from_arrays(np.diag([6.2, 6.2, 6.2]), ["O", "O"], [(0, 0, 0)] * 2),
            {},
            Reason.ATOMS_TOO_CLOSE,
        ),
        (
            Crystal.from_arrays(
                np.eye(3) * 8, ["H"] * 3 + ["O"], [(0, 0, z / 10) for z in range(4)]
            ),
            {},
            None,
        ),
        (Crystal.from_arrays(np.eye(3) * 5.2, ["Ar"], [(0, 0, 0)]), {}, None),
        (
            Crystal.from_arrays(np.diag([5, 5, 11.5]), ["Cs", "O"], [(0, 0, 0), (0, 0, 0.5)]),
            {"isolation_a": 4.9},
            Reason.ATOM_ISOLATED,
        ),
        (
            Crystal.from_arrays(np.eye(3) * 6.5, ["O", "O"], [(0, 0, 0), (0.5, 0.5, 0.5)]),
            {"isolation_a": 5.0},
            Reason.ATOM_ISOLATED,
        ),
        (salt(species=["K", "O"]), {"require_charge_balance": True}, Reason.CHARGE_UNBALANCED),
        (salt(species=["K", "O"]), {}, None),
        (
            SALT,
            {"require_charge_balance": True, "allowed_oxidation_states": {"Na": (3,)}},
            Reason.CHARGE_UNBALANCED,
        ),
    ],
)
def test_one_deformity_gives_one_reason(crystal, limits, reason):
    assert reason_of(crystal, **limits) is reason


REAL_BONDS_A = {"H": 0.74, "N": 1.10, "O": 1.21, "C": 1.20, "F": 1.42, "U": 2.51}


def pair(symbol, distance):
    return Crystal.from_arrays(np.eye(3) * 5.5, [symbol] * 2, [(0, 0, 0), (0, 0, distance / 5.5)])


@pytest.mark.parametrize("symbol", REAL_BONDS_A)
def test_the_shortest_real_bonds_pass_even_a_strict_limit(symbol):
    assert reason_of(pair(symbol, REAL_BONDS_A[symbol]), min_distance_factor=0.75) is None
    assert reason_of(pair(symbol, 0.3 * REAL_BONDS_A[symbol])) is Reason.ATOMS_TOO_CLOSE


def test_checks_run_in_the_documented_order():
    everything_wrong = salt(0.1, species=["Xx", "Pu"])
    assert reason_of(everything_wrong, max_atoms=3) is Reason.ATOM_COUNT
    assert reason_of(everything_wrong) is Reason.UNKNOWN_ELEMENT
    assert reason_of(salt(0.1, species=["Pu"])) is Reason.UNSUPPORTED_ELEMENT
    assert reason_of(salt(0.1)) is Reason.CELL_TOO_FLAT
    assert reason_of(salt(0.4)) is Reason.VOLUME_TOO_SMALL


def test_a_skewed_choice_of_vectors_is_not_flat():
    skew = np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]])
    lattice = skew @ np.array(SALT.lattice)
    frac = np.array(SALT.frac_coords) @ np.linalg.inv(skew)
    facts = validate.check_crystal(
        Crystal.from_arrays(lattice, SALT.species, frac), Limits(), SUPPORTED
    )
    assert isinstance(facts, Facts)
    assert facts.min_distance_a == pytest.approx(2.82)


finite = st.floats(-1e308, 1e308, allow_nan=False)
plausible = st.floats(-12, 12)


@st.composite
def crystals(draw, elements):
    n = draw(st.integers(1, 6))
    lattice = draw(arrays(float, (3, 3), elements=elements))
    coords = draw(arrays(float, (n, 3), elements=elements))
    symbols = st.sampled_from([*sorted(SUPPORTED), "Xx", "Pu"])
    return Crystal.from_arrays(lattice, draw(st.lists(symbols, min_size=n, max_size=n)), coords)


@given(st.one_of(crystals(finite), crystals(plausible)))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_finite_crystal_makes_a_check_raise(crystal):
    assert isinstance(validate.check_crystal(crystal, Limits(), SUPPORTED), Facts | Flaw)


@given(st.data(), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_site_order_and_origin_do_not_matter(data, n, seed):
    rng = np.random.default_rng(seed)
    lattice = np.diag(rng.uniform(2.5, 7, 3)) + rng.uniform(-1.5, 1.5, (3, 3))
    species = rng.choice(sorted(SUPPORTED), n)
    coords = rng.random((n, 3))
    order = rng.permutation(n)
    moved = coords[order] + data.draw(arrays(float, 3, elements=st.floats(-3, 3)))
    one = validate.check_crystal(Crystal.from_arrays(lattice, species, coords), Limits(), SUPPORTED)
    two = validate.check_crystal(
        Crystal.from_arrays(lattice, species[order], moved), Limits(), SUPPORTED
    )
    assert type(one) is type(two)
    if isinstance(one, Flaw):
        assert one.reason is two.reason
    else:
        assert one.min_distance_a == pytest.approx(two.min_distance_a, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_pair_distances_agree_with_an_independent_neighbour_list(seed):
    from pymatgen.core import Lattice

    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    matrix = np.diag(rng.uniform(2, 7, 3)) + rng.uniform(-2, 2, (3, 3))
    if validate.plane_spacings_a(matrix).min() < 0.8:
        return
    crystal = Crystal.from_arrays(matrix, ["O"] * n, rng.uniform(-2, 2, (n, 3)))
    i, j, distance = validate.nearest_pairs(crystal, 6.0)
    expected = np.full((n, n), np.inf)
    points = Lattice(matrix).get_points_in_sphere
    for k, xyz in enumerate(crystal.to_structure().cart_coords):
        for _, d, other, _ in points(np.array(crystal.frac_coords), xyz, 6.0):
            if d > 1e-8 or int(other) != k:
                expected[k, int(other)] = min(expected[k, int(other)], d)
    near = distance <= 5.999
    assert distance[near] == pytest.approx(expected[i, j][near], abs=1e-6)
    assert np.all(expected[i, j][~near] > 5.99)


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF:UserWarning")
def test_known_phases_pass(shared_data):
    table = pd.read_parquet(shared_data / "structures" / "mp_structures.parquet", columns=["cif"])
    from ase.data import chemical_symbols
    from pymatgen.core import Structure

    supported = frozenset(chemical_symbols[1:95])
    sample = table["cif"].sample(200, random_state=7)
    flaws = [
        outcome
        for cif in sample
        if isinstance(
            outcome := validate.check_crystal(
                Crystal.from_structure(Structure.from_str(cif, fmt="cif")), Limits(), supported
            ),
            Flaw,
        )
    ]
    assert len(flaws) <= 1, flaws


def test_elements_of_two_systems_do_not_mix():
    both = (frozenset({"Na", "Cl"}), frozenset({"K", "Cl"}))
    limits = Limits(allowed_elements=frozenset({"Na", "K", "Cl"}), allowed_systems=both)
    flaw = validate.check_crystal(salt(species=["Na", "K"]), limits, SUPPORTED)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == Reason.FORBIDDEN_ELEMENT
    assert flaw.detail == "Cl K Na: in none of the systems"
    assert isinstance(validate.check_crystal(salt(), limits, SUPPORTED), Facts)
