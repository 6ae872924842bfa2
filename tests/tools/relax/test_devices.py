"""Devices without one: a torch that reports GPUs, and potentials that run out of memory."""

import numpy as np
import pytest
import torch

from hullward.agents.settings import Machine, parse_settings, read_machine
from hullward.agents.settings.campaign import Campaign
from hullward.models.crystal import Crystal
from hullward.models.devices import torch_devices
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import (
    BatchEvaluation,
    CrystalBatch,
    DeviceLostError,
    in_batches,
    load_potential,
    takes_device,
)
from hullward.models.potential.protocol import SequentialPotential
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax import Executor, relax_many, workers
from hullward.tools.relax.engine import BatchRelaxer
from hullward.tools.relax.stream import relax_stream

QUICK = Protocol(max_steps=40)
TOY = load_potential("toy")


def salt(a: float, n: int = 1) -> Crystal:
    coords = [(0.02, 0, 0), (0.5, 0.5, 0.5)]
    cell = np.diag([1.0, 1.0, n]) @ (a / 2 * (1 - np.eye(3)))
    coords = [((x), (y), (z + k) / n) for k in range(n) for x, y, z in coords]
    return Crystal.from_arrays(cell, ["Na", "Cl"] * n, coords)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("auto", ("cuda:0", "cuda:1")),
        ("cuda", ("cuda:0", "cuda:1")),
        ("cuda:1", ("cuda:1",)),
        ("cpu", ("cpu",)),
    ],
)
def test_devices_of_a_machine_with_two_gpus(two_gpus, asked, found):
    assert torch_devices(asked) == found


def test_without_a_gpu_auto_is_the_cpu(no_gpu):
    assert torch_devices("auto") == ("cpu",)


@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_an_absent_device_is_refused_with_the_remedy(no_gpu, asked):
    with pytest.raises(InputError, match=f"device '{asked}'.*finds no CUDA GPU.*--device auto"):
        torch_devices(asked)
    with pytest.raises(InputError, match="finds no CUDA GPU"):
        Machine(device=asked).executor()


def test_a_gpu_by_a_number_too_high_is_refused_with_those_there(two_gpus):
    with pytest.raises(InputError, match="it finds cuda:0, cuda:1"):
        torch_devices("cuda:2")


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:-1", "CPU", "", "cuda:0,1"])
def test_other_words_are_no_devices(monkeypatch, asked):
    with pytest.raises(InputError):
        torch_devices(asked)
    with pytest.raises(InputError, match="--device"):
        read_machine(asked)
    monkeypatch.setenv("HULLWARD_DEVICE", asked)
    with pytest.raises(InputError, match="HULLWARD_DEVICE"):
        read_machine()
    with pytest.raises(InputError, match="device"):
        parse_settings(Campaign, {"name": "x", "systems": ["Li-O"], "device": asked}, "file")


def test_command_line_before_environment_before_campaign_before_auto(monkeypatch, two_gpus):
    assert read_machine().device_for(None) == "auto"
    assert read_machine().device_for("cuda:0") == "cuda:0"
    monkeypatch.setenv("HULLWARD_DEVICE", "cuda:1")
    assert read_machine().device_for("cuda:0") == "cuda:1"
    assert read_machine("cpu").device_for("cuda:0") == "cpu"
    executor = read_machine().executor(3, of=(5, "cuda:0"))
    assert (executor.workers, executor.device) == (3, "cuda:1")


def test_a_device_changes_no_campaign():
    plain = {"name": "x", "systems": ["Li-O"]}
    here, there = (
        parse_settings(Campaign, plain | extra, "file") for extra in ({}, {"device": "cuda:0"})
    )
    assert here.campaign_id == there.campaign_id


def test_potentials_without_tensors_stay_on_the_cpu(two_gpus):
    executor = Executor(device="auto")
    assert executor.devices("toy") == ("cpu",)
    assert executor.devices("chgnet-0.3.0") == ("cuda:0", "cuda:1")
    assert not takes_device("ase:ase.calculators.emt:EMT")
    assert takes_device("sevennet-0")


@pytest.mark.parametrize(("asked", "found"), [(None, 2), (1, 1), (8, 2), (0, 0)])
def test_one_worker_a_gpu(two_gpus, asked, found):
    assert Executor(workers=asked, device="auto").processes("chgnet-0.3.0") == found


ON_A_DEVICE = """
from pathlib import Path
from hullward.models.potential import registry
from hullward.tools.relax import workers

def load(name, device):
    with Path(SEEN).open("a") as file:
        file.write(device + "\\\\n")
    return registry.load_potential(name)

workers.load_potential = load
workers._if_still_there = lambda device: device
workers.run_worker(*map(int, __import__("sys").argv[1:]))
"""


