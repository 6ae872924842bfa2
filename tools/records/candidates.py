"""What happens to one proposal: proposed, rejected or a candidate, labelled, relaxed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hullward.models.crystal import Crystal
from hullward.tools.records.base import Count, Reason, Record, Stage, stable_id


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
    evidence_ids: tuple[str, ...] = ()  # facts that support it
    model: str | None = None
    prompt: str | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    seed: int
    raw: str  # verbatim
    format: Literal[
        "crystal_text", "asymmetric_text", "cif", "crystal_json", "table_row", "extxyz", "poscar"
    ]
    source: str | None = None  # file and row, for screened input
    target_formula: str | None = None  # the requested formula, if any
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


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
    n_atoms: Count
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
    # normalised rms displacement of the match; None for identical content, and for what a
    # perturbation is by its energy and volume, its parent
    rms_a: float | None


class Protocol(Record):
    """How a structure is relaxed."""

    # fire-bfgs ends as low as fire, or lower, with three quarters of the force calls (RESULTS.md)
    optimizer: Literal["fire", "bfgs", "fire-bfgs"] = "fire-bfgs"
    fmax_ev_per_a: float = Field(default=0.05, gt=0)  # on forces and on the cell gradient
    cell_filter: Literal["frechet"] = "frechet"
    max_steps: int = Field(default=500, ge=0)  # 0: evaluated without relaxing
    rattle_a: float = Field(default=0.0, ge=0)  # displacement of the start, for second relaxations

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
    steps: Count
    force_calls: Count
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
