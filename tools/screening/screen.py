"""What every stage of screening works with: the campaign's store, basis, potential and reference.

The stages are functions of a `Screen`: `checking`, `relaxing` and `judging` hold them in this
order. Each takes proposals, finds in the store what is still missing, does it, and stores every
result as it comes. Done twice, a stage adds nothing; killed in the middle, it goes on where it was.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from hullward.models.potential import PotentialCard
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Reference
from hullward.tools.records import (
    Basis,
    Candidate,
    Protocol,
    Relaxation,
    SecondReference,
    Verdict,
)
from hullward.tools.reference import require_known_energies
from hullward.tools.screening.labels import KnownStructures
from hullward.tools.screening.validate import Limits
from hullward.tools.store import Store


class StageTimes:
    """CPU seconds of each stage of a run."""

    def __init__(self, *, whole_process: bool = False) -> None:
        """whole_process: time the process, where nothing runs beside; else the stage's thread."""
        self.cpu_s: dict[str, float] = defaultdict(float)
        self._clock = time.process_time if whole_process else time.thread_time

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Charge the CPU time of a block to a stage."""
        started = self._clock()
        try:
            yield
        finally:
            self.charge(stage, self._clock() - started)

    def charge(self, stage: str, cpu_s: float) -> None:
        self.cpu_s[stage] += cpu_s


@dataclass(frozen=True)
class Hooks:
    """How a run follows its stages.

    progress: called with (step, done, total) as items finish.  stopping: whether to stop now.
    """

    progress: Callable[[str, int, int], None] = lambda step, done, total: None
    stopping: Callable[[], bool] = lambda: False
    timed: StageTimes = field(default_factory=StageTimes)


@dataclass(frozen=True, kw_only=True)
class SecondReferenceJudge:
    """A second reference to judge by; it decides nothing."""

    reference: Reference
    basis: SecondReference

    @cached_property
    def known(self) -> KnownStructures:
        return KnownStructures(self.reference)


@dataclass(frozen=True, kw_only=True)
class Screen:
    """The context of the stages."""

    store: Store
    basis: Basis
    card: PotentialCard
    reference: Reference
    limits: Limits
    second: SecondReferenceJudge | None = None
    user_phases: KnownPhases = field(default_factory=KnownPhases)
    workers: int = 1
    home: Path | None = None  # where relaxations are shared between campaigns
    relax_known: bool = False
    breaker_failures: int = 25
    hooks: Hooks = field(default_factory=Hooks)

    @cached_property
    def known(self) -> KnownStructures:
        """Structures of known phases, the reference's and the user's."""
        return KnownStructures(self.reference, self.user_phases)

    @cached_property
    def checked_card(self) -> PotentialCard:
        """The potential, once its energies were found to be those that the references rest on."""
        require_known_energies(self.card)
        return self.card

    def candidates(self) -> dict[str, Candidate]:
        """Every candidate by the id of its proposal; equal crystals share one candidate."""
        by_id = {c.candidate_id: c for c in self.store.load(Candidate)}
        rows = self.store.rows(
            "SELECT proposal_id, candidate_id FROM proposals WHERE candidate_id IS NOT NULL"
        )
        return {row["proposal_id"]: by_id[row["candidate_id"]] for row in rows}

    def relaxations(self, protocol: Protocol) -> list[Relaxation]:
        """Relaxations by the campaign's potential under a protocol."""
        return [
            r
            for r in self.store.load(Relaxation)
            if r.protocol == protocol and r.potential_sha256 == self.basis.potential_sha256
        ]

    def relaxed(self) -> list[tuple[Candidate, Relaxation]]:
        """Candidates with their converged relaxation under the basis, in the order of proposing."""
        by_candidate = {r.candidate_id: r for r in self.relaxations(self.basis.protocol)}
        owners = {c.proposal_id: c for c in self.store.load(Candidate)}
        pairs = ((owners[i], by_candidate.get(owners[i].candidate_id)) for i in self.order(owners))
        return [(c, r) for c, r in pairs if r is not None and r.converged]

    def verdicts(self, height: Literal["reference", "union"]) -> dict[str, Verdict]:
        """Verdicts over the reference of the basis in its version, by relaxation id."""
        return {
            v.relaxation_id: v
            for v in self.store.load(Verdict)
            if v.height == height
            and v.reference_id == self.basis.reference_id
            and v.reference_version == self.basis.reference_version
        }

    def order(self, wanted: Collection[str]) -> list[str]:
        """Proposal ids in the order they were proposed, which decides who is the duplicate."""
        rows = self.store.rows(
            'SELECT proposal_id FROM proposals ORDER BY cycle, request_id, "index"'
        )
        return [row["proposal_id"] for row in rows if row["proposal_id"] in wanted]
