"""Relaxations on their way into the store: in batches, checked again, nothing lost."""

import time

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import BreakerError
from hullward.models.potential import load_potential
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax.stream import relax_one
from hullward.tools.screening import Hooks, Limits, relaxing
from hullward.tools.screening.relaxing import checked_again, store_relaxations

TOY = load_potential("toy")


class Memory:
    """A store that keeps batches."""

    def __init__(self) -> None:
        self.batches: list[list[Relaxation]] = []

    def add(self, records):
        self.batches.append(list(records))

    @property
    def ids(self) -> list[str]:
        return [r.candidate_id for batch in self.batches for r in batch]


class Context:
    """What `store_relaxations` needs of a screen."""

    def __init__(self) -> None:
        from hullward.tools.relax import Executor

        self.store, self.limits, self.hooks = Memory(), Limits(), Hooks()
        self.executor = Executor(workers=0)


def salt(a: float = 5.6) -> Crystal:
    return Crystal.from_arrays(a / 2 * (1 - np.eye(3)), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])


DONE = relax_one("c", salt(), TOY, Protocol())


def results(n: int, pause_s: float = 0.0, **changes: object):
    for k in range(n):
        time.sleep(pause_s)
        yield DONE.model_copy(update={"candidate_id": f"c{k}", **changes})


def stored(stream, **options) -> Memory:
    context = Context()
    store_relaxations(context, stream, "relax", 1, within="supervise", **options)
    return context.store


def test_what_comes_quickly_is_stored_together():
    memory = stored(results(200))
    assert memory.ids == [f"c{k}" for k in range(200)]
    assert len(memory.batches) <= 6
    assert max(map(len, memory.batches)) <= 64


def test_what_comes_slowly_is_stored_at_once(monkeypatch):
    monkeypatch.setattr(relaxing, "GATHER_S", 0.01)
    context = Context()
    stream = results(4, pause_s=0.03)
    seen = []
    context.hooks = Hooks(progress=lambda step, done, total: seen.append(len(context.store.ids)))
    store_relaxations(context, stream, "relax", 4, within="supervise")
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_nothing_gathered_is_lost_when_the_stream_breaks(error):
    def breaking():
        yield from results(10)
        raise error

    context = Context()
    with pytest.raises(error):
        store_relaxations(context, breaking(), "relax", 20, within="supervise")
    assert context.store.ids == [f"c{k}" for k in range(10)]


def test_the_breaker_trips_with_everything_stored():
    context = Context()
    stream = results(40, failure=Reason.EXPLODED, converged=False)
    with pytest.raises(BreakerError, match="12 relaxations failed in a row"):
        store_relaxations(context, stream, "relax", 40, within="supervise", most_failures=12)
    assert context.store.ids == [f"c{k}" for k in range(12)]


def test_a_sound_relaxation_is_stored_as_it_is():
    assert DONE.converged
    assert checked_again(DONE, Limits()) is DONE


SPOILT = {
    Reason.ATOMS_TOO_CLOSE: Crystal.from_arrays(
        5 * np.eye(3), ["Na", "Cl"], [[0, 0, 0], [0.15, 0, 0]]
    ),
    Reason.VOLUME_TOO_SMALL: salt(2.4),
    Reason.VOLUME_TOO_LARGE: salt(12.0),
    Reason.CELL_TOO_FLAT: Crystal.from_arrays(np.diag([9.0, 9.0, 0.9]), ["Na"], [[0, 0, 0]]),
    Reason.ATOM_ISOLATED: Crystal.from_arrays(
        np.diag([4.0, 4.0, 20.0]), ["Na", "Cl", "Ar"], [[0, 0, 0], [0.5, 0.5, 0], [0, 0, 0.5]]
    ),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_a_structure_that_relaxed_into_a_flaw_has_failed(reason):
    limits = Limits(isolation_a=3.9)
    spoilt = DONE.model_copy(update={"crystal": SPOILT[reason]})
    found = checked_again(spoilt, limits)
    assert (found.converged, found.failure) == (False, reason)
    assert found.detail.startswith("after relaxing: ")
    assert found.relaxation_id == DONE.relaxation_id


def test_what_failed_already_keeps_its_reason():
    failed = DONE.model_copy(
        update={"converged": False, "failure": Reason.STALLED, "crystal": salt(2.0)}
    )
    assert checked_again(failed, Limits()).failure == Reason.STALLED
