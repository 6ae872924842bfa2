"""Records of a campaign as a whole: settings, basis of verdicts, plans, ends of runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hullward.tools.records.base import Record
from hullward.tools.records.candidates import Protocol


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
