"""Potentials: what they compute for crystals, and what they refuse."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import (
    Evaluation,
    IsolatedAtomError,
    Potential,
    UnsupportedElementError,
    load_potential,
    potential_card,
    registry,
)
from hullward.models.potential.registry import potential_names

ROCK_SALT = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]


def rock_salt(a: float = 5.7, jolt: float = 0.0) -> Crystal:
    coords = np.array(ROCK_SALT + [(x + 0.5, y, z) for x, y, z in ROCK_SALT])
    coords = coords + np.random.default_rng(0).normal(scale=jolt, size=coords.shape)
    return Crystal.from_arrays(a * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, coords)


@pytest.fixture(scope="module")
def toy() -> Potential:
    return load_potential("toy")


@pytest.fixture(scope="module")
def chgnet() -> Potential:
    return load_potential("chgnet-0.3.0")


def one(potential: Potential, crystal: Crystal) -> Evaluation:
    (answer,) = potential.evaluate([crystal])
    assert isinstance(answer, Evaluation)
    return answer


def energy(potential: Potential, crystal: Crystal, lattice, positions) -> float:
    moved = Crystal.from_arrays(lattice, crystal.species, positions @ np.linalg.inv(lattice))
    return one(potential, moved).energy_ev_per_atom * crystal.n_atoms


def check_slopes(potential: Potential, crystal: Crystal, h: float, rel: float) -> None:
    rng = np.random.default_rng(1)
    here = one(potential, crystal)
    lattice = np.array(crystal.lattice)
    positions = np.array(crystal.frac_coords) @ lattice
    way = rng.normal(size=positions.shape)
    rise = energy(potential, crystal, lattice, positions + h * way) - energy(
        potential, crystal, lattice, positions - h * way
    )
    assert rise / (2 * h) == pytest.approx(-np.sum(here.forces_ev_per_a * way), rel=rel, abs=1e-4)

    strain = rng.normal(size=(3, 3))
    more, less = np.eye(3) + h * strain, np.eye(3) - h * strain
    rise = energy(potential, crystal, lattice @ more, positions @ more) - energy(
        potential, crystal, lattice @ less, positions @ less
    )
    work = crystal.volume_a3 * np.sum(here.stress_ev_per_a3 * strain)
    assert rise / (2 * h) == pytest.approx(work, rel=rel, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(a=st.floats(4.8, 6.5), jolt=st.floats(0.0, 0.05))
def test_toy_forces_and_stress_are_the_slope_of_its_energy(a: float, jolt: float):
    check_slopes(load_potential("toy"), rock_salt(a, jolt), h=1e-5, rel=1e-4)


def test_chgnet_forces_and_stress_are_the_slope_of_its_energy(chgnet: Potential):
    check_slopes(chgnet, rock_salt(5.5, 0.02), h=0.01, rel=0.02)


def test_chgnet_agrees_with_its_authors(chgnet: Potential, shared_data):
    from pymatgen.core import Structure

    known = json.loads((shared_data / "known" / "chgnet_reference.json").read_text())
    name = "mp-18767-LiMnO2"
    expected = known["predict"][name]
    crystal = Crystal.from_structure(
        Structure.from_str(known["structures"][name], "cif").remove_oxidation_states()
    )
    got = one(chgnet, crystal)
    assert got.energy_ev_per_atom == pytest.approx(expected["energy_per_atom"], abs=1e-3)
    np.testing.assert_allclose(got.forces_ev_per_a, expected["forces"], atol=1e-3)
    stress_gpa = got.stress_ev_per_a3 * 160.21766208
    np.testing.assert_allclose(stress_gpa, expected["stress_GPa"], atol=1e-3)
    np.testing.assert_allclose(got.magmoms_mu_b, expected["magmom"], atol=1e-3)


LONELY = Crystal.from_arrays(20 * np.eye(3), ["Na"], [[0, 0, 0]])
HALF_LONELY = Crystal.from_arrays(30 * np.eye(3), ["Na"] * 3, [[0, 0, 0], [0.1, 0, 0], [0.5] * 3])


@pytest.mark.parametrize("name", ["toy", "chgnet-0.3.0"])
def test_bad_crystals_get_their_exception_and_spoil_no_other(name: str):
    radon = Crystal.from_arrays(4 * np.eye(3), ["Rn"], [[0, 0, 0]])
    answers = load_potential(name).evaluate([LONELY, rock_salt(), radon, HALF_LONELY])
    kinds = [IsolatedAtomError, Evaluation, UnsupportedElementError, IsolatedAtomError]
    assert [type(a) for a in answers] == kinds


def test_every_name_has_a_complete_card():
    for name in potential_names():
        card = potential_card(name)
        assert card.name == name
        assert len(card.weights_sha256) == 64
        assert card.typical_error_source
        assert len(card.elements) == 89
        assert not card.elements & {"Po", "At", "Rn", "Fr", "Ra"}


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'chgnet-0\.3\.0'"):
        potential_card("chgnet")


def test_foreign_weights_are_refused_unopened(tmp_path, monkeypatch):
    file = tmp_path / "weights.pth.tar"
    file.write_bytes(b"cos\nsystem\n(S'echo opened'\ntR.")
    monkeypatch.setattr(registry, "_weights_path", lambda name: file)
    with pytest.raises(PreflightError, match=r"not the published ones.*pip install"):
        load_potential("chgnet-0.3.0")


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(registry, "find_spec", lambda name: Spec)
    with pytest.raises(PreflightError, match=r"missing at .*pip install"):
        potential_card("chgnet-0.3.0")


def test_a_card_needs_no_torch():
    import subprocess

    code = (
        "import sys; from hullward.models.potential.registry import potential_card; "
        "potential_card('chgnet-0.3.0'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
