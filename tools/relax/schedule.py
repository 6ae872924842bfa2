"""Everyone a little, then the lowest first: the order in which many crystals are relaxed.

One evaluation says nearly nothing about where a generated crystal will end, a few steps say a lot.
So every structure takes its first steps and pauses; then they go on, the lowest above the hull
first. Nothing is discarded and no record changes: each goes on exactly where it paused. Only who
is done when a limit or a stop comes depends on the order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.tools.records import Protocol, Relaxation
from hullward.tools.relax.cache import RelaxationCache
from hullward.tools.relax.state import Guards, PausedRelaxation
from hullward.tools.relax.stream import Job
from hullward.tools.relax.workers import relax_many_in_turns

Height = Callable[[Crystal, float], float]  # of an energy in eV/atom; lower goes first


def relax_best_first(
    jobs: Sequence[tuple[str, Crystal]],
    height: Height,
    potential: str,
    protocol: Protocol,
    home: Path | None = None,
    workers: int | None = None,
    limit: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    guards: Guards | None = None,
) -> Iterator[Relaxation]:
    """As `hullward.tools.relax.cache.relax_cached`, in the order of the heights after a few steps.

    Ids differ. At most `limit` relaxations are yielded: those of the lowest, whatever was cached
    and whichever finished first, so that an equal run chooses the same; only then are the others'
    first steps in vain. What has no energy goes last; equals go in the order given. Where
    `stopping` says so nothing more is begun; what is paused then begins anew another time.
    """
    guards = guards or Guards()
    cache = RelaxationCache(home) if home is not None else None
    crystals = dict(jobs)
    looked: dict[str, float] = {}  # heights, once known
    paused: dict[str, PausedRelaxation] = {}
    held: dict[str, Relaxation] = {}  # done, but not known to be among the lowest
    chosen: set[str] = set()
    ready: deque[Relaxation] = deque()

    def settle(result: Relaxation | PausedRelaxation) -> None:
        who, energy = result.candidate_id, result.early_energy_ev_per_atom
        looked.setdefault(who, float("inf") if energy is None else height(crystals[who], energy))
        if isinstance(result, PausedRelaxation):
            paused[who] = result
        elif limit is None or who in chosen:
            ready.append(result)
        else:
            held[who] = result

    def turns() -> Iterator[Job | None]:
        for who, crystal in jobs:
            if stopping():
                return
            known = cache and cache.find(who, crystal, potential, protocol, guards)
            if known:
                settle(known)
            else:
                yield who, crystal
        while len(looked) < len(crystals):
            yield None
        place = {who: n for n, who in enumerate(crystals)}
        lowest = sorted(looked, key=lambda who: (looked[who], place[who]))[:limit]
        chosen.update(lowest)
        ready.extend(held[who] for who in lowest if who in held)
        for who in lowest:
            if who in paused and not stopping():
                yield paused.pop(who)

    for result in relax_many_in_turns(turns(), potential, protocol, workers, guards):
        if cache and isinstance(result, Relaxation):
            cache.keep(result, crystals[result.candidate_id], guards)
        settle(result)
        while ready:
            yield ready.popleft()
    yield from ready
