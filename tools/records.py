"""The records every stage reads and writes: frozen, validated, units in names.

A record never changes once written. What happened to a proposal is told by the records that
carry its id; `hullward.tools.schema` derives its state from them.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hullward.models.crystal import Crystal


class Record(BaseModel):
    """Frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def stable_id(prefix: str, *parts: Any) -> str:
    """Name something by what it says: same words, same id.

    >>> stable_id("x", 1, {"b": 2, "a": [3]}) == stable_id("x", 1, {"a": [3], "b": 2})
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{prefix}-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


class State(StrEnum):
    """Where a proposal stands. Exclusive; together they sum to everything proposed."""

    REJECTED_PARSE = "rejected_parse"
    REJECTED_CHECK = "rejected_check"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    FAILED = "failed"
    UNCONVERGED = "unconverged"
    PENDING = "pending"
    HULL_PENDING = "hull_pending"
    JUDGED = "judged"


class Stage(StrEnum):
    """Where a proposal was rejected."""

    PARSE = "parse"
    CHECK = "check"


class Reason(StrEnum):
    """Why something stopped. The words appear in tables, reports and prompts."""

    # parse
    EMPTY = "empty"
    PROSE = "prose"  # words where a structure was asked for
    REPETITION = "repetition"  # the same lines again and again
    TRUNCATED = "truncated"
    BAD_LENGTHS = "bad_lengths"
    BAD_ANGLES = "bad_angles"
    BAD_SPACE_GROUP = "bad_space_group"
    BAD_ELEMENT_LINE = "bad_element_line"
    BAD_COORDINATE_LINE = "bad_coordinate_line"
    TRAILING_TEXT = "trailing_text"
    NO_SITES = "no_sites"
    IMPOSSIBLE_CELL = "impossible_cell"
    MALFORMED_ROW = "malformed_row"
    BAD_CIF = "bad_cif"
    DISORDERED = "disordered"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    # check
    UNKNOWN_ELEMENT = "unknown_element"
    UNSUPPORTED_ELEMENT = "unsupported_element"
    FORBIDDEN_ELEMENT = "forbidden_element"
    ELEMENT_COUNT = "element_count"
    ATOM_COUNT = "atom_count"
    ATOMS_TOO_CLOSE = "atoms_too_close"
    ATOM_ISOLATED = "atom_isolated"
    VOLUME_TOO_SMALL = "volume_too_small"
    VOLUME_TOO_LARGE = "volume_too_large"
    CELL_TOO_FLAT = "cell_too_flat"
    CHARGE_UNBALANCED = "charge_unbalanced"
    # relax
    NON_FINITE = "non_finite"
    EXPLODED = "exploded"
    COLLAPSED = "collapsed"
    CLASH = "clash"
    STALLED = "stalled"
    STEP_LIMIT = "step_limit"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_DIED = "worker_died"
    POTENTIAL_ERROR = "potential_error"


class Flaw(Record):
    """What is wrong with one input, before it is tied to a proposal."""

    reason: Reason
    detail: str


class Proposal(Record):
    """One raw model output or one constructed structure, with everything needed to replay it."""

    proposal_id: str
    request_id: str
    campaign_id: str
    cycle: int = Field(ge=0)
    index: int = Field(ge=0)  # position within the request
    operator: str
    plan_id: str | None = None
    parents: tuple[str, ...] = ()  # candidate, phase or prototype ids
    evidence_ids: tuple[str, ...] = ()  # facts that argued for it
    model: str | None = None
    prompt: str | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    seed: int
    raw: str  # verbatim
    format: Literal["crystal_text", "asymmetric_text", "cif", "crystal_json", "table_row"]
    source: str | None = None  # file and row, for screened input
    target_formula: str | None = None  # what was asked for, if anything was
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Rejection(Record):
    """A proposal that stopped before it became a candidate."""

    proposal_id: str
    stage: Stage
    reason: Reason
    detail: str


class Candidate(Record):
    """A proposal that parsed and passed the hard checks."""

    proposal_id: str
    candidate_id: str  # the crystal's content id: two proposals may share it
    crystal: Crystal
    formula: str
    chemsys: str
    n_atoms: int
    volume_per_atom_a3: float
    min_distance_a: float
    space_group: int | None  # symprec 0.1 Å, as proposed
    charge_balanced: bool | None  # None: no claim (no oxidation states known)
    charge_note: str  # e.g. 'Li+ Mn3+ O2-', 'metal', 'no combination of common states'


class Label(Record):
    """A match, found before relaxation or on the relaxed structure."""

    proposal_id: str
    moment: Literal["before", "after"]
    kind: Literal["known", "duplicate"]
    match_id: str  # phase id for known, candidate id for duplicate
    rms_a: float | None  # normalised rms displacement of the match; None for identical content


class Protocol(Record):
    """How a structure is relaxed."""

    # fire-bfgs ends as low as fire, or lower, with three quarters of the force calls (RESULTS.md)
    optimizer: Literal["fire", "bfgs", "fire-bfgs"] = "fire-bfgs"
    fmax_ev_per_a: float = Field(default=0.05, gt=0)  # on forces and on the cell gradient
    cell_filter: Literal["frechet"] = "frechet"
    max_steps: int = Field(default=500, ge=0)  # 0: evaluated where it stands
    rattle_a: float = Field(default=0.0, ge=0)  # displacement before the start, for second looks

    @property
    def protocol_id(self) -> str:
        return stable_id("p", self.model_dump(mode="json"))


class Relaxation(Record):
    """One candidate relaxed by one potential under one protocol."""

    relaxation_id: str
    candidate_id: str
    potential: str
    potential_sha256: str
    energy_scheme: str
    protocol: Protocol
    failure: Reason | None = None  # set: the numbers below are the last good ones or absent
    detail: str = ""
    converged: bool
    energy_ev_per_atom: float | None
    initial_energy_ev_per_atom: float | None
    residual_force_ev_per_a: float | None  # largest norm over atoms
    residual_stress_gpa: float | None  # largest absolute component
    steps: int
    force_calls: int
    cpu_s: float
    crystal: Crystal | None  # relaxed, or where it stopped
    volume_per_atom_a3: float | None
    volume_ratio: float | None  # final over initial
    space_group_loose: int | None  # symprec 0.1 Å
    space_group_tight: int | None  # symprec 0.01 Å
    magmoms_mu_b: tuple[float, ...] | None = None
    early_energy_ev_per_atom: float | None = None  # after the first steps: decides whose turn it is

    @staticmethod
    def make_id(candidate_id: str, potential_sha256: str, protocol: Protocol) -> str:
        return stable_id("r", candidate_id, potential_sha256, protocol.protocol_id)


class VerdictLabel(StrEnum):
    """What a height means."""

    STABLE = "stable"  # at or below the hull, composition covered
    METASTABLE = "metastable"  # within the campaign's threshold
    UNSTABLE = "unstable"  # above it: an incomplete reference could only raise the height
    BELOW_REFERENCE = "below_reference"  # low, but the reference does not cover the composition
    HULL_PENDING = "hull_pending"  # no hull for this composition


class Suspicion(StrEnum):
    """Too good or too odd to be true."""

    FAR_BELOW_HULL = "far_below_hull"
    ODD_VOLUME = "odd_volume"
    DROP_WITHOUT_CONVERGENCE = "drop_without_convergence"


class Product(Record):
    """One phase of a decomposition."""

    phase_id: str
    formula: str
    fraction: float  # of atoms


class Verdict(Record):
    """One relaxation judged against one version of one reference, with one kind of height."""

    relaxation_id: str
    reference_id: str
    reference_version: str
    height: Literal["reference", "union"]
    e_above_hull_ev_per_atom: float | None  # signed; None while the hull is pending
    decomposition: tuple[Product, ...]
    label: VerdictLabel
    covered: bool
    coverage_note: str
    suspicions: tuple[Suspicion, ...] = ()
    # a suspect is relaxed again from a rattle: reproduced or refuted. Either way it is held back;
    # only another potential's agreement makes it confirmed
    second_look: Literal["not_needed", "pending", "reproduced", "refuted", "confirmed"] = (
        "not_needed"
    )
    rediscovered: str | None = None  # id of the reference phase the relaxed structure matches
    typical_error_ev_per_atom: float | None  # of the potential; None when the source gives none


class OperatorOutcome(Record):
    """What one operator had achieved when a plan was made."""

    operator: str
    proposed: int
    judged: int
    rewarded: int  # novel, covered, not suspect, within the metastable threshold
    force_calls: int


class Plan(Record):
    """What one cycle will propose, and why."""

    plan_id: str
    campaign_id: str
    cycle: int
    quotas: dict[str, int]  # proposals asked of each operator
    parents: tuple[str, ...]  # candidate ids, best first
    formulas: tuple[str, ...]  # target formulas for the operators that take one, in order
    outcomes: tuple[OperatorOutcome, ...]  # what it was based on
    results_up_to_cycle: int  # the fixed lag; -1: nothing yet
    reasons: tuple[str, ...]
    made_by: str = "rules"  # or the language model that was asked
    brief: str | None = None  # what the planner was told
    space_groups: tuple[int, ...] = ()  # to ask of models that take one, in turn; empty: known ones
    dropped: dict[str, int] = Field(default_factory=dict)  # what a model planned out of limits


class CampaignRecord(Record):
    """What a directory belongs to: one campaign, or one screening of a file."""

    campaign_id: str
    kind: Literal["campaign", "screen"]
    name: str
    seed: int
    settings: dict[str, Any]  # resolved, as run
    versions: dict[str, str]  # packages and code


class Basis(Record):
    """What the current verdicts rest on. The latest one wins; earlier verdicts stay."""

    campaign_id: str
    potential: str
    potential_sha256: str
    energy_scheme: str
    protocol: Protocol
    reference_spec: str  # as a campaign file names it, e.g. 'embedded' or 'file:PATH'
    reference_id: str
    reference_version: str
    reference_kind: Literal["embedded", "built", "materials_project", "file"]
    reference_statement: str  # what it covers, in words
    metastable_ev_per_atom: float


class SecondReference(Record):
    """Another reference whose heights are shown beside the basis' own; it decides nothing."""

    campaign_id: str
    reference_spec: str
    reference_id: str
    reference_version: str
    reference_kind: Literal["embedded", "built", "materials_project", "file"]
    reference_statement: str
    disagreement_ev_per_atom: float  # heights that differ by more are flagged


class CycleEnd(Record):
    """One turn of the graph, completed."""

    campaign_id: str
    cycle: int
    proposed: int
    judged: int
    force_calls: int


class RunEnd(Record):
    """Why a run stopped."""

    campaign_id: str
    number: int  # 0 for the first run in the directory
    reason: Literal["finished", "budget", "stopped", "interrupted", "breaker", "failed"]
    detail: str
    stage_cpu_s: dict[str, float] = Field(default_factory=dict)  # of this run; relax: workers too
