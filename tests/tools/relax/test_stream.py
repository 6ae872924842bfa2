"""Relaxation: where it ends, how it says so, and that it follows the published procedure."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import Evaluation, load_potential
from hullward.tools.crystal import space_group
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax import relax_stream
from hullward.tools.relax.state import Guards
from hullward.tools.relax.stream import rattled, relax_one

ROCK_SALT = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
FIRE = Protocol(optimizer="fire", fmax_ev_per_a=0.05)


def rock_salt(a: float = 5.8, jolt: float = 0.0, seed: int = 0) -> Crystal:
    coords = np.array(ROCK_SALT + [(x + 0.5, y, z) for x, y, z in ROCK_SALT])
    coords = coords + np.random.default_rng(seed).normal(scale=jolt, size=coords.shape)
    return Crystal.from_arrays(a * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, coords)


class Spoiled:
    """The toy, changed by `change(call number, evaluation)` on its way out."""

    def __init__(self, change):
        self._toy, self._change, self._call = load_potential("toy"), change, 0

    @property
    def card(self):
        return self._toy.card

    def evaluate(self, crystals):
        self._call += 1
        return [self._change(self._call, answer) for answer in self._toy.evaluate(crystals)]


def pushed(factor: float):
    """A potential whose cell wants to grow (negative) or shrink without end."""
    return lambda call, e: replace(e, stress_ev_per_a3=factor * np.eye(3))


def after(calls: int, **changes):
    return lambda call, e: replace(e, **changes) if call > calls else e


FAILURES = {
    "energy not a number": (after(3, energy_ev_per_atom=float("nan")), Reason.NON_FINITE),
    "forces infinite": (after(3, forces_ev_per_a=np.full((8, 3), np.inf)), Reason.NON_FINITE),
    "stress not a number": (after(0, stress_ev_per_a3=np.full((3, 3), np.nan)), Reason.NON_FINITE),
    "cell explodes": (pushed(-0.2), Reason.EXPLODED),
    "cell collapses": (pushed(0.2), Reason.COLLAPSED),
    "abyss": (after(2, energy_ev_per_atom=-1e3), Reason.COLLAPSED),
    "out of memory": (lambda call, e: MemoryError() if call > 2 else e, Reason.OUT_OF_MEMORY),
    "potential breaks": (
        lambda call, e: RuntimeError("no") if call > 2 else e,
        Reason.POTENTIAL_ERROR,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_goes_wrong_gets_its_reason_and_keeps_what_was_good(case: str):
    change, reason = FAILURES[case]
    done = relax_one("c", rock_salt(5.8, 0.05), Spoiled(change), FIRE)
    assert done.failure == reason
    assert done.detail
    assert not done.converged
    assert done.crystal is not None
    assert done.steps <= done.force_calls <= done.steps + 1
    if done.energy_ev_per_atom is not None:
        assert done.energy_ev_per_atom > -100


def test_a_spoiled_structure_leaves_its_companions_alone():
    crystals = [rock_salt(5.8, 0.05, seed) for seed in range(6)]
    alone = [relax_one(f"c{i}", c, load_potential("toy"), FIRE) for i, c in enumerate(crystals)]

    class OneBad(Spoiled):
        def evaluate(self, batch):
            answers = self._toy.evaluate(batch)
            return [
                replace(e, energy_ev_per_atom=float("nan")) if c.n_atoms == 1 else e
                for c, e in zip(batch, answers, strict=True)
            ]

    bad = Crystal.from_arrays(3.5 * np.eye(3), ["Na"], [[0, 0, 0]])
    jobs = [("bad", bad), *((f"c{i}", c) for i, c in enumerate(crystals))]
    together = {r.candidate_id: r for r in relax_stream(jobs, OneBad(None), FIRE, at_once=4)}
    assert together.pop("bad").failure == Reason.NON_FINITE
    for expected in alone:
        got = together[expected.candidate_id]
        assert got.model_copy(update={"cpu_s": 0}) == expected.model_copy(update={"cpu_s": 0})


def test_an_isolated_atom_gets_no_energy():
    crystal = Crystal.from_arrays(20 * np.eye(3), ["Na"], [[0, 0, 0]])
    done = relax_one("c", crystal, load_potential("toy"), FIRE)
    assert done.failure == Reason.ATOM_ISOLATED
    assert done.energy_ev_per_atom is None
    assert done.initial_energy_ev_per_atom is None


def test_a_clash_is_not_evaluated():
    crystal = Crystal.from_arrays(4 * np.eye(3), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.05]])
    done = relax_one("c", crystal, load_potential("toy"), FIRE)
    assert (done.failure, done.force_calls) == (Reason.CLASH, 0)


def test_an_element_without_parameters_is_refused():
    crystal = Crystal.from_arrays(4 * np.eye(3), ["Fr"], [[0, 0, 0]])
    done = relax_one("c", crystal, load_potential("toy"), FIRE)
    assert (done.failure, done.energy_ev_per_atom) == (Reason.UNSUPPORTED_ELEMENT, None)


def test_out_of_steps_is_unconverged_and_no_failure():
    protocol = Protocol(max_steps=3)
    done = relax_one("c", rock_salt(6.4, 0.05), load_potential("toy"), protocol)
    assert not done.converged
    assert done.failure is None
    assert (done.steps, done.force_calls) == (3, 4)
    assert done.energy_ev_per_atom < done.initial_energy_ev_per_atom


def test_fire_takes_the_steps_ase_takes():
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE as AseFire

    toy = load_potential("toy")

    class Bridge(Calculator):
        implemented_properties = ("energy", "forces", "stress")

        def calculate(self, atoms=None, properties=(), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            crystal = Crystal.from_arrays(
                atoms.cell[:], atoms.get_chemical_symbols(), atoms.get_scaled_positions(wrap=False)
            )
            (answer,) = toy.evaluate([crystal])
            assert isinstance(answer, Evaluation)
            self.results = {
                "energy": answer.energy_ev_per_atom * crystal.n_atoms,
                "forces": answer.forces_ev_per_a,
                "stress": answer.stress_ev_per_a3,
            }

    # low symmetry: the deformation and its gradient do not commute
    rng = np.random.default_rng(3)
    start = Crystal.from_arrays(
        np.array([[5.0, 0.4, 0], [0.3, 4.6, -0.5], [0.9, 0.2, 5.2]]),
        ["Na", "Na", "Cl", "Cl"],
        np.array([(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0, 0.1), (0.1, 0.5, 0.4)])
        + 0.02 * rng.normal(size=(4, 3)),
    )
    atoms = Atoms(start.species, scaled_positions=start.frac_coords, cell=start.lattice, pbc=True)
    atoms.calc = Bridge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = AseFire(FrechetCellFilter(atoms), logfile=None)
        optimizer.run(fmax=FIRE.fmax_ev_per_a, steps=500)
    as_far = FIRE.model_copy(update={"max_steps": optimizer.nsteps})
    done = relax_one("c", start, toy, as_far)
    assert done.steps == optimizer.nsteps
    assert done.energy_ev_per_atom == pytest.approx(atoms.get_potential_energy() / 4, abs=1e-8)
    np.testing.assert_allclose(done.crystal.lattice, atoms.cell[:], atol=1e-5)

    further = relax_one("c", start, toy, FIRE)  # ASE compares the forces on the undeformed cell
    assert further.converged
    assert 0 <= further.steps - optimizer.nsteps <= 5


def test_chgnet_finds_the_lattice_constant_of_rock_salt():
    done = relax_one("c", rock_salt(5.8), load_potential("chgnet-0.3.0"), Protocol())
    assert done.converged
    assert done.crystal.lattice[0][0] == pytest.approx(5.70, abs=0.02)
    assert (done.space_group_loose, done.space_group_tight) == (225, 225)
    assert done.residual_force_ev_per_a < 0.05
    assert done.energy_scheme == "mp2020-corrected"
    assert len(done.magmoms_mu_b) == 8
    assert done.volume_ratio == pytest.approx((5.7 / 5.8) ** 3, abs=0.01)
    assert done.cpu_s > 0


def test_a_rattle_is_small_reproducible_and_its_own():
    crystal = rock_salt()
    moved = rattled(crystal, 0.05, "c-1")
    assert moved == rattled(crystal, 0.05, "c-1")
    assert moved != rattled(crystal, 0.05, "c-2")
    shift = (np.array(moved.frac_coords) - crystal.frac_coords) @ np.array(crystal.lattice)
    assert 0.02 < np.sqrt((shift**2).mean()) < 0.1
    assert rattled(crystal, 0.0, "c-1") is crystal


def test_the_guards_are_choices():
    tight = Guards(max_volume_ratio=1.001)
    done = relax_one("c", rock_salt(4.6), load_potential("toy"), FIRE, tight)
    assert done.failure == Reason.EXPLODED


def test_space_groups_of_hopeless_cells_are_none():
    flat = Crystal.from_arrays(np.diag([4.0, 4.0, 0.01]), ["Na"], [[0, 0, 0]])
    double = Crystal.from_arrays(3 * np.eye(3), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0]])
    assert space_group(flat, 0.1) is None
    assert space_group(double, 0.1) is None
    assert space_group(rock_salt(), 0.01) == 225
