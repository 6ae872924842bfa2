import json
from itertools import product

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.models.potential.toy import _morse, _pair_parameters
from hullward.tools.records import PhononCheck, SoftMode
from hullward.tools.relax import check_phonons, phonons
from hullward.tools.relax.phonons import choose_supercell
from hullward.tools.screening.shortlist import check_shortlist

THZ = 15.633302  # of the square root of 1 eV/(Å² u)


@pytest.fixture(scope="module")
def toy():
    return load_potential("toy")


def cubic(edge, species, coords):
    return Crystal.from_parameters((edge,) * 3, (90,) * 3, species, coords)


def fcc(symbol, bond):
    half = bond / np.sqrt(2)
    return Crystal.from_arrays(
        [[0, half, half], [half, 0, half], [half, half, 0]], [symbol], [[0, 0, 0]]
    )


def perovskite(a, b, x, edge):
    coords = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
    return cubic(edge, [a, b, x, x, x], coords)


def frequencies(crystal, potential, supercell=(2, 2, 2)):
    """(q, modes) THz, as the check sees them: sum rule imposed, acoustic modes at Γ infinite."""
    points = [np.array(q) for q in product(*([k / n for k in range(n)] for n in supercell))]
    run = phonons._displaced(crystal, supercell, 0.01)
    return points, phonons._modes(run, points, potential, [0])[0]


def test_an_fcc_crystal_of_springs_has_the_frequencies_of_the_textbook(toy):
    """Central forces between nearest neighbours, no pressure: √(8k/m) and √(4k/m) at X, √(8k/m)
    and √(2k/m) at L (Born and Huang).
    """
    from ase.data import atomic_masses, atomic_numbers

    start = fcc("K", 4.0)  # the second neighbours are beyond the toy's reach
    cell, supercell = phonons._prepare_cell(start, toy, 256, [0])
    bond = float(np.linalg.norm(cell.lattice[0]))
    rest, depth = _pair_parameters(["K"])
    assert np.sqrt(2) * bond > 5.0
    slopes = _morse(np.array([bond - 1e-4, bond, bond + 1e-4]), rest[0, 0], depth[0, 0])[1]
    assert abs(slopes[1]) < 2e-3
    unit = THZ * np.sqrt((slopes[2] - slopes[0]) / 2e-4 / atomic_masses[atomic_numbers["K"]])
    assert supercell == (2, 2, 2)
    points, found = frequencies(cell, toy)
    at_x = unit * np.sqrt([4, 4, 8])
    at_l = unit * np.sqrt([2, 2, 8])
    for q, modes in zip(points[1:], found[1:], strict=True):
        textbook = at_x if np.count_nonzero(q) == 2 else at_l
        np.testing.assert_allclose(modes, textbook, rtol=0.01)


def test_all_wave_vectors_together_are_the_hessian_of_the_supercell(toy):
    """An independent way to the same numbers: every atom of the supercell displaced by hand."""
    from ase.data import atomic_masses, atomic_numbers

    cell, _ = phonons._prepare_cell(
        Crystal.from_parameters((3.1, 3.3, 3.6), (90, 90, 90), ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
        toy, 64, [0],
    )  # fmt: skip
    large = phonons._displaced(cell, (2, 1, 2), 0.01).supercell
    coords, lattice = large.positions, np.array(large.cell)
    n, h = len(coords), 1e-3

    def forces(positions):
        crystal = Crystal.from_arrays(lattice, large.symbols, positions @ np.linalg.inv(lattice))
        return toy.evaluate([crystal])[0].forces_ev_per_a.ravel()

    hessian = np.zeros((3 * n, 3 * n))
    for k in range(3 * n):
        step = np.zeros(3 * n)
        step[k] = h
        step = step.reshape(n, 3)
        hessian[k] = -(forces(coords + step) - forces(coords - step)) / (2 * h)
    masses = np.repeat([atomic_masses[atomic_numbers[s]] for s in large.symbols], 3)
    squares = np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.sqrt(np.outer(masses, masses)))
    by_hand = np.sort(THZ * np.sign(squares) * np.sqrt(np.abs(squares)))
    _, found = frequencies(cell, toy, (2, 1, 2))
    ours = np.sort(np.where(np.isinf(found), 0.0, found).ravel())
    np.testing.assert_allclose(ours, by_hand, atol=0.03)


@pytest.mark.parametrize(
    ("crystal", "limit", "supercell"),
    [
        (fcc("Cu", 2.6), 8, (2, 2, 2)),
        (fcc("Cu", 2.6), 7, (2, 2, 1)),
        (Crystal.from_parameters((9, 3, 5), (90,) * 3, ["Cu"], [[0] * 3]), 4, (1, 2, 2)),
        (fcc("Cu", 2.6), 1, (1, 1, 1)),
        (fcc("Cu", 2.6), 0, None),
    ],
)
def test_supercells_within_a_limit_double_the_short_axes_first(crystal, limit, supercell):
    assert choose_supercell(crystal, limit) == supercell


