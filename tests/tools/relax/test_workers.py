"""The pool: every job ends once, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax import relax_best_first, relax_many, waiting, workers

QUICK = Protocol(max_steps=50)
ENDLESS = Protocol(optimizer="fire", max_steps=10**9, fmax_ev_per_a=5e-324)

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def cell(a: float) -> Crystal:
    primitive = a / 2 * (1 - np.eye(3))
    return Crystal.from_arrays(primitive, ["Na", "Cl"], [[0.02, 0, 0], [0.5, 0.5, 0.5]])


def jobs(n: int) -> list[tuple[str, Crystal]]:
    return [(f"c{i}", cell(5.0 + 0.1 * i)) for i in range(n)]


def children() -> list[int]:
    pid = os.getpid()
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [p for p in found if "workers import run_worker" in cmdline(p)]


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def wait_for(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (got := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return got


def test_workers_give_the_answers_of_this_process():
    here = {r.candidate_id: r for r in relax_many(jobs(8), "toy", QUICK, workers=0)}
    there = {r.candidate_id: r for r in relax_many(jobs(8), "toy", QUICK, workers=2)}
    assert len(here) == 8
    strip = {"cpu_s": 0}
    assert {k: r.model_copy(update=strip) for k, r in here.items()} == {
        k: r.model_copy(update=strip) for k, r in there.items()
    }


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []

    def endless():
        for i in range(10**9):
            drawn.append(i)
            yield f"c{i}", cell(5.3)

    stream = relax_many(endless(), "toy", QUICK, workers=2)
    for _ in range(5):
        next(stream)
    stream.close()
    assert len(drawn) < 5 + 2 * 20


def test_no_jobs_no_workers():
    assert list(relax_many([], "toy", QUICK, workers=2)) == []


def test_an_unknown_potential_is_refused_at_the_call():
    with pytest.raises(InputError):
        relax_many(jobs(1), "toi", QUICK, workers=2)


@linux
def test_a_worker_killed_once_costs_nothing():
    stream = relax_many(jobs(6), "toy", QUICK, workers=1)
    done = [next(stream)]
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    done += stream
    assert sorted(r.candidate_id for r in done) == [f"c{i}" for i in range(6)]
    assert all(r.failure is None for r in done)


@linux
def test_a_job_that_kills_twice_is_recorded_as_lost():
    killed: list[int] = []

    def kill_every_worker():
        while len(killed) < 2:
            for pid in set(children()) - set(killed):
                time.sleep(1.0)  # let it load and begin
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_every_worker)
    killer.start()
    (done,) = relax_many(jobs(1), "toy", ENDLESS, workers=1)
    killer.join()
    assert done.failure == Reason.WORKER_DIED
    assert "signal 9" in done.detail
    assert done.energy_ev_per_atom is None


@linux
def test_a_stopped_worker_is_replaced(monkeypatch):
    monkeypatch.setattr(waiting, "STOPPED_S", 0.6)
    stream = relax_many(jobs(8), "toy", QUICK, workers=2)
    done = [next(stream)]
    victim = children()[0]
    os.kill(victim, signal.SIGSTOP)
    done += stream
    assert sorted(r.candidate_id for r in done) == [f"c{i}" for i in range(8)]
    assert all(r.failure is None for r in done)
    assert not cmdline(victim)


@linux
def test_a_worker_stopped_in_the_middle_of_a_message_is_replaced(monkeypatch):
    monkeypatch.setattr(waiting, "STOPPED_S", 0.6)
    big = Crystal.from_arrays(
        3.0 * 5 * np.eye(3), ["Na"] * 125, np.indices((5, 5, 5)).reshape(3, -1).T / 5
    )
    work = [(f"b{i}", big) for i in range(4)]  # paused, each has a Hessian of a megabyte
    stopped = []

    def stop_the_first():
        stopped.append(wait_for(children)[0])
        time.sleep(2.0)
        os.kill(stopped[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop_the_first)
    thread.start()
    found = list(relax_best_first(work, lambda c, e: e, "toy", QUICK, workers=1))
    thread.join()
    assert sorted(r.candidate_id for r in found) == ["b0", "b1", "b2", "b3"]
    assert all(r.failure is None for r in found)


HANGS = """
import time
from hullward.models.potential import registry
from hullward.tools.relax import workers

def load(name, device):
    toy = registry.load_potential(name)
    def evaluate(crystals):
        if crystals[0].species[0] == "K":
            time.sleep(1000)
        return real(crystals)
    real = toy.evaluate
    toy.evaluate = evaluate
    return toy

