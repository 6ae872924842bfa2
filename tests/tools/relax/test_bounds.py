"""A relaxation ends, in bounded memory, whatever cell it is given."""

import resource
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    TooManyNeighboursError,
    bonds_within,
    load_potential,
    potential_card,
)
from hullward.models.potential.ase import AsePotential
from hullward.tools.crystal import find_symmetry, space_group
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax.stream import relax_one
from hullward.tools.relax.trust_region import MOST_ATOMS, spring_hessian

TOY = load_potential("toy")
FEW_STEPS = Protocol(max_steps=30)
PRIMITIVE = 2.82 * (1 - np.eye(3))
COLLAPSED_NEEDLE = [  # a needle whose symmetry search by moyopy does not end
    [1.1800591963276952, -0.003356363849699584, -0.9311285166757041],
    [-1.1139300842785662, 0.9600929850611029, -0.3113398688863401],
    [3.2891351936719664, 5.295451648016715, 48.50621501951351],
]


def salt(cell: np.ndarray) -> Crystal:
    positions = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) @ PRIMITIVE
    return Crystal.from_arrays(cell, ["Na", "Cl"], positions @ np.linalg.inv(cell))


def skewed(k: int) -> np.ndarray:
    return np.array([[1, 0, 0], [0, 1, 0], [k, -(k // 2), 1]]) @ PRIMITIVE


def gas(n: int, edge_a: float, symbol: str = "Ar") -> Crystal:
    coords = np.random.default_rng(n).random((n, 3))
    return Crystal.from_arrays(np.eye(3) * edge_a, [symbol] * n, coords)


NEEDLE = Crystal.from_parameters((1.95, 1.95, 57.7), (102.1, 128.4, 116.7), ["Ar"], [[0, 0, 0]])
HOSTILE = {
    "needle": NEEDLE,
    "thin needle": Crystal.from_parameters((1.2, 1.2, 400), (90, 90, 117), ["Ar"], [[0, 0, 0]]),
    "flat": Crystal.from_arrays(np.diag([4.0, 4.0, 1e-3]), ["Ar"], [[0, 0, 0]]),
    "flatter": Crystal.from_arrays(np.diag([4.0, 4.0, 1e-9]), ["Ar"], [[0, 0, 0]]),
    "no volume": Crystal.from_arrays(np.ones((3, 3)), ["Ar"], [[0, 0, 0]]),
    "tiny": Crystal.from_arrays(np.eye(3) * 1e-2, ["Ar"], [[0, 0, 0]]),
    "huge": Crystal.from_arrays(np.eye(3) * 1e150, ["Ar"], [[0, 0, 0]]),
    "skewed far": salt(skewed(10**6)),
    "dense": gas(200, 2.0),
    "clustered": Crystal.from_arrays(
        np.eye(3) * 50, ["Ar"] * 900, np.random.default_rng(0).random((900, 3)) / 10
    ),
    "on one line": Crystal.from_arrays(
        np.diag([3.0, 3.0, 6.0]), ["Ar"] * 30, [[0, 0, k / 30] for k in range(30)]
    ),
}


@pytest.mark.parametrize("optimizer", ["fire", "fire-bfgs"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_cells_end_with_a_record(name, optimizer):
    done = relax_one("c", HOSTILE[name], TOY, Protocol(optimizer=optimizer, max_steps=30))
    assert done.converged or done.steps == 30 or done.detail


@pytest.mark.parametrize("name", ["chgnet-0.3.0", "chgnet-0.2.0"])
@pytest.mark.parametrize("cell", ["flat", "flatter", "no volume", "dense", "clustered"])
def test_networks_refuse_a_graph_too_large_for_the_atoms(name, cell):
    (answer,) = load_potential(name).evaluate([HOSTILE[cell]])
    assert isinstance(answer, TooManyNeighboursError)


def test_the_refusal_is_a_failed_relaxation_with_the_numbers():
    done = relax_one("c", HOSTILE["flat"], load_potential("chgnet-0.3.0"), FEW_STEPS)
    assert done.failure == Reason.TOO_LARGE
    assert "bonds and angles of 1 atoms, more than 20,000" in done.detail
    assert done.energy_ev_per_atom is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by rlimit")
def test_the_needle_ends_within_a_gigabyte():
    code = (
        "from hullward.models.crystal import Crystal\n"
        "from hullward.models.potential import load_potential\n"
        "from hullward.tools.records import Protocol\n"
        "from hullward.tools.relax.stream import relax_one\n"
        f"c = Crystal.from_arrays({NEEDLE.lattice!r}, ['Ar'], [[0, 0, 0]])\n"
        "print(relax_one('c', c, load_potential('toy'), Protocol()).failure)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30)),
    )
    assert out.stdout == b"collapsed\n"


@pytest.mark.parametrize("k", [1, 3, 10, 100, 10_000])
def test_neighbours_do_not_depend_on_the_choice_of_vectors(k):
    positions = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) @ PRIMITIVE
    plain = bonds_within(PRIMITIVE, positions, 6.0)
    other = bonds_within(skewed(k), positions, 6.0)
    np.testing.assert_allclose(np.sort(other[3]), np.sort(plain[3]), atol=1e-6)
    lengths = np.linalg.norm(other[2], axis=1)
    np.testing.assert_allclose(lengths, other[3], atol=1e-6)


@pytest.mark.parametrize("name", ["toy", "chgnet-0.3.0", "chgnet-0.2.0"])
def test_energies_do_not_depend_on_the_choice_of_vectors(name):
    potential = load_potential(name)
    energies = [
        answer.energy_ev_per_atom
        for answer in potential.evaluate([salt(skewed(k)) for k in (0, 3, 200, 10_000)])
    ]
    assert energies == pytest.approx([energies[0]] * 4, abs=1e-5)


def test_calculators_get_a_compact_cell():
    from ase.calculators.calculator import Calculator, all_changes

    seen = []

    class Watching(Calculator):
        implemented_properties = ("energy", "forces", "stress")

        def calculate(self, atoms=None, properties=(), system_changes=all_changes):
            seen.append(np.abs(atoms.cell[:]).max())
            shape = np.zeros((len(atoms), 3))
            self.results = {"energy": 0.0, "forces": shape, "stress": np.zeros(6)}

    potential = AsePotential(potential_card("toy"), Watching())
    potential.evaluate([salt(skewed(1000))])
    assert max(seen) < 10
    before = len(seen)
    (refused,) = potential.evaluate([HOSTILE["flatter"]])
    assert isinstance(refused, TooManyNeighboursError)
    assert len(seen) == before


def test_bfgs_takes_no_more_atoms_than_its_matrix_allows():
    n = 11
    assert n**3 > MOST_ATOMS
    coords = np.array(list(product(range(n), repeat=3))) / n
    many = Crystal.from_arrays(np.eye(3) * 3.0 * n, ["Ar"] * n**3, coords)
    done = relax_one("c", many, TOY, FEW_STEPS)
    assert done.failure == Reason.TOO_LARGE
    assert "use the optimizer 'fire'" in done.detail
    assert relax_one("c", many, TOY, Protocol(optimizer="fire", max_steps=1)).failure is None
    evaluated = relax_one("c", many, TOY, Protocol(max_steps=0))
    assert evaluated.energy_ev_per_atom is not None


def test_springs_are_the_same_in_portions(monkeypatch):
    from hullward.tools.relax import trust_region

    crystal = gas(30, 8.0)
    cell, positions = np.array(crystal.lattice), np.array(crystal.frac_coords) * 8.0
    whole = spring_hessian(cell, positions)
    monkeypatch.setattr(trust_region, "_STRETCHES_AT_ONCE", 5000)
    np.testing.assert_allclose(spring_hessian(cell, positions), whole, atol=1e-9)


def test_symmetry_searches_that_might_not_end_are_not_begun():
    needle = Crystal.from_arrays(COLLAPSED_NEEDLE, ["Ar"], [[0, 0, 1.0]])
    with pytest.raises(ValueError, match="symmetry search"):
        find_symmetry(needle, 0.1)
    assert space_group(needle, 0.1) == 12
    stack = Crystal.from_arrays(
        np.diag([4.0, 4.0, 6.0]), ["Ar"] * 30, [[0, 0, k / 30 + 1e-4 * (k % 3)] for k in range(30)]
    )
    with pytest.raises(ValueError, match="symmetry search"):
        find_symmetry(stack, 0.1)
    assert space_group(stack, 0.1) is None or space_group(stack, 0.1) >= 1


def test_layers_far_apart_keep_their_symmetry():
    graphene = Crystal.from_parameters(
        (2.46, 2.46, 20), (90, 90, 120), ["C", "C"], [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0]]
    )
    assert space_group(graphene, 0.1) == 191
    assert find_symmetry(graphene, 0.1).number == 191