def test_what_cannot_be_checked_says_so(toy, monkeypatch):
    salt = cubic(3.2, ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    large = check_phonons("c", "r", salt, toy, max_atoms=1)
    assert (large.result, large.soft, large.lowest_thz) == ("not_checked", (), None)
    assert large.words == "vibrations not checked: 2 atoms in the primitive cell, limit 1"
    short = check_phonons("c", "r", salt, toy, force_calls=3)
    assert "force calls" in short.detail
    assert short.force_calls <= 10
    monkeypatch.setattr(phonons, "TIGHT", phonons.TIGHT.model_copy(update={"max_steps": 1}))
    loose = check_phonons("c", "r", cubic(2.6, ["Na", "Cl"], [[0] * 3, [0.45] * 3]), toy)
    assert loose.words.startswith("vibrations not checked: not at a minimum")
    alien = check_phonons("c", "r", cubic(3.2, ["Po"], [[0] * 3]), toy)
    assert alien.result == "not_checked"
    assert "unsupported_element" in alien.detail


def test_imaginary_modes_are_told_apart_from_noise(toy, monkeypatch):
    """Both sizes of displacement have to agree, and beat the noise of the acoustic modes."""
    salt = cubic(3.2, ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    answers = []
    monkeypatch.setattr(phonons, "_modes", lambda *_: answers.pop(0))

    def ask(first, second, noise):
        for low in (second, first):
            modes = np.full((8, 6), 5.0)
            modes[3, 0] = low
            answers.insert(0, (modes, noise))
        return check_phonons("c", "r", salt, toy)

    found = ask(-1.0, -0.8, 0.05)
    assert found.result == "imaginary_modes"
    (soft,) = found.soft
    assert (soft.q, soft.modes) == ((0, 0.5, 0.5), 1)
    assert (soft.frequency_thz, soft.milder_thz) == (-1.0, -0.8)
    assert soft.words == "−1.0 THz (−33 cm⁻¹) at (0, ½, ½)"
    assert ask(-1.0, 0.3, 0.05).result == "uncertain"
    assert ask(-0.1, -0.1, 0.0).result == "no_imaginary_mode"  # weaker than is told from zero
    assert ask(-1.0, -0.8, 1.2).result == "no_imaginary_mode"  # within the noise


def test_a_partly_covered_boundary_is_said():
    fields = {"candidate_id": "c", "relaxation_id": "r", "potential": "toy", "detail": ""}
    fields |= {"potential_sha256": "w", "n_atoms": 8, "lowest_thz": 1.0, "noise_thz": 0.01}
    fields |= {"soft": (), "force_calls": 1, "cpu_s": 0.1, "result": "no_imaginary_mode"}
    points = ((0, 0, 0), (0.5, 0, 0))
    part = PhononCheck(**fields, supercell=(2, 1, 1), q_points=points)
    assert "2 wave vectors of a 2×1×1 supercell, so not every boundary point" in part.words
    assert SoftMode(q=(0, 0, 0), modes=3, frequency_thz=-2, milder_thz=-2).words.endswith("at Γ")


def test_a_short_list_is_checked_once_and_told(toy_settings, tmp_path):
    from typer.testing import CliRunner

    from hullward.agents.campaign import run
    from hullward.agents.cli.app import app
    from hullward.agents.settings import Campaign
    from hullward.tools.store import Store

    limits = {"top": 1, "max_atoms": 40, "force_calls": 400}
    asked = toy_settings | {"budget": {"cycles": 1}, "phonons": limits, "metastable_ev_per_atom": 1}
    settings = Campaign.model_validate(asked)
    plain = Campaign.model_validate({k: v for k, v in asked.items() if k != "phonons"})
    assert settings.campaign_id == plain.campaign_id  # it changes no verdict
    paths = run(tmp_path / "c", settings)
    told = json.loads(paths.json.read_text())["short_list"]
    assert told["total"] > 1
    assert told["entries"][0]["vibrations"]
    assert told["entries"][1]["vibrations"] is None
    assert "Vibrations are from finite displacements" in paths.markdown.read_text()
    with Store.open(tmp_path / "c", command="test") as store:
        (first,) = store.load(PhononCheck)
        again = check_shortlist(store, lambda: pytest.fail("asked"), first.potential_sha256, top=1)
        assert [c.check for c in again] == [first] or first.result == "not_checked"
        assert store.rows("SELECT phonons FROM results WHERE phonons IS NOT NULL") == [
            {"phonons": first.result}
        ]
    done = CliRunner().invoke(app, ["phonons", str(tmp_path / "c"), "--top", "2", "--json"])
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["checked"]) == 2


def test_an_empty_short_list_is_said(toy_settings, tmp_path):
    from typer.testing import CliRunner

    from hullward.agents.campaign import run
    from hullward.agents.cli.app import app
    from hullward.agents.settings import Campaign

    empty = {"budget": {"cycles": 1, "relaxations": 1}, "metastable_ev_per_atom": 0, "name": "none"}
    run(tmp_path / "c", Campaign.model_validate(toy_settings | empty))
    done = CliRunner().invoke(app, ["phonons", str(tmp_path / "c")])
    assert done.exit_code == 0
    assert "the short list is empty: there is nothing to check" in done.stdout


@pytest.mark.parametrize(
    ("crystal", "soft"),
    [
        (Crystal.from_arrays(
            [[0, 2.105, 2.105], [2.105, 0, 2.105], [2.105, 2.105, 0]], ["Mg", "O"],
            [[0] * 3, [0.5] * 3],
        ), False),
        (Crystal.from_arrays(
            [[0, 2.715, 2.715], [2.715, 0, 2.715], [2.715, 2.715, 0]], ["Si", "Si"],
            [[0] * 3, [0.25] * 3],
        ), False),
        (perovskite("Ba", "Ti", "O", 4.0), True),
    ],
    ids=["MgO", "Si", "cubic BaTiO3"],
)  # fmt: skip
def test_chgnet_finds_the_soft_mode_of_barium_titanate_and_none_of_stable_crystals(crystal, soft):
    found = check_phonons("c", "r", crystal, load_potential("chgnet-0.3.0"))
    assert found.result == ("imaginary_modes" if soft else "no_imaginary_mode")
    if soft:  # ferroelectric: Γ is the deepest, and triply degenerate
        assert found.soft[0].q == (0, 0, 0)
        assert found.soft[0].modes == 3
        assert found.soft[0].milder_thz < -3