def test_each_worker_gets_a_gpu_of_its_own(tmp_path, monkeypatch, two_gpus):
    seen = tmp_path / "devices"
    monkeypatch.setattr(workers, "_START", ON_A_DEVICE.replace("SEEN", repr(str(seen))))
    jobs = [(f"c{k}", salt(5.4 + k / 20)) for k in range(8)]
    found = list(relax_many(jobs, "toy", QUICK, devices=torch_devices("auto")))
    assert len(found) == 8
    assert sorted(seen.read_text().replace("\\n", "\n").split()) == ["cuda:0", "cuda:1"]


class Card:
    """Evaluates as the toy potential, with the memory of a small card."""

    card = TOY.card
    work_at_once = 1e6

    def __init__(self, atoms: int) -> None:
        self.atoms, self.sizes = atoms, []

    def evaluate(self, crystals):
        return TOY.evaluate(crystals)

    def work(self, batch: CrystalBatch) -> np.ndarray:
        return batch.counts.astype(float)

    def evaluate_batch(self, batch: CrystalBatch, min_distance_a: float = 0.0) -> BatchEvaluation:
        self.sizes.append(int(batch.counts.sum()))
        if self.sizes[-1] > self.atoms:
            raise MemoryError("CUDA out of memory")
        return in_batches(TOY).evaluate_batch(batch, min_distance_a)


def test_a_batch_too_large_is_halved_and_stays_small():
    card = Card(atoms=20)
    jobs = [(f"c{k}", salt(5.4 + k / 50)) for k in range(32)]
    found = {r.candidate_id: r for r in relax_stream(jobs, card, QUICK)}
    plain = {r.candidate_id: r for r in relax_stream(jobs, TOY, QUICK)}
    assert all(r.failure is None for r in found.values())
    for i, one in found.items():
        assert one.energy_ev_per_atom == pytest.approx(plain[i].energy_ev_per_atom, abs=1e-9)
    too_large = [n for n, size in enumerate(card.sizes) if size > card.atoms]
    assert max(too_large) < 10  # it learns at once


def test_a_structure_too_large_alone_fails_with_a_reason():
    card = Card(atoms=20)
    jobs = [("large", salt(5.6, 20)), *((f"c{k}", salt(5.4 + k / 50)) for k in range(6))]
    found = {r.candidate_id: r for r in relax_stream(jobs, card, QUICK)}
    assert found["large"].failure == Reason.OUT_OF_MEMORY
    assert "CUDA out of memory" in found["large"].detail
    assert all(r.failure is None for i, r in found.items() if i != "large")


class Torch(SequentialPotential):
    def _evaluate_one(self, crystal):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def test_a_calculator_out_of_memory_is_no_broken_potential():
    (done,) = relax_stream([("c", salt(5.6))], Torch(TOY.card), QUICK)
    assert done.failure == Reason.OUT_OF_MEMORY


def test_batches_fit_the_free_memory_of_the_card(monkeypatch):
    potential = load_potential("chgnet-0.3.0")
    assert potential.work_at_once == 8_000
    monkeypatch.setattr(potential, "_on_cpu", False)
    for free_gb, expected in ((1, 37_500), (200, 400_000)):
        monkeypatch.setattr(potential, "_free_bytes", lambda free_gb=free_gb: free_gb * 1e9)
        assert potential.work_at_once == pytest.approx(expected)


def test_wide_structures_do_not_pad_a_batch_without_end():
    relaxer = BatchRelaxer(Card(atoms=10**9), QUICK, workers.Guards())
    wide, small = salt(5.6, 300), salt(5.6)
    one = relaxer.new_structure("w", wide, wide, False)
    assert relaxer.add(one, None)
    added = 0
    while added < 10 and relaxer.add(relaxer.new_structure(f"s{added}", small, small, False), None):
        added += 1
    assert added == 4  # with the wide one, five Hessians of 603 rows


def test_a_card_lost_in_this_process_is_one_clear_error(monkeypatch):
    class Lost(Card):
        def evaluate_batch(self, batch, min_distance_a=0.0):
            raise DeviceLostError("an illegal memory access was encountered")

    monkeypatch.setattr(workers, "load_potential", lambda name, device: Lost(1))
    with pytest.raises(PreflightError, match=r"illegal memory access.*--device cpu"):
        list(relax_many([("c", salt(5.6))], "toy", QUICK, workers=0))
