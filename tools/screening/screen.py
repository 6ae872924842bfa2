"""What every stage of screening works with: the campaign's store, basis, potential and reference.

The stages are functions of a `Screen`: `checking`, `relaxing` and `judging` hold them in this
order. Each takes proposals, finds in the store what is still missing, does it, and stores every
result as it comes. Done twice, a stage adds nothing; killed in the middle, it goes on where it was.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from hullward.models.potential import PotentialCard
from hullward.tools.crystal import Match, OrderedLattice, PrototypeLibrary
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Hull, Reference
from hullward.tools.records import (
    Basis,
    Candidate,
    Relaxation,
    SecondReference,
    Verdict,
)
from hullward.tools.reference import require_known_energies
from hullward.tools.relax import Executor
from hullward.tools.screening.cells import CELLS, KeptCells
from hullward.tools.screening.labels import (
    CampaignStructures,
    KnownStructures,
    Moment,
    Stored,
    StructureIndex,
    StructureSource,
)
from hullward.tools.screening.validate import Limits
from hullward.tools.store import Store

# Conditions of SQL on rows of `relaxations` and `verdicts`, with the parameters of a Screen.
OF_BASIS = "potential_sha256 = $potential AND protocol_id = $protocol"
RELAXED = f"converged AND {OF_BASIS}"
OVER_REFERENCE = "reference_id = $reference AND reference_version = $version"
PROPOSED_ORDER = 'cycle, request_id, "index"'


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


class RelaxedSeed(NamedTuple):
    """Energy and volume of a parent, relaxed as the candidates are."""

    energy_ev_per_atom: float
    volume_per_atom_a3: float


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
    index: StructureIndex | None = None  # of known structures
    seeds: Mapping[str, RelaxedSeed] = field(default_factory=dict)  # by candidate id
    executor: Executor = field(default_factory=Executor)
    relax_known: bool = False
    breaker_failures: int = 25
    hooks: Hooks = field(default_factory=Hooks)
    tried: set[str] = field(default_factory=set, compare=False)  # what is done once a run

    @cached_property
    def known(self) -> KnownStructures:
        """Structures of known phases: the reference's, the user's and the index's."""
        return KnownStructures(self.reference, self.user_phases, self.index)

    @cached_property
    def checked_card(self) -> PotentialCard:
        """The potential, once its energies were found to be those that the references rest on."""
        require_known_energies(self.card)
        return self.card

    @cached_property
    def proposed_structures(self) -> CampaignStructures:
        """Candidates as proposed, to find duplicates among."""
        return CampaignStructures(
            "before", StructureSource(self._count_proposed, self._read_proposed)
        )

    @cached_property
    def relaxed_structures(self) -> CampaignStructures:
        """Candidates as relaxed under the basis, to find duplicates among."""
        return CampaignStructures("after", StructureSource(self._count_relaxed, self._read_relaxed))

    @cached_property
    def families(self) -> dict[tuple[Moment, str], PrototypeLibrary]:
        """Candidates that were the first of their prototype, by moment and what was known."""
        return {}

    @cached_property
    def union_hulls(self) -> dict[str, tuple[tuple[str, ...], Hull]]:
        """Hulls of reference ∪ campaign by system, with the candidates that support them."""
        return {}

    @cached_property
    def cells(self) -> KeptCells:
        """Reduced cells, kept beside the store."""
        return KeptCells(self.store.directory / CELLS)

    @cached_property
    def lattices(self) -> OrderedDict[tuple[str, str], OrderedLattice]:
        """Crystals with their parent lattices by table and id, those compared last at the end."""
        return OrderedDict()

    @property
    def relaxed_by(self) -> dict[str, str]:
        """What makes a relaxation one of the basis, as parameters of RELAXED."""
        return {
            "potential": self.basis.potential_sha256,
            "protocol": self.basis.protocol.protocol_id,
        }

    @property
    def judged_by(self) -> dict[str, str]:
        """What makes a verdict one of the basis, as parameters of OVER_REFERENCE."""
        return {
            "reference": self.basis.reference_id,
            "version": self.basis.reference_version,
        }

    def pairs(self, relaxation_ids: Sequence[str]) -> list[tuple[Candidate, Relaxation]]:
        """These relaxations with their candidates, in the order given."""
        by_id = {r.relaxation_id: r for r in self.store.load(Relaxation, relaxation_ids)}
        relaxations = [by_id[i] for i in relaxation_ids]
        wanted = {r.candidate_id for r in relaxations}
        candidates = {c.candidate_id: c for c in self.store.load(Candidate, wanted)}
        return [(candidates[r.candidate_id], r) for r in relaxations]

    def relaxed(self, candidate_ids: Collection[str]) -> list[tuple[Candidate, Relaxation]]:
        """Those of these candidates that converged under the basis, with their relaxations."""
        rows = self.store.rows(
            f"""SELECT relaxation_id FROM relaxations
                WHERE candidate_id IN (SELECT unnest($ids::VARCHAR[])) AND {RELAXED}""",
            {"ids": list(candidate_ids), **self.relaxed_by},
        )
        return self.pairs_in_order([row["relaxation_id"] for row in rows])

    def pairs_in_order(self, relaxation_ids: Collection[str]) -> list[tuple[Candidate, Relaxation]]:
        """These relaxations with their candidates, in the order of proposing."""
        pairs = {c.proposal_id: (c, r) for c, r in self.pairs(list(relaxation_ids))}
        return [pairs[i] for i in in_order(self.store, pairs)]

    def verdicts(self, relaxation_ids: Collection[str]) -> dict[str, Verdict]:
        """Verdicts over the reference of the basis in its version, by relaxation id."""
        return {
            v.relaxation_id: v
            for v in self.store.load(Verdict, relaxation_ids)
            if v.height == "reference"
            and v.reference_id == self.basis.reference_id
            and v.reference_version == self.basis.reference_version
        }

    def _count_proposed(self, formulas: Collection[str]) -> dict[str, int]:
        rows = self.store.rows(
            """SELECT formula, count(*) AS n FROM candidates
               WHERE list_contains($formulas, formula) GROUP BY formula""",
            {"formulas": list(formulas)},
        )
        return {row["formula"]: row["n"] for row in rows}

    def _read_proposed(self, formulas: Collection[str]) -> dict[str, list[Stored]]:
        rows = self.store.rows(
            """SELECT proposal_id, candidate_id, formula, crystal FROM candidates
               WHERE list_contains($formulas, formula)""",
            {"formulas": list(formulas)},
        )
        return self._stored(rows, "before")

    def _count_relaxed(self, formulas: Collection[str]) -> dict[str, int]:
        rows = self.store.rows(
            f"""SELECT formula, count(*) AS n FROM candidates JOIN relaxations USING (candidate_id)
                WHERE list_contains($formulas, formula) AND {RELAXED} GROUP BY formula""",
            {"formulas": list(formulas), **self.relaxed_by},
        )
        return {row["formula"]: row["n"] for row in rows}

    def _read_relaxed(self, formulas: Collection[str]) -> dict[str, list[Stored]]:
        owners = self.store.rows(
            """SELECT candidate_id, proposal_id, formula FROM candidates
               WHERE list_contains($formulas, formula)""",
            {"formulas": list(formulas)},
        )
        by_id = {row["candidate_id"]: row for row in owners}
        rows = self.store.rows(
            f"""SELECT candidate_id, crystal FROM relaxations
                WHERE candidate_id IN (SELECT unnest($ids::VARCHAR[])) AND {RELAXED}""",
            {"ids": list(by_id), **self.relaxed_by},
        )
        return self._stored([by_id[row["candidate_id"]] | row for row in rows], "after")

    def _stored(self, rows: Sequence[dict[str, Any]], moment: Moment) -> dict[str, list[Stored]]:
        """Rows with their labels by formula, in the order of proposing."""
        by_id = {row["proposal_id"]: row for row in rows}
        labels = self.store.rows(
            """SELECT proposal_id, kind, match_id, rms_a FROM labels
               WHERE proposal_id IN (SELECT unnest($ids::VARCHAR[])) AND moment = $moment""",
            {"ids": list(by_id), "moment": moment},
        )
        matches = {
            (row["proposal_id"], row["kind"]): Match(row["match_id"], row["rms_a"])
            for row in labels
        }
        found: dict[str, list[Stored]] = {}
        ordered = in_order(self.store, by_id)
        texts = [(by_id[i]["candidate_id"], by_id[i]["crystal"]) for i in ordered]
        for proposal_id, crystal in zip(ordered, self.cells.compared(texts), strict=True):
            known, duplicate = (matches.get((proposal_id, x)) for x in ("known", "duplicate"))
            stored = Stored(crystal, known, duplicate)
            found.setdefault(by_id[proposal_id]["formula"], []).append(stored)
        return found


def in_order(store: Store, proposal_ids: Collection[str]) -> list[str]:
    """Proposal ids in the order they were proposed, which decides who is the duplicate."""
    rows = store.rows(
        f"""SELECT proposal_id FROM proposals
            WHERE proposal_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY {PROPOSED_ORDER}""",
        {"ids": list(proposal_ids)},
    )
    return [row["proposal_id"] for row in rows]


def whole_formulas(rows: Sequence[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches of about `most`, those of one system together and no formula in two."""
    batch: list[dict[str, Any]] = []
    by_formula: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_formula.setdefault((row["chemsys"], row["formula"]), []).append(row)
    for key in sorted(by_formula):
        batch += by_formula[key]
        if len(batch) >= most:
            yield batch
            batch = []
    if batch:
        yield batch
