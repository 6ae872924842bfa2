"""Where relaxations run: how many processes, on which devices, with which shared cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.devices import torch_devices
from hullward.models.potential import Potential, load_potential, takes_device
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.relax.cache import relax_cached
from hullward.tools.relax.schedule import Height, relax_best_first
from hullward.tools.relax.waiting import Stopping, never
from hullward.tools.relax.workers import processes_for


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Runs relaxations; made once a command and handed down. No id depends on it.

    workers: None for one a core, or one a GPU; 0 for this process. With GPUs there is at most one a
    GPU.  device: a setting as of `torch_devices`, looked up when a potential first needs it.
    home: where relaxations are shared between campaigns; None for nowhere.
    """

    workers: int | None = None
    device: str = "cpu"
    home: Path | None = None

    @property
    def in_this_process(self) -> bool:
        """Whether relaxations take the time of this process."""
        return self.workers == 0

    def devices(self, potential: str) -> tuple[str, ...]:
        """The devices of a potential; raises InputError where the machine lacks what was asked."""
        return torch_devices(self.device) if takes_device(potential) else ("cpu",)

    def processes(self, potential: str) -> int:
        """The number of processes for a potential; 0 for this one."""
        return processes_for(self.workers, self.devices(potential))

    def load(self, potential: str) -> Potential:
        """The potential in this process, on the first device."""
        return load_potential(potential, self.devices(potential)[0])

    def relax(
        self,
        jobs: Iterable[tuple[str, Crystal]],
        potential: str,
        protocol: Protocol,
        stopping: Stopping = never,
    ) -> Iterator[Relaxation]:
        """As `relax_cached`."""
        devices = self.devices(potential)
        return relax_cached(jobs, potential, protocol, self.home, self.workers, devices, stopping)

    def relax_best_first(
        self,
        jobs: Sequence[tuple[str, Crystal]],
        height: Height,
        potential: str,
        protocol: Protocol,
        *,
        limit: int | None = None,
        stopping: Stopping = never,
    ) -> Iterator[Relaxation]:
        """As `schedule.relax_best_first`."""
        devices = self.devices(potential)
        return relax_best_first(
            jobs, height, potential, protocol, self.home, self.workers, limit, stopping, devices
        )
