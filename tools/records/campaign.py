"""Records of a campaign as a whole: settings, basis of verdicts, plans, ends of runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hullward.tools.records.base import Count, Record
from hullward.tools.records.candidates import Protocol


class OperatorOutcome(Record):
    """The results of one operator when a plan was made."""

    operator: str
    proposed: Count
    judged: Count
    rewarded: Count  # novel, covered, not suspect, within the metastable threshold
    force_calls: Count


class Plan(Record):
    """What one cycle will propose, and why."""

    plan_id: str
    campaign_id: str
    cycle: int
    quotas: dict[str, Count]  # proposals requested from each operator
    parents: tuple[str, ...]  # candidate ids, best first
    formulas: tuple[str, ...]  # target formulas for the operators that take one, the first of all
    outcomes: tuple[OperatorOutcome, ...]  # the results behind the plan
    results_up_to_cycle: int  # the fixed lag; -1: nothing yet
    reasons: tuple[str, ...]
    made_by: str = "rules"  # or a language model
    brief: str | None = None  # text for the planner
    space_groups: tuple[int, ...] = ()  # for models that take one, in turn; empty: known ones
    dropped: dict[str, Count] = Field(default_factory=dict)  # planned beyond the limits
    formulas_ranked: Count | None = None  # how many were put in order; None: all are in `formulas`
    formulas_digest: str = ""  # of all of them in their order
    formula_reasons: dict[str, str] = Field(default_factory=dict)  # of the first formulas


class CampaignRecord(Record):
    """The owner of a directory: one campaign, or one screening of a file."""

    campaign_id: str
    kind: Literal["campaign", "screen"]
    name: str
    seed: int
    settings: dict[str, Any]  # resolved, as run
    versions: dict[str, str]  # packages, code, and the device of the first run


class BudgetRaise(Record):
    """A budget that replaces the one a campaign began with, or the last such."""

    campaign_id: str
    number: int  # 0 for the first
    budget: dict[str, Any]  # as in the settings


class Basis(Record):
    """The basis of the current verdicts. The latest one wins; earlier verdicts stay."""

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
    """Another reference whose heights are shown beside the basis' own; it affects no verdict."""

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
    proposed: Count
    judged: Count
    force_calls: Count


class RunTime(Record):
    """How long a run lasted, or has lasted so far; stored only where a budget limits hours."""

    campaign_id: str
    number: int  # 0 for the first run in the directory; a run that was killed has its own
    wall_s: float


class RunEnd(Record):
    """Why a run stopped."""

    campaign_id: str
    number: int  # 0 for the first run in the directory
    reason: Literal["finished", "budget", "stopped", "interrupted", "breaker", "failed"]
    detail: str
    stage_cpu_s: dict[str, float] = Field(default_factory=dict)  # of this run; relax: workers too