workers.load_potential = load
workers.run_worker(*map(int, __import__("sys").argv[1:]))
"""


@linux
def test_a_structure_that_hangs_is_recorded_as_lost_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(workers, "_START", HANGS)
    monkeypatch.setattr(waiting, "STEP_LIMIT_S", 2.0)
    monkeypatch.setattr(waiting, "STEP_LIMIT_S_PER_ATOM", 0.0)
    salt = cell(6.0)
    hanging = Crystal.from_arrays(salt.lattice, ["K", "Cl"], salt.frac_coords)
    found = list(relax_many([("k", hanging), *jobs(4)], "toy", QUICK, workers=1))
    failures = {r.candidate_id: r.failure for r in found}
    assert failures == {"k": Reason.WORKER_DIED} | dict.fromkeys(["c0", "c1", "c2", "c3"])
    (lost,) = (r for r in found if r.failure)
    assert "it took no step in 2 s" in lost.detail


def test_a_worker_that_never_gets_ready_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(workers, "_START", "import time; time.sleep(1000)")
    monkeypatch.setattr(waiting, "START_LIMIT_S", 1.0)
    with pytest.raises(PreflightError, match="not ready after 1 s"):
        list(relax_many(jobs(3), "toy", QUICK, workers=1))


def test_time_spent_elsewhere_is_no_silence_of_a_worker(monkeypatch):
    monkeypatch.setattr(waiting, "STEP_LIMIT_S", 1.0)
    monkeypatch.setattr(waiting, "STEP_LIMIT_S_PER_ATOM", 0.0)
    silence = waiting.Silence()
    assert silence.reason_to_end(3600.0, os.getpid(), 1) == ""  # the machine slept
    assert silence.reason_to_end(0.5, os.getpid(), 1) == ""
    assert "no step" in silence.reason_to_end(0.5, os.getpid(), 1)


@pytest.mark.parametrize(("count", "ordered"), [(0, False), (0, True), (1, False), (2, True)])
def test_a_stop_is_seen_within_five_seconds(count, ordered):
    begun = time.monotonic()
    asked: list[float] = []

    def stopping() -> bool:
        if not asked and time.monotonic() - begun > (3 if count else 0.5):
            asked.append(time.monotonic())
        return bool(asked)

    work = [("quick", cell(30.0)), *jobs(4)]
    if ordered:
        stream = relax_best_first(
            work, lambda c, e: e, "toy", ENDLESS, workers=count, stopping=stopping
        )
    else:
        stream = relax_many(work, "toy", ENDLESS, workers=count, stopping=stopping)
    found = list(stream)
    assert time.monotonic() - asked[0] < 5
    assert [r.candidate_id for r in found] == ["quick"]


LOSES_ITS_DEVICE = """
from pathlib import Path
from hullward.models.potential import registry
from hullward.models.potential import DeviceLostError
from hullward.tools.relax import workers

def load(name, device):
    toy, calls = registry.load_potential(name), []
    def evaluate(crystals):
        calls.append(1)
        if len(calls) > 9 and Path(FLAG).exists():
            Path(FLAG).unlink()
            raise DeviceLostError("an illegal memory access was encountered")
        return real(crystals)
    real = toy.evaluate
    toy.evaluate = evaluate
    return toy

workers.load_potential = load
workers.run_worker(*map(int, __import__("sys").argv[1:]))
"""


@pytest.mark.parametrize("pausing", [False, True])
def test_a_device_lost_in_mid_batch_costs_a_second_try(tmp_path, monkeypatch, capfd, pausing):
    flag = tmp_path / "the device works"
    flag.touch()
    start = LOSES_ITS_DEVICE.replace("FLAG", repr(str(flag)))
    monkeypatch.setattr(workers, "_START", start)
    if pausing:
        done = list(relax_best_first(jobs(5), lambda c, e: e, "toy", QUICK, workers=1))
    else:
        done = list(relax_many(jobs(5), "toy", QUICK, workers=1))
    assert not flag.exists()
    assert sorted(r.candidate_id for r in done) == [f"c{i}" for i in range(5)]
    assert all(r.failure is None for r in done)
    assert "lost its accelerator: an illegal memory access" in capfd.readouterr().err


@linux
def test_closing_the_stream_ends_the_workers():
    stream = relax_many([("quick", cell(30.0)), *jobs(4)], "toy", ENDLESS, workers=2)
    assert next(stream).failure == Reason.ATOM_ISOLATED  # the only one that ends by itself
    assert children()
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 2
    assert not children()


@linux
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = (
        "import numpy as np\n"
        "from hullward.models.crystal import Crystal\n"
        "from hullward.tools.relax.workers import relax_many\n"
        "from hullward.tools.records import Protocol\n"
        "c = Crystal.from_arrays(2.6 * (1 - np.eye(3)), ['Na', 'Cl'], [[0.02, 0, 0], [0.5] * 3])\n"
        "p = Protocol(optimizer='fire', max_steps=10**9, fmax_ev_per_a=5e-324)\n"
        "list(relax_many([('a', c)], 'toy', p, workers=1))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])

    def offspring():
        text = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text()
        return [int(p) for p in text.split() if "workers import run_worker" in cmdline(int(p))]

    (worker,) = wait_for(offspring)
    parent.kill()
    parent.wait()
    wait_for(lambda: not cmdline(worker), seconds=5)


@linux
def test_a_worker_has_one_thread_for_arithmetic():
    code = workers._START.replace(
        "from hullward.tools.relax.workers import run_worker; "
        "run_worker(*map(int, __import__('sys').argv[1:]))",
        "import torch; print(torch.get_num_threads())",
    )
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert out.stdout.split() == [b"1"]


def test_workers_that_cannot_start_are_one_clear_error(monkeypatch):
    monkeypatch.setattr(workers, "_START", "raise SystemExit(7)")
    with pytest.raises(PreflightError, match=r"exit code 7.*doctor"):
        list(relax_many(jobs(3), "toy", QUICK, workers=1))
