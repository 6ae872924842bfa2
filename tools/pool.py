"""Relax many crystals in worker processes of one thread each.

A worker is a fresh interpreter at the other end of a socket, so no main module is imported twice
and no lock is inherited. One thread each because torch's threads spin while they wait: two of
them on a busy core cost ten times the work they do. A worker that is killed costs one second try
of what it held; a worker whose parent is gone ends itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError, PreflightError
from hullward.models.registry import load_potential, potential_card
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax import Guards, never_ran, relax_one, relax_stream

Job = tuple[str, Crystal]

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# The variables must stand before numpy or torch is loaded, hence before this module is imported.
_START = (
    f"import os; os.environ.update({_ONE_THREAD!r}); "
    "from hullward.tools.pool import work; work(*map(int, __import__('sys').argv[1:]))"
)
_PARENT_CHECK_S = 0.5


def default_workers() -> int:
    """One worker a core this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def relax_many(
    jobs: Iterable[Job],
    potential: str,
    protocol: Protocol,
    workers: int | None = None,
    guards: Guards | None = None,
) -> Iterator[Relaxation]:
    """Relax (candidate id, crystal) pairs and yield each as it finishes, in no fixed order.

    `workers` None means one a core; 0 means here, in this process, in order. Jobs are drawn from
    the iterable as workers become free. Closing the iterator, or an exception in its consumer,
    ends the workers at once. Raises InputError or PreflightError at the call if the potential
    cannot be used, and PreflightError if workers cannot be started.
    """
    potential_card(potential)
    guards = guards or Guards()
    if workers == 0:
        return relax_stream(jobs, load_potential(potential), protocol, guards)
    return _Pool(potential, protocol, guards, workers or default_workers()).run(jobs)


@dataclass
class _Item:
    """One structure on its way."""

    job: Job
    tries: int = 0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ready: bool = False
    held: _Item | None = None

    def give(self, item: _Item) -> None:
        self.held = item
        item.tries += 1
        with contextlib.suppress(OSError):  # dead already: its pipe says so when next read
            self.pipe.send(item.job)


class _Pool:
    def __init__(self, potential: str, protocol: Protocol, guards: Guards, size: int) -> None:
        self._settings = (potential, protocol, guards)
        self._size = size
        self._workers: list[_Worker] = []
        self._second_tries: deque[_Item] = deque()
        self._stillborn = 0

    def run(self, jobs: Iterable[Job]) -> Iterator[Relaxation]:
        waiting = iter(jobs)
        try:
            while self._feed(waiting):
                for pipe in wait([worker.pipe for worker in self._workers]):
                    worker = next(w for w in self._workers if w.pipe is pipe)
                    yield from self._hear(worker)
        finally:
            self._end()

    def _feed(self, waiting: Iterator[Job]) -> bool:
        """Give every idle worker a job, starting workers as needed; False when all is done."""
        while sum(w.held is not None for w in self._workers) < self._size:
            if self._second_tries:
                item = self._second_tries.popleft()
            elif (job := next(waiting, None)) is not None:
                item = _Item(job)
            else:
                break
            idle = next((w for w in self._workers if w.held is None), None)
            (idle or self._start()).give(item)
        return any(w.held is not None for w in self._workers)

    def _hear(self, worker: _Worker) -> Iterator[Relaxation]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        if isinstance(message, HullwardError):
            raise message
        worker.ready = True
        self._stillborn = 0
        if message is not None:
            worker.held = None
            yield message

    def _bury(self, worker: _Worker) -> Iterator[Relaxation]:
        """A worker is gone: what it held is tried once more, then recorded as lost."""
        self._workers.remove(worker)
        worker.pipe.close()
        code = worker.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn > 2:
                raise PreflightError(
                    f"relaxation workers end before they are ready ({how}); "
                    "the lines above say why, and `hullward doctor` checks the installation"
                )
        item = worker.held
        if item is None:
            return
        if item.tries < 2:
            self._second_tries.append(item)
            return
        potential, protocol, _ = self._settings
        hint = " (the kernel's, if memory ran out)" if code == -signal.SIGKILL else ""
        detail = f"two workers ended while relaxing it, the second by {how}{hint}"
        yield never_ran(*item.job, potential, protocol, Reason.WORKER_DIED, detail)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # libraries introduce themselves there
            )
        except OSError as error:
            ours.close()
            raise PreflightError(f"a relaxation worker cannot be started: {error}") from error
        finally:
            theirs.close()
        worker = _Worker(process, Connection(ours.detach()))
        worker.pipe.send(self._settings)
        self._workers.append(worker)
        return worker

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            worker.pipe.close()
        self._workers.clear()


def work(handle: int, parent: int) -> None:
    """A worker's whole life: settings, then a crystal in and a relaxation out, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe = Connection(handle)
    try:
        name, protocol, guards = pipe.recv()
        potential = load_potential(name)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        pipe.send(None)  # ready
        while True:
            candidate_id, crystal = pipe.recv()
            try:
                done = relax_one(candidate_id, crystal, potential, protocol, guards)
            except MemoryError as error:
                detail = str(error) or "out of memory"
                done = never_ran(
                    candidate_id, crystal, name, protocol, Reason.OUT_OF_MEMORY, detail
                )
            pipe.send(done)
    except HullwardError as error:
        pipe.send(error)
    except (EOFError, OSError):
        return  # the parent has closed the pipe


def _end_with(parent: int) -> None:
    """End this process when its parent is no more, however that died."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
