"""Relaxation order: a few steps of every structure, then the lowest above the hull finish first.

One evaluation hardly predicts the final energy of a generated crystal; a few steps predict it well.
So every structure takes its first steps and pauses; then the lowest above the hull continue first.
Nothing is discarded and no record changes, because each continues exactly where it paused. The
order only decides which structures are finished when a limit or a stop comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.relax.cache import RelaxationCache
from hullward.tools.relax.state import PausedRelaxation
from hullward.tools.relax.stream import Job
from hullward.tools.relax.waiting import Stopping, never
from hullward.tools.relax.workers import relax_many_in_turns

Height = Callable[[Crystal, float], float]  # of an energy in eV/atom; the lowest go first


def relax_best_first(
    jobs: Sequence[tuple[str, Crystal]],
    height: Height,
    potential: str,
    protocol: Protocol,
    home: Path | None = None,
    workers: int | None = None,
    limit: int | None = None,
    stopping: Stopping = never,
    devices: Sequence[str] = ("cpu",),
) -> Iterator[Relaxation]:
    """As `hullward.tools.relax.cache.relax_cached`, in the order of the heights after a few steps.

    Ids must differ. At most `limit` relaxations are yielded: always the lowest, whatever was cached
    or finished first, so that an equal run chooses the same. Structures without an energy come
    last; equal heights keep the order given. Nothing new begins once `stopping` returns True;
    structures that have paused then, or do not end within seconds, start again from the beginning
    in a later run.
    """
    cache = RelaxationCache(home, potential, protocol) if home is not None else None
    order = _Order(dict(jobs), height, limit)

    def turns() -> Iterator[Job | None]:
        for candidate_id, crystal in jobs:
            if stopping():
                return
            known = cache and cache.find(candidate_id, crystal)
            if known:
                order.take(known)
            else:
                yield candidate_id, crystal
        while len(order.heights) < len(order.crystals):
            yield None
        for candidate_id in order.choose():
            if candidate_id in order.paused and not stopping():
                yield order.paused.pop(candidate_id)

    results = relax_many_in_turns(turns(), potential, protocol, workers, None, devices, stopping)
    for result in results:
        if cache and isinstance(result, Relaxation):
            cache.keep(result, order.crystals[result.candidate_id])
        order.take(result)
        while order.ready:
            yield order.ready.popleft()
    yield from order.ready


@dataclass
class _Order:
    """Heights of structures after their first steps, and the results held until all are known."""

    crystals: dict[str, Crystal]
    height: Height
    limit: int | None
    heights: dict[str, float] = field(default_factory=dict)
    paused: dict[str, PausedRelaxation] = field(default_factory=dict)
    finished: dict[str, Relaxation] = field(default_factory=dict)  # before the choice
    chosen: set[str] = field(default_factory=set)
    ready: deque[Relaxation] = field(default_factory=deque)  # to be yielded

    def take(self, result: Relaxation | PausedRelaxation) -> None:
        """Note the height of a result and decide when it is yielded."""
        candidate_id, energy = result.candidate_id, result.early_energy_ev_per_atom
        if candidate_id not in self.heights:
            crystal = self.crystals[candidate_id]
            self.heights[candidate_id] = (
                float("inf") if energy is None else self.height(crystal, energy)
            )
        if isinstance(result, PausedRelaxation):
            self.paused[candidate_id] = result
        elif self.limit is None or candidate_id in self.chosen:
            self.ready.append(result)
        else:
            self.finished[candidate_id] = result

    def choose(self) -> list[str]:
        """The ids of the lowest, lowest first; those already finished become ready."""
        position = {candidate_id: n for n, candidate_id in enumerate(self.crystals)}
        lowest = sorted(self.heights, key=lambda i: (self.heights[i], position[i]))[: self.limit]
        self.chosen.update(lowest)
        self.ready.extend(self.finished[i] for i in lowest if i in self.finished)
        return lowest
