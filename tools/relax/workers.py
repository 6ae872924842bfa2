"""Relax many crystals in worker processes of one thread each.

A worker is a fresh interpreter at the other end of a socket, so no main module is imported twice
and no lock is inherited. One thread each because torch's threads spin while they wait: two of
them on a busy core cost ten times the work they do. A worker reports its steps; one that is stopped
or takes none is killed (`waiting` has the limits). What a killed worker held is tried once more; a
worker whose parent is gone ends itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, cast

from hullward.models.crystal import Crystal
from hullward.models.devices import torch_devices
from hullward.models.errors import HullwardError, InputError, PreflightError
from hullward.models.potential import DeviceLostError, in_batches, load_potential, potential_card
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax.state import Guards, PausedRelaxation
from hullward.tools.relax.stream import Job, failed_relaxation, relax_in_turns
from hullward.tools.relax.waiting import ASK_EVERY_S, Stopping, StopWatch, never
from hullward.tools.relax.worker_process import Ended, WorkerProcess, WorkItem

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# The variables must be set before numpy or torch is loaded, so before this module is imported.
_START = (
    f"import os; os.environ.update({_ONE_THREAD!r}); "
    "from hullward.tools.relax.workers import run_worker; "
    "run_worker(*map(int, __import__('sys').argv[1:]))"
)
_PARENT_CHECK_S = 0.5
_REPORT_EVERY_S = 1.0
_TYPICAL_WORK = 500.0  # bonds and angles of a small crystal: decides how many a worker holds
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def default_workers() -> int:
    """The number of cores this process may use: one worker each."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_for(workers: int | None, devices: Sequence[str]) -> int:
    """The number of worker processes; None stands for one a core, or one an accelerator."""
    if devices[0] == "cpu":
        return default_workers() if workers is None else workers
    return min(len(devices), len(devices) if workers is None else workers)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """A context in which started processes compute with one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def relax_many(
    jobs: Iterable[tuple[str, Crystal]],
    potential: str,
    protocol: Protocol,
    workers: int | None = None,
    guards: Guards | None = None,
    devices: Sequence[str] = ("cpu",),
    stopping: Stopping = never,
) -> Iterator[Relaxation]:
    """Relax (candidate id, crystal) pairs and yield each as it finishes, in no fixed order.

    `workers` None means one per core, or one per accelerator, of which none is shared; 0 means in
    this process. `devices` are torch devices that exist. Jobs are drawn as workers have room.
    Closing the iterator, or an exception in its consumer, ends the workers at once. Once `stopping`
    returns True nothing new begins, and what does not end within seconds is dropped.
    Raises InputError or PreflightError at the call if the potential cannot be used, and
    PreflightError if workers cannot be started.
    """
    stream = relax_many_in_turns(
        jobs, potential, protocol, workers, guards, devices, stopping, pausing=False
    )
    return cast(Iterator[Relaxation], stream)  # nothing pauses


def relax_many_in_turns(
    jobs: Iterable[Job | None],
    potential: str,
    protocol: Protocol,
    workers: int | None = None,
    guards: Guards | None = None,
    devices: Sequence[str] = ("cpu",),
    stopping: Stopping = never,
    pausing: bool = True,
) -> Iterator[Relaxation | PausedRelaxation]:
    """As `relax_many`, but new structures pause, as in `stream.relax_in_turns`.

    `jobs` may yield None if the next job depends on results that are still to come.
    """
    potential_card(potential)
    guards = guards or Guards()
    if workers == 0:
        loaded = load_potential(potential, devices[0])
        stream = relax_in_turns(jobs, loaded, protocol, guards, pausing=pausing, stopping=stopping)
        return _unless_lost(stream, devices[0])
    workers = processes_for(workers, devices)
    settings = _WorkerSettings(potential, protocol, guards, pausing)
    return _Pool(settings, devices, workers, stopping).run(jobs)


def _unless_lost(
    stream: Iterator[Relaxation | PausedRelaxation], device: str
) -> Iterator[Relaxation | PausedRelaxation]:
    """The stream; raises PreflightError where the accelerator fails in this process."""
    try:
        yield from stream
    except DeviceLostError as error:
        raise PreflightError(
            f"the device {device} failed: {error}; go on with worker processes, which are started "
            "anew, or with --device cpu"
        ) from error


class _WorkerSettings(NamedTuple):
    """The first message to every worker, with its device."""

    potential: str
    protocol: Protocol
    guards: Guards
    pausing: bool


class _Pool:
    def __init__(
        self,
        settings: _WorkerSettings,
        devices: Sequence[str],
        size: int,
        stopping: Stopping,
    ) -> None:
        self._settings, self._devices = settings, devices
        self._size = size
        self._stop = StopWatch(stopping)
        self._workers: list[WorkerProcess] = []
        self._inbox: SimpleQueue[tuple[WorkerProcess, Any]] = SimpleQueue()
        self._waited_s = 0.0  # since the workers were last looked at
        self._retries: deque[WorkItem] = deque()
        self._keys = count()
        self._failed_starts = 0

    def run(self, jobs: Iterable[Job | None]) -> Iterator[Relaxation | PausedRelaxation]:
        waiting = iter(jobs)
        try:
            while self._assign(waiting) and not self._stop.over:
                started = time.monotonic()
                arrived = None
                with contextlib.suppress(Empty):
                    arrived = self._inbox.get(timeout=ASK_EVERY_S)
                self._end_hanging(time.monotonic() - started)
                if arrived is not None:
                    yield from self._receive(*arrived)
        finally:
            for worker in self._workers:
                worker.process.kill()  # all first: each takes a moment to end
            for worker in self._workers:
                worker.close()
            self._workers.clear()

    def _end_hanging(self, waited_s: float) -> None:
        self._waited_s += waited_s
        if self._waited_s > ASK_EVERY_S:
            for worker in self._workers:
                worker.end_if_hanging(self._waited_s)
            self._waited_s = 0.0

    def _assign(self, waiting: Iterator[Job | None]) -> bool:
        """Send jobs to the workers evenly, starting workers as needed; False when all is done.

        After a stop none are sent.
        """
        while not self._stop.asked:
            willing = [w for w in self._workers if w.has_room(alone=bool(self._retries))]
            idle = [w for w in willing if not w.held]
            startable = len(self._workers) < self._size and not idle
            if not willing and not startable:
                break
            if self._retries:
                item = self._retries.popleft()
            elif (job := next(waiting, None)) is not None:
                item = WorkItem(job)
            else:
                break
            worker = self._start() if startable else min(willing, key=lambda w: len(w.held))
            worker.send(next(self._keys), item)
        return any(worker.held for worker in self._workers)

    def _receive(
        self, worker: WorkerProcess, message: Any
    ) -> Iterator[Relaxation | PausedRelaxation]:
        worker.silence.broken()
        if isinstance(message, Ended):
            yield from self._on_exit(worker)
            return
        if isinstance(message, HullwardError):
            raise message
        self._failed_starts = 0
        if isinstance(message, int):
            worker.capacity = message
            return
        if message is None:  # it has taken a step
            return
        key, done = message
        del worker.held[key]
        yield done

    def _on_exit(self, worker: WorkerProcess) -> Iterator[Relaxation]:
        """Queue what a dead worker held once more; the second time, record it as lost."""
        self._workers.remove(worker)
        code = worker.close()
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        hint = " (sent by the kernel if memory ran out)" if code == -signal.SIGKILL else ""
        if worker.ended_because:
            how, hint = "this process", f": {worker.ended_because}"
        if not worker.capacity:
            self._failed_starts += 1
            if self._failed_starts > 2:
                raise PreflightError(
                    f"relaxation workers end before they are ready ({how}{hint}); see the lines "
                    "above for the reason and check the installation with `hullward doctor`"
                )
        potential, protocol = self._settings.potential, self._settings.protocol
        for item in worker.held.values():
            if item.tries < 2:
                self._retries.append(item)
                continue
            detail = f"two workers ended while relaxing it, the second by {how}{hint}"
            job = item.job
            if isinstance(job, PausedRelaxation):
                job = (job.candidate_id, job.job.start)
            yield failed_relaxation(
                *job, potential_card(potential), protocol, Reason.WORKER_DIED, detail
            )

    def _start(self) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # libraries print banners there
            )
        except OSError as error:
            ours.close()
            raise PreflightError(f"a relaxation worker cannot be started: {error}") from error
        finally:
            theirs.close()
        taken = Counter(worker.device for worker in self._workers)
        device = min(self._devices, key=lambda one: taken[one])
        worker = WorkerProcess(process, Connection(ours.detach()), self._inbox, device)
        worker.outbox.put((self._settings, device))
        self._workers.append(worker)
        return worker


def run_worker(handle: int, parent: int) -> None:
    """The main function of a worker: receive settings and jobs, send relaxations."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    _keep_freed_memory()
    pipe = Connection(handle)
    try:
        (name, protocol, guards, pausing), device = pipe.recv()
        potential = load_potential(name, _if_still_there(device))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        at_once = in_batches(potential).work_at_once
        pipe.send(max(2, int(at_once / _TYPICAL_WORK)))
        keys: dict[str, deque[int]] = defaultdict(deque)  # an id may come more than once
        jobs = _receive_jobs(pipe, keys)
        report = partial(_report_step, pipe, [0.0])
        stream = relax_in_turns(
            jobs, potential, protocol, guards, pausing=pausing, each_step=report
        )
        for done in stream:
            pipe.send((keys[done.candidate_id].popleft(), done))
    except HullwardError as error:
        pipe.send(error)
    except DeviceLostError as error:  # a new worker tries once more, on the CPU if necessary
        raise SystemExit(f"a relaxation worker lost its accelerator: {error}") from None
    except (EOFError, OSError):
        return  # the parent has closed the pipe


def _report_step(pipe: Connection, last: list[float]) -> None:
    """Send None now and then; nothing while the parent does not read."""
    now = time.monotonic()
    if now - last[0] > _REPORT_EVERY_S and select.select([], [pipe], [], 0)[1]:
        last[0] = now
        pipe.send(None)


def _receive_jobs(pipe: Connection, keys: dict[str, deque[int]]) -> Iterator[Job | None]:
    """Jobs as they arrive; None if there is none at present while others are being relaxed."""
    while True:
        if any(keys.values()) and not pipe.poll():
            yield None
            continue
        key, job = pipe.recv()
        candidate_id = job.candidate_id if isinstance(job, PausedRelaxation) else job[0]
        keys[candidate_id].append(key)
        yield job


def _if_still_there(device: str) -> str:
    """The device, or the CPU where an accelerator has failed since the run began."""
    if device == "cpu":
        return device
    try:
        return torch_devices(device)[0]
    except InputError as error:
        print(f"{error}\nrelaxing on the CPU", file=sys.stderr)
        return "cpu"


def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of giving them back after every tensor.

    Otherwise a third of the time of a large batch goes into page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest glibc accepts
        libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def end_with(parent: int) -> None:
    """End this process when its parent has ended, however that happened."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
