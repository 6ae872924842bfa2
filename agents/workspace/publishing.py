"""Snapshots in the course of a run: readers see it go on, and it spends no time on them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hullward.tools.store import Store

PUBLISH_EVERY_S = 20.0  # within a cycle
REST = 20  # times as long as the last one took, before the next: at most 5 % of the time
GROWN = 1.05  # times what was stored when the counting was last checked, before it is again


@dataclass
class Publisher:
    """Publishes the snapshots of one run."""

    store: Store
    took_s: float = 0.0  # by the last one
    ended_s: float = field(default_factory=time.monotonic)
    checked: int = 0  # lines of the journal whose counting is right

    def at_a_milestone(self) -> None:
        """After a cycle or another part of the work: publish, and check the counting in between.

        A check reads everything, so one is due when a twentieth has been added: what checks cost
        for each proposal does not grow. The end of a run publishes by itself, always checked.
        """
        due = self.store.last_seq >= GROWN * self.checked
        self._publish(REST * self.took_s, verify=due)

    def meanwhile(self) -> None:
        """Whenever something is done; the counting is checked at the next milestone."""
        self._publish(max(PUBLISH_EVERY_S, REST * self.took_s), verify=False)

    def _publish(self, pause_s: float, *, verify: bool) -> None:
        started_s = time.monotonic()
        if started_s - self.ended_s < pause_s:
            return
        self.store.publish(verify=verify)
        if verify:
            self.checked = self.store.last_seq
        self.ended_s = time.monotonic()
        self.took_s = self.ended_s - started_s
