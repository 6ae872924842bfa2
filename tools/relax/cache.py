"""Finished relaxations, shared between campaigns: one small immutable file each.

A file is named by what decides its content (structure, weights, protocol, guards), which it also
holds, with a checksum. It is written whole and renamed into place, and is never changed. Two
writers of one name write the same content. A file that is damaged, or that an earlier version wrote
without a checksum, counts as missing. A full disk stops no campaign: the relaxation is only
repeated next time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.records import Protocol, Reason, Record, Relaxation, stable_id
from hullward.tools.relax.state import Guards
from hullward.tools.relax.stream import within_limits
from hullward.tools.relax.waiting import Stopping, never
from hullward.tools.relax.workers import relax_many
from hullward.tools.store import sealed, sweep, unsealed, write_whole

log = logging.getLogger(__name__)

# not stored: another run, or a larger machine, may succeed
_TRANSIENT = {Reason.WORKER_DIED, Reason.OUT_OF_MEMORY, Reason.POTENTIAL_ERROR}


class _Cached(Record):
    """The content of a file."""

    key: str  # its name
    relaxation: Relaxation


class RelaxationCache:
    """Relaxations by one potential and protocol under `home/relaxations`, found by content."""

    def __init__(
        self, home: Path, potential: str, protocol: Protocol, guards: Guards | None = None
    ) -> None:
        """Nothing is created yet. Raises as `potential_card`."""
        self._folder = home / "relaxations"
        self._weights_sha256 = potential_card(potential).weights_sha256
        self._protocol, self._guards = protocol, guards or Guards()

    def find(self, candidate_id: str, crystal: Crystal) -> Relaxation | None:
        """The stored relaxation of exactly this structure, under this candidate's id, or None."""
        path = self._path(candidate_id, crystal)
        try:
            cached = _Cached.model_validate_json(unsealed(path.read_bytes()))
            if cached.key != path.stem:
                raise ValueError(f"it is {cached.key}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("cached relaxation %s is not used (%s); relaxing again", path, error)
            return None
        done = cached.relaxation
        if done.converged and not within_limits(done):
            return None  # by an earlier version, whose limits were those of the starting cell
        own_id = Relaxation.make_id(candidate_id, done.potential_sha256, self._protocol)
        mine = {"candidate_id": candidate_id, "relaxation_id": own_id, "protocol": self._protocol}
        return done.model_copy(update=mine | {"cpu_s": 0.0})  # spent by another run

    def keep(self, done: Relaxation, crystal: Crystal) -> bool:
        """Store a finished relaxation of `crystal`; False where it was not stored."""
        if done.failure in _TRANSIENT:
            return False
        path = self._path(done.candidate_id, crystal)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            write_whole(path, sealed(_Cached(key=path.stem, relaxation=done).model_dump_json()))
        except OSError as error:
            log.warning("relaxation not cached at %s: %s", path, error)
            return False
        return True

    def _path(self, candidate_id: str, crystal: Crystal) -> Path:
        key = stable_id(
            "rc",
            crystal.content_id,
            self._weights_sha256,
            self._protocol.protocol_id,
            self._guards.model_dump(mode="json"),
            candidate_id if self._protocol.rattle_a else None,  # it seeds the rattle
        )
        return self._folder / key[-2:] / f"{key}.json"


def relax_cached(
    jobs: Iterable[tuple[str, Crystal]],
    potential: str,
    protocol: Protocol,
    home: Path | None,
    workers: int | None = None,
    devices: Sequence[str] = ("cpu",),
    stopping: Stopping = never,
) -> Iterator[Relaxation]:
    """As `hullward.tools.relax.workers.relax_many`, relaxing only what the cache in `home` lacks.

    A cached record has no CPU time but keeps its force calls, so that a budget of force calls ends
    at the same point. Home None means no cache. Yields in the order of finishing or finding.
    """
    if home is None:
        return relax_many(jobs, potential, protocol, workers, None, devices, stopping)
    cache = RelaxationCache(home, potential, protocol)
    found: list[Relaxation] = []
    under_way: dict[str, Crystal] = {}

    def unknown() -> Iterator[tuple[str, Crystal]]:
        for candidate_id, crystal in jobs:
            known = cache.find(candidate_id, crystal)
            if known is not None:
                found.append(known)
            else:
                under_way[candidate_id] = crystal
                yield candidate_id, crystal

    def results() -> Iterator[Relaxation]:
        new = relax_many(unknown(), potential, protocol, workers, None, devices, stopping)
        for done in new:
            yield from found
            found.clear()
            cache.keep(done, under_way[done.candidate_id])
            yield done
        yield from found

    return results()
