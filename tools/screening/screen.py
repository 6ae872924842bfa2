"""The one path from a proposal to a verdict, whoever made the proposal.

Each step takes proposals, looks up in the store what is still missing, does it, and stores every
result as it comes. Done twice, a step adds nothing; killed in the middle, it goes on where it was.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hullward.models.crystal import Crystal
from hullward.models.errors import BreakerError
from hullward.models.potential import PotentialCard
from hullward.tools.crystal import StructureLibrary
from hullward.tools.crystal.files import CifReader, KnownPhases, parse_raw
from hullward.tools.hull import Reference, height_over
from hullward.tools.records import (
    Basis,
    Candidate,
    Flaw,
    Label,
    Proposal,
    Protocol,
    Record,
    Rejection,
    Relaxation,
    Stage,
    Verdict,
)
from hullward.tools.reference import require_known_energies
from hullward.tools.relax import relax_best_first, relax_cached
from hullward.tools.screening import validate
from hullward.tools.screening.labels import label
from hullward.tools.screening.second_reference import (
    SecondReferenceJudge,
    needs_verdict,
    structure_library,
)
from hullward.tools.screening.verdicts import SecondLook, judge, second_look_of, union_verdicts
from hullward.tools.store import Store

STORE_BATCH = 500  # records a journal write
RATTLE_A = 0.05  # displacement before a suspect is relaxed again


@dataclass(kw_only=True)
class Screen:
    """Everything the path needs. `progress` is told (step, done, total) as items finish."""

    store: Store
    basis: Basis
    card: PotentialCard
    reference: Reference
    limits: validate.Limits
    second: SecondReferenceJudge | None = None  # another reference to judge by; it decides nothing
    user_phases: KnownPhases = field(default_factory=KnownPhases)
    workers: int = 1
    home: Path | None = None  # where relaxations are shared between campaigns
    relax_known: bool = False
    breaker_failures: int = 25
    progress: Callable[[str, int, int], None] = lambda step, done, total: None
    stopping: Callable[[], bool] = lambda: False
    stage_cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _known: dict[str, StructureLibrary] = field(default_factory=dict)
    _energies_known: bool = False  # canaries were looked at, once a run

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Charge CPU time to a stage: of this process, or of its thread while others are busy."""
        clock = time.thread_time if self.workers else time.process_time
        started = clock()
        try:
            yield
        finally:
            self.stage_cpu_s[stage] += clock() - started

    def check(self, proposals: Sequence[Proposal], parse_only: bool = False) -> None:
        """Parse and check: every proposal becomes a candidate or a rejection.

        parse_only: reject what does not parse, and leave the rest waiting.
        """
        done = {r.proposal_id for r in self.store.load(Rejection)} | self.candidates().keys()
        todo = [p for p in proposals if p.proposal_id not in done]
        batch: list[Record] = []
        with CifReader() as reader:
            for count, proposal in enumerate(todo, start=1):
                result = self._check_one(proposal, reader, parse_only)
                if result is not None:
                    batch.append(result)
                if count % STORE_BATCH == 0 or count == len(todo):
                    self.store.add(batch)
                    batch = []
                    self.progress("check", count, len(todo))
                    if self.stopping():
                        return

    def _check_one(
        self, proposal: Proposal, reader: CifReader, parse_only: bool
    ) -> Candidate | Rejection | None:
        crystal = parse_raw(proposal.raw, proposal.format, reader)
        if isinstance(crystal, Flaw):
            return _rejection(proposal, Stage.PARSE, crystal)
        if parse_only:
            return None
        facts = validate.check_crystal(crystal, self.limits, self.card.elements)
        if isinstance(facts, Flaw):
            return _rejection(proposal, Stage.CHECK, facts)
        return validate.candidate(proposal.proposal_id, crystal, facts)

    def label(self, proposals: Sequence[Proposal]) -> None:
        """Match candidates with known phases and with this campaign, before relaxing them."""
        asked = {p.proposal_id for p in proposals}
        candidates = self.candidates()
        settled = {x.proposal_id: x.kind for x in self.store.load(Label) if x.moment == "before"}
        seen = StructureLibrary()
        found: list[Record] = []
        for count, proposal_id in enumerate(self._order(candidates), start=1):
            candidate = candidates[proposal_id]
            kind = settled.get(proposal_id)
            if kind is None and proposal_id in asked:
                known = self.known(candidate.chemsys)
                match = label(proposal_id, candidate.crystal, known, seen, "before")
                if match is not None:
                    found.append(match)
                    kind = match.kind
            if kind != "duplicate":
                seen.add(candidate.candidate_id, candidate.crystal)
            if count % 100 == 0 or count == len(candidates):
                self.progress("match", count, len(candidates))
                if self.stopping():
                    break
        self.store.add(found)

    def to_relax(self, proposals: Iterable[Proposal]) -> list[tuple[str, Crystal]]:
        """Candidates among these that still wait for a relaxation, in order."""
        wanted = {"pending", "known"} if self.relax_known else {"pending"}
        waiting = {
            row["proposal_id"]
            for row in self.store.rows("SELECT proposal_id, state FROM states")
            if row["state"] in wanted
        }
        asked = {p.proposal_id for p in proposals} & waiting
        done = {r.candidate_id for r in self._relaxations(self.basis.protocol)}
        candidates = {
            i: c for i, c in self.candidates().items() if i in asked and c.candidate_id not in done
        }
        jobs = {candidates[i].candidate_id: candidates[i].crystal for i in self._order(candidates)}
        return list(jobs.items())

    def relax(self, proposals: Sequence[Proposal], limit: int | None = None) -> None:
        """Relax what is new, the most promising first, storing each as it finishes.

        limit: relax only so many, those lowest above the hull after a few steps.
        """
        with self.timed("supervise"):
            jobs = self.to_relax(proposals)
            if not jobs or limit == 0:
                return
            if not self._energies_known:
                require_known_energies(self.card)
                self._energies_known = True
            protocol, name = self.basis.protocol, self.card.name
            height = height_over(self.reference)
            results = relax_best_first(
                jobs, height, name, protocol, self.home, self.workers, limit, self.stopping
            )
            self._collect(results, "relax", len(jobs) if limit is None else min(limit, len(jobs)))

    def _collect(self, results: Iterable[Relaxation], step: str, total: int) -> None:
        failures = 0
        self.progress(step, 0, total)
        for done, relaxation in enumerate(results, start=1):
            self.store.add([relaxation])
            self.progress(step, done, total)
            self.stage_cpu_s["relax"] += relaxation.cpu_s
            if self.workers == 0:  # it ran in this process, whose time is charged to someone else
                self.stage_cpu_s["supervise"] -= relaxation.cpu_s
            failures = failures + 1 if relaxation.failure else 0
            if failures >= self.breaker_failures:
                raise BreakerError(
                    f"{failures} relaxations failed in a row, the last with "
                    f"{relaxation.failure}: {relaxation.detail}. Everything so far is stored; "
                    "see `hullward report`, then `hullward resume`"
                )

    def _until_stopped(self, jobs: Iterable[tuple[str, Crystal]]) -> Iterator[tuple[str, Crystal]]:
        for job in jobs:
            if self.stopping():
                return
            yield job

    def judge(self, proposals: Iterable[Proposal]) -> None:
        """Match relaxed structures again, judge them, and relax suspects a second time."""
        asked = {p.proposal_id for p in proposals}
        relaxed = self.relaxed()
        self._label_relaxed(relaxed, asked)
        judged = {v.relaxation_id: v for v in self.verdicts("reference")}
        new = [
            self._verdict(candidate, relaxation)
            for candidate, relaxation in relaxed
            if candidate.proposal_id in asked
            and needs_verdict(candidate, judged.get(relaxation.relaxation_id), self.reference)
        ]
        self.store.add(new)
        judged |= {v.relaxation_id: v for v in new}
        if self.second is not None:
            both = [(c, r) for c, r in relaxed if r.relaxation_id in judged]
            limit = self.basis.metastable_ev_per_atom
            self.store.add(self.second.verdicts(self.store.load(Verdict), both, limit, self.card))
        self._second_looks(
            [
                (candidate, relaxation)
                for candidate, relaxation in relaxed
                if (verdict := judged.get(relaxation.relaxation_id)) is not None
                and verdict.second_look == "pending"
            ]
        )

    def _label_relaxed(
        self, relaxed: Sequence[tuple[Candidate, Relaxation]], asked: Collection[str]
    ) -> None:
        settled = {x.proposal_id: x.kind for x in self.store.load(Label) if x.moment == "after"}
        seen = StructureLibrary()
        found: list[Record] = []
        for candidate, relaxation in relaxed:
            assert relaxation.crystal is not None  # a converged relaxation has a structure
            kind = settled.get(candidate.proposal_id)
            if kind is None and candidate.proposal_id in asked:
                known = self.known(candidate.chemsys)
                match = label(candidate.proposal_id, relaxation.crystal, known, seen, "after")
                if match is not None:
                    found.append(match)
                    kind = match.kind
            if kind != "duplicate":
                seen.add(candidate.candidate_id, relaxation.crystal)
        self.store.add(found)

    def _verdict(
        self, candidate: Candidate, relaxation: Relaxation, second_look: SecondLook | None = None
    ) -> Verdict:
        assert relaxation.crystal is not None
        match = self.known(candidate.chemsys).match(relaxation.crystal)
        return judge(
            relaxation,
            candidate,
            self.reference,
            threshold_ev_per_atom=self.basis.metastable_ev_per_atom,
            rediscovered=match.match_id if match else None,
            second_look=second_look,
            typical_error_ev_per_atom=self.card.typical_error_ev_per_atom,
        )

    def _second_looks(self, suspects: Sequence[tuple[Candidate, Relaxation]]) -> None:
        """Relax suspects again from a rattle; their numbers either come back or they do not."""
        if not suspects:
            return
        protocol = self.basis.protocol.model_copy(update={"rattle_a": RATTLE_A})
        done = {r.candidate_id: r for r in self._relaxations(protocol)}
        jobs = [(c.candidate_id, c.crystal) for c, _ in suspects if c.candidate_id not in done]
        results = relax_cached(
            self._until_stopped(jobs), self.card.name, protocol, self.home, self.workers
        )
        self._collect(results, "second look", len(jobs))
        done = {r.candidate_id: r for r in self._relaxations(protocol)}
        self.store.add(
            self._verdict(candidate, first, second_look_of(first, done[candidate.candidate_id]))
            for candidate, first in suspects
            if candidate.candidate_id in done
        )

    def judge_union(self) -> None:
        """Heights over reference ∪ this campaign's own phases, for everything judged so far."""
        first = {v.relaxation_id: v for v in self.verdicts("reference")}
        relaxed = [(c, r) for c, r in self.relaxed() if r.relaxation_id in first]
        self.store.add(
            union_verdicts(
                [r for _, r in relaxed],
                {c.candidate_id: c for c, _ in relaxed},
                self.reference,
                threshold_ev_per_atom=self.basis.metastable_ev_per_atom,
                rediscovered={i: v.rediscovered for i, v in first.items() if v.rediscovered},
                second_looks={i: v.second_look for i, v in first.items()},
                typical_error_ev_per_atom=self.card.typical_error_ev_per_atom,
            )
        )

    def rejudge(self, basis: Basis, reference: Reference) -> None:
        """Judge every stored relaxation by another reference; nothing is relaxed but suspects."""
        self.store.add([basis, *([self.second.basis] if self.second else [])])
        self.basis, self.reference = basis, reference
        self._known.clear()
        self.judge(self.store.load(Proposal))
        self.judge_union()

    def known(self, chemsys: str) -> StructureLibrary:
        """Known phases of exactly this system, the reference's and the user's."""
        if chemsys not in self._known:
            self._known[chemsys] = structure_library(
                self.reference, chemsys, self.user_phases.of(chemsys)
            )
        return self._known[chemsys]

    def candidates(self) -> dict[str, Candidate]:
        """Every candidate by the id of its proposal; equal crystals share one candidate."""
        by_id = {c.candidate_id: c for c in self.store.load(Candidate)}
        rows = self.store.rows(
            "SELECT proposal_id, candidate_id FROM proposals WHERE candidate_id IS NOT NULL"
        )
        return {row["proposal_id"]: by_id[row["candidate_id"]] for row in rows}

    def relaxed(self) -> list[tuple[Candidate, Relaxation]]:
        """Candidates with their converged relaxation under the current basis, in order."""
        by_candidate = {r.candidate_id: r for r in self._relaxations(self.basis.protocol)}
        owners = {c.proposal_id: c for c in self.store.load(Candidate)}
        pairs = ((owners[i], by_candidate.get(owners[i].candidate_id)) for i in self._order(owners))
        return [(c, r) for c, r in pairs if r is not None and r.converged]

    def _relaxations(self, protocol: Protocol) -> list[Relaxation]:
        return [
            r
            for r in self.store.load(Relaxation)
            if r.protocol == protocol and r.potential_sha256 == self.basis.potential_sha256
        ]

    def verdicts(self, height: Literal["reference", "union"]) -> list[Verdict]:
        """Verdicts of the current reference and version."""
        return [
            v
            for v in self.store.load(Verdict)
            if v.height == height
            and v.reference_id == self.basis.reference_id
            and v.reference_version == self.basis.reference_version
        ]

    def _order(self, wanted: Collection[str]) -> list[str]:
        """Proposal ids in the order they were proposed, which decides who is the duplicate."""
        rows = self.store.rows(
            'SELECT proposal_id FROM proposals ORDER BY cycle, request_id, "index"'
        )
        return [row["proposal_id"] for row in rows if row["proposal_id"] in wanted]


def _rejection(proposal: Proposal, stage: Stage, flaw: Flaw) -> Rejection:
    return Rejection(
        proposal_id=proposal.proposal_id, stage=stage, reason=flaw.reason, detail=flaw.detail
    )
