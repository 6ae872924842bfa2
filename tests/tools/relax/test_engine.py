"""The fast engine: the published network's answers, and structures that leave others alone."""

import contextlib
import io
import json
import os
from collections import Counter

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import CrystalBatch, load_potential
from hullward.models.potential.batch import OneByOne
from hullward.models.potential.chgnet_graph import crystal_graph
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax import relax_cached, relax_stream
from hullward.tools.relax.cache import RelaxationCache
from hullward.tools.relax.engine import STALL_STEPS, BatchRelaxer
from hullward.tools.relax.state import Guards
from hullward.tools.relax.stream import rattled, relax_one
from hullward.tools.relax.trust_region import spring_hessian
from hullward.tools.relax.variables import CellVariables

GPA = 160.21766208
BFGS = Protocol(optimizer="bfgs")
ROCK_SALT = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]


def rock_salt(a: float = 5.8, jolt: float = 0.0, seed: int = 0) -> Crystal:
    coords = np.array(ROCK_SALT + [(x + 0.5, y, z) for x, y, z in ROCK_SALT])
    coords = coords + np.random.default_rng(seed).normal(scale=jolt, size=coords.shape)
    return Crystal.from_arrays(a * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, coords)


def primitive(a: float = 5.4) -> Crystal:
    cell = a / 2 * (1 - np.eye(3))
    return Crystal.from_arrays(cell, ["Na", "Cl"], [[0.02, 0, 0], [0.5, 0.5, 0.5]])


ODD = {
    "one atom, bonded to its images": Crystal.from_arrays(2.5 * np.eye(3), ["Fe"], [[0, 0, 0]]),
    "no bond below 3 Å": Crystal.from_arrays(5.5 * np.eye(3), ["Cs"], [[0, 0, 0]]),
    "rock salt": rock_salt(5.5, 0.03),
    "thin and oblique": Crystal.from_arrays(
        [[2.6, 0, 0], [1.2, 3.9, 0], [0.7, -1.1, 9.5]],
        ["Li", "O", "Mn"],
        [[0, 0, 0.02], [-0.4, 0.6, 1.3], [0.5, 0.5, 0.72]],
    ),
}


@pytest.fixture(scope="module")
def published():
    from chgnet.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        return CHGNet.load(verbose=False, use_device="cpu")


@pytest.fixture(scope="module")
def chgnet():
    return load_potential("chgnet-0.3.0")


