"""Limits of tries and waits, and the breaker that stops requests to a broken server.

A server that failed five times in a row gets no more requests until it has written one token: a
dead engine still answers `/health` and `/version`. Requests wait up to a minute for it; after that
they fail at once, and each later batch tries one probe.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Times in seconds. Counts bound what one request can cost."""

    connect_s: float = 5.0
    read_s: float = 180.0  # between two bytes; without streaming, until the first
    total_s: float = 300.0  # of one exchange, however steadily it trickles
    probe_s: float = 20.0  # for one token
    tries: int = 4  # exchanges for one answer, while the server is busy or broken
    backoff_s: float = 1.0  # before the second try; then doubled, always jittered
    longest_wait_s: float = 60.0  # before any try; a server that asks for more is not tried again
    breaker_failures: int = 5  # in a row
    rest_s: float = 5.0  # between two probes
    outage_s: float = 60.0  # how long requests wait for a server to come back
    concurrency: int = 32  # requests in flight

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value}")

    def backoff(self, tries: int, retry_after_s: float | None, rng: random.Random) -> float:
        """Seconds until the next try, after `tries` of them; at least what the server asks for."""
        own: float = self.backoff_s * 2 ** (tries - 1) * rng.uniform(0.5, 1.5)
        return max(min(own, self.longest_wait_s), retry_after_s or 0.0)


class Breaker:
    """Counts failures in a row and opens after too many: no requests then, only probes."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._last_probe = 0.0
        self.opened_at: float | None = None
        self.times_opened = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    @property
    def gives_up(self) -> bool:
        """Whether the outage has lasted longer than requests wait."""
        return self.opened_at is not None and (
            self._clock() - self.opened_at > self._policy.outage_s
        )

    def failed(self) -> None:
        """Count a failure of the server itself."""
        self._failures += 1
        if self.opened_at is None and self._failures >= self._policy.breaker_failures:
            self.opened_at = self._last_probe = self._clock()
            self.times_opened += 1

    def answered(self) -> None:
        self._failures = 0
        self.opened_at = None

    def until_probe_s(self) -> float:
        """Seconds until the next probe is due."""
        return max(0.0, self._last_probe + self._policy.rest_s - self._clock())

    def probed(self) -> None:
        self._last_probe = self._clock()
