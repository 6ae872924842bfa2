"""Snapshots in the course of a run take at most a twentieth of its time."""

from types import SimpleNamespace

import pytest

from hullward.agents.workspace import publishing


class Slow:
    """A store whose snapshots take a while, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_s: float) -> None:
        self.now_s, self.takes_s, self.spent_s, self.verified = 0.0, takes_s, 0.0, []
        self.last_seq = 1
        monkeypatch.setattr(publishing, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def publish(self, *, verify: bool) -> None:
        self.now_s += self.takes_s
        self.spent_s += self.takes_s
        self.verified.append(verify)


@pytest.mark.parametrize("takes_s", [0.01, 0.5, 3.0, 60.0])
@pytest.mark.parametrize("cycle_s", [0.1, 2.0, 500.0])
def test_publishing_takes_five_per_cent_at_most(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, cycle_s: float
) -> None:
    store = Slow(monkeypatch, takes_s)
    publisher = publishing.Publisher(store, ended_s=0.0)
    for _ in range(2000):
        for _ in range(4):
            store.now_s += cycle_s / 4
            publisher.meanwhile()
        publisher.at_a_milestone()
    assert store.spent_s - takes_s <= 0.05 * store.now_s
    assert store.verified


def test_the_counting_is_checked_at_milestones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Slow(monkeypatch, 0.1)
    publisher = publishing.Publisher(store, ended_s=0.0)
    publisher.at_a_milestone()
    store.now_s += publishing.PUBLISH_EVERY_S
    publisher.meanwhile()
    publisher.meanwhile()
    assert store.verified == [True, False]


def test_checks_of_the_counting_cost_each_proposal_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each reads everything, so the lines read for each line stored have a bound."""
    store = Slow(monkeypatch, 0.1)
    publisher = publishing.Publisher(store, ended_s=0.0)
    read, share = 0, []
    for _ in range(2000):
        store.now_s += 100.0
        store.last_seq += 500
        publisher.at_a_milestone()
        read += store.last_seq * store.verified[-1]
        share.append(read / store.last_seq)
    assert store.verified[:20] == [True] * 20
    assert max(share) <= 1 / (1 - 1 / publishing.GROWN) + 1
    assert len(store.verified) == 2000