@pytest.mark.parametrize("name", ODD)
def test_the_graph_is_the_published_one(published, name: str):
    structure = ODD[name].to_structure()
    theirs = published.graph_converter(structure)
    ours = crystal_graph(CrystalBatch.of([ODD[name]]))
    assert 2 * len(ours.first) == len(theirs.atom_graph)
    assert 2 * len(ours.corner) == len(theirs.bond_graph)
    corners = Counter(np.concatenate([ours.corner, ours.corner]).tolist())
    assert corners == Counter(angle[0] for angle in theirs.bond_graph.tolist())
    lengths = np.sort(np.linalg.norm(ours.vectors_a, axis=1))
    bonds = theirs.atom_graph.numpy()
    positions, cell = structure.cart_coords, structure.lattice.matrix
    vectors = positions[bonds[:, 1]] + theirs.neighbor_image.numpy() @ cell - positions[bonds[:, 0]]
    expected = np.sort(np.linalg.norm(vectors, axis=1))
    np.testing.assert_allclose(np.repeat(lengths, 2), expected, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")
def test_the_network_is_the_published_one_whatever_the_batch(published, chgnet):
    crystals = list(ODD.values())
    together = chgnet.evaluate_batch(CrystalBatch.of(crystals))
    for row, (crystal, alone) in enumerate(zip(crystals, chgnet.evaluate(crystals), strict=True)):
        n, said = crystal.n_atoms, published.predict_structure(crystal.to_structure())
        for got in (alone.energy_ev_per_atom, together.energies_ev_per_atom[row]):
            assert got == pytest.approx(float(said["e"]), abs=1e-5)
        for got in (alone.forces_ev_per_a, together.forces_ev_per_a[row, :n]):
            np.testing.assert_allclose(got, said["f"], atol=1e-3)
        np.testing.assert_allclose(together.stresses_ev_per_a3[row] * GPA, said["s"], atol=2e-3)
        np.testing.assert_allclose(together.magmoms_mu_b[row, :n], said["m"], atol=1e-4)


def test_kernels_do_not_grow_with_the_batch(chgnet):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for size in (1, 8):
        with Count() as count:
            chgnet.evaluate_batch(CrystalBatch.of([rock_salt(5.6, 0.02, s) for s in range(size)]))
        counts.append(count.calls)
    assert counts[1] <= 1.1 * counts[0]


class Touchy(OneByOne):
    """A batch potential of the toy's that breaks as a whole when it dislikes one structure."""

    work_at_once = 8.0

    def __init__(self, error: Exception, most: int = 99) -> None:
        super().__init__(load_potential("toy"))
        self.error, self.most, self.sizes = error, most, []

    def evaluate_batch(self, batch, min_distance_a=0.0):
        self.sizes.append(len(batch.counts))
        if (batch.numbers == 55).any() or len(batch.counts) > self.most:
            raise self.error
        return super().evaluate_batch(batch, min_distance_a)


BREAKS = {
    RuntimeError("unlucky"): Reason.POTENTIAL_ERROR,
    ValueError("odd"): Reason.POTENTIAL_ERROR,
    FloatingPointError("overflow"): Reason.POTENTIAL_ERROR,
    MemoryError("too much"): Reason.OUT_OF_MEMORY,
}


@pytest.mark.parametrize("error", BREAKS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", ["fire", "bfgs", "fire-bfgs"])
def test_a_structure_that_breaks_its_batch_breaks_alone(error: Exception, name: str):
    protocol = Protocol(optimizer=name)
    poison = Crystal.from_arrays(4.5 * np.eye(3), ["Cs"], [[0, 0, 0]])
    good = [rock_salt(5.8, 0.05, seed) for seed in range(5)]
    jobs = [("bad", poison), *((f"g{i}", c) for i, c in enumerate(good))]
    done = {r.candidate_id: r for r in relax_stream(jobs, Touchy(error), protocol)}
    assert done.pop("bad").failure == BREAKS[error]
    for i, crystal in enumerate(good):
        alone = relax_one(f"g{i}", crystal, load_potential("toy"), protocol)
        assert done[f"g{i}"].steps == alone.steps
        assert done[f"g{i}"].energy_ev_per_atom == pytest.approx(alone.energy_ev_per_atom, abs=1e-9)


def test_out_of_memory_halves_the_batches_for_good():
    touchy = Touchy(MemoryError("too much"), most=3)
    jobs = [(f"g{i}", rock_salt(5.8, 0.05, i)) for i in range(12)]
    done = list(relax_stream(jobs, touchy, Protocol()))
    assert all(r.converged for r in done)
    assert touchy.sizes[0] > 3
    assert max(touchy.sizes[8:]) <= 3


def test_the_room_is_counted_in_work_and_the_waiting_enter():
    touchy = Touchy(RuntimeError())
    jobs = [(f"g{i}", rock_salt(5.6 + 0.05 * i, 0.03, i)) for i in range(12)]
    done = list(relax_stream(jobs, touchy, Protocol()))
    assert sorted(r.candidate_id for r in done) == sorted(i for i, _ in jobs)
    assert max(touchy.sizes) == 8
    assert [r.candidate_id for r in done] != [i for i, _ in jobs]  # those that finish leave


def test_springs_know_what_stretches_a_bond():
    start = CellVariables(CrystalBatch.of([primitive()]))
    hessian = spring_hessian(start.reference_cells[0], start.values[0, 3:])
    assert np.linalg.eigvalsh(hessian).min() > 0
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9)
    together = np.zeros((5, 3))
    together[3:] = [0.1, -0.2, 0.3]  # all atoms alike: no bond notices
    stiffness = together.ravel() @ hessian @ together.ravel() / (together**2).sum()
    assert stiffness == pytest.approx(5.0)  # the floor alone
    turn = np.zeros((5, 3))
    turn[0, 1], turn[1, 0] = 1, -1  # an infinitesimal rotation stretches nothing either
    assert turn.ravel() @ hessian @ turn.ravel() / 2 == pytest.approx(5.0)


def test_bfgs_finds_the_minimum_of_fire_with_fewer_calls():
    toy = load_potential("toy")
    calls = Counter()
    for seed in range(8):
        crystal = rock_salt(5.6, 0.04, seed)
        fire, bfgs = (
            relax_one("c", crystal, toy, Protocol(optimizer=name, fmax_ev_per_a=0.01))
            for name in ("fire", "bfgs")
        )
        assert bfgs.converged
        assert bfgs.energy_ev_per_atom <= fire.energy_ev_per_atom + 1e-3
        calls.update(fire=fire.force_calls, bfgs=bfgs.force_calls)
    assert calls["bfgs"] < 0.6 * calls["fire"]


def test_far_from_a_minimum_fire_leads_and_near_it_bfgs():
    """Step by step the path of FIRE until the forces are calm, and not a step longer."""
    wild = rock_salt(5.2, 0.05, 3)

    def end(name: str, steps: int):
        one = Protocol(optimizer=name, fmax_ev_per_a=0.01, max_steps=steps)
        return relax_one("c", wild, load_potential("toy"), one)

    def parted(steps: int) -> bool:
        gap = end("fire", steps).energy_ev_per_atom - end("fire-bfgs", steps).energy_ev_per_atom
        return abs(gap) > 1e-9

    ways = [parted(steps) for steps in range(1, 100, 6)]
    assert ways == sorted(ways)  # together, then apart
    assert (ways[0], ways[-1]) == (False, True)
    fire, both = end("fire", 500), end("fire-bfgs", 500)
    assert both.converged
    assert both.energy_ev_per_atom == pytest.approx(fire.energy_ev_per_atom, abs=1e-3)
    assert both.force_calls < fire.force_calls


def test_a_calm_start_is_left_to_bfgs_alone():
    settled = relax_one("c", rock_salt(5.4), load_potential("toy"), BFGS).crystal
    calm = rattled(settled, 0.002, "a small rattle")
    one, other = (
        relax_one("c", calm, load_potential("toy"), Protocol(optimizer=name, fmax_ev_per_a=0.0005))
        for name in ("bfgs", "fire-bfgs")
    )
    assert one.initial_energy_ev_per_atom != one.energy_ev_per_atom
    assert (one.steps, one.energy_ev_per_atom) == (other.steps, other.energy_ev_per_atom)


def test_a_relaxation_that_gets_nowhere_is_stopped():
    class Noise(OneByOne):
        """Forces that never settle."""

        def evaluate_batch(self, batch, min_distance_a=0.0):
            answers = super().evaluate_batch(batch, min_distance_a)
            answers.forces_ev_per_a[:, 0] += np.random.default_rng().normal(size=3)
            return answers

    noisy = Noise(load_potential("toy"))
    done = relax_one("c", primitive(), noisy, BFGS)
    assert (done.failure, done.converged) == (Reason.STALLED, False)
    assert STALL_STEPS <= done.steps < 5 * STALL_STEPS
    assert done.energy_ev_per_atom is not None


def test_nothing_new_is_waited_for_while_structures_step():
    asked = []

    def sometimes():
        yield "a", rock_salt(5.8, 0.05)
        for i in range(3):
            asked.append(i)
            yield None
        yield "b", rock_salt(5.7, 0.05)

    done = list(relax_stream(sometimes(), load_potential("toy"), Protocol(), at_once=4))
    assert {r.candidate_id for r in done} == {"a", "b"}
    assert asked == [0, 1, 2]


def test_a_lost_device_is_not_blamed_on_structures():
    from hullward.models.potential import DeviceLostError

    with pytest.raises(DeviceLostError):
        relax_one("c", primitive(), Touchy(DeviceLostError("gone"), most=0), Protocol())


# cache


def test_a_cached_relaxation_is_found_by_content(tmp_path):
    jobs = [("one", primitive(5.4)), ("two", primitive(5.5))]
    first = {r.candidate_id: r for r in relax_cached(jobs, "toy", BFGS, tmp_path, workers=0)}
    again = [("other name", jobs[0][1]), ("new", primitive(5.6))]
    second = {r.candidate_id: r for r in relax_cached(again, "toy", BFGS, tmp_path, workers=0)}
    assert set(second) == {"other name", "new"}
    same = {"candidate_id": "one", "relaxation_id": first["one"].relaxation_id}
    assert second["other name"].cpu_s == 0.0  # spent by somebody else
    spent = {"cpu_s": first["one"].cpu_s}
    assert second["other name"].model_copy(update=same | spent) == first["one"]
    assert second["other name"].relaxation_id != first["one"].relaxation_id
    assert len(list(tmp_path.rglob("*.json"))) == 3


OTHERS = {
    "structure": (primitive(5.41), BFGS, Guards()),
    "protocol": (primitive(5.4), Protocol(optimizer="bfgs", fmax_ev_per_a=0.01), Guards()),
    "guards": (primitive(5.4), BFGS, Guards(max_volume_ratio=3.0)),
}


@pytest.mark.parametrize("changed", OTHERS)
def test_what_decides_the_answer_decides_the_entry(tmp_path, changed: str):
    cache = RelaxationCache(tmp_path, "toy", BFGS, Guards())
    done = relax_one("c", primitive(5.4), load_potential("toy"), BFGS)
    assert cache.keep(done, primitive(5.4))
    crystal, protocol, guards = OTHERS[changed]
    free = done.model_copy(update={"cpu_s": 0.0})
    assert cache.find("c", primitive(5.4)) == free
    assert RelaxationCache(tmp_path, "toy", protocol, guards).find("c", crystal) is None


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff\xfe"])
def test_a_damaged_entry_is_no_entry(tmp_path, content: bytes, caplog):
    cache = RelaxationCache(tmp_path, "toy", BFGS, Guards())
    done = relax_one("c", primitive(), load_potential("toy"), BFGS)
    cache.keep(done, primitive())
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(content)
    assert cache.find("c", primitive()) is None
    assert "is not used" in caplog.text


def test_a_full_disk_costs_the_cache_only(tmp_path, monkeypatch, caplog):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (done,) = relax_cached([("c", primitive())], "toy", BFGS, tmp_path, workers=0)
    assert done.converged
    assert "No space left" in caplog.text
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_another_run_may_do_better_is_not_kept(tmp_path):
    done = relax_one("c", primitive(), Touchy(MemoryError(), most=0), BFGS)
    assert done.failure == Reason.OUT_OF_MEMORY
    assert not RelaxationCache(tmp_path, "toy", BFGS, Guards()).keep(done, primitive())


@pytest.mark.slow
def test_on_the_workload_fire_then_bfgs_is_cheaper_than_fire(shared_data, chgnet):
    from pymatgen.core import Structure

    lines = (shared_data / "known" / "relax_workload_48.jsonl").read_text().splitlines()[:16]
    crystals = [
        Crystal.from_structure(Structure.from_dict(json.loads(x)["structure"])) for x in lines
    ]
    jobs = [(str(i), c) for i, c in enumerate(crystals)]
    found = {}
    for name in ("fire", "fire-bfgs"):
        protocol = Protocol(optimizer=name, fmax_ev_per_a=0.1)
        found[name] = {r.candidate_id: r for r in relax_stream(jobs, chgnet, protocol)}
    gaps = [
        found["fire-bfgs"][i].energy_ev_per_atom - found["fire"][i].energy_ev_per_atom
        for i, _ in jobs
    ]
    assert np.mean(np.array(gaps) <= 1e-3) >= 0.9
    calls = {name: sum(r.force_calls for r in rs.values()) for name, rs in found.items()}
    assert calls["fire-bfgs"] <= 0.85 * calls["fire"]


def test_an_empty_herd_does_nothing():
    assert len(BatchRelaxer(OneByOne(load_potential("toy")), BFGS, Guards())) == 0
    assert list(relax_stream([], load_potential("toy"), BFGS)) == []
