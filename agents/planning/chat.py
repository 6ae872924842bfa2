"""Brief and plan by a chat model: answered through a schema, held to the campaign's limits.

The prompt holds the goal, the limits, the outcomes of every operator and the results near the hull,
all with the ledger's fixed lag; it holds nothing from papers yet. The plan is checked: elements,
size of the cell, charge balance, operators, sum of quotas. What is outside the limits is dropped
and counted; the rules fill in what is left open. After an unusable answer the model is asked once
more, with the error in the prompt; after a second one the rules plan and the plan gives the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hullward.agents.language import (
    ModelEndpoint,
    Question,
    RequestSlot,
    complete_requests,
    request_of,
)
from hullward.agents.planning.evidence import Evidence, read_evidence
from hullward.agents.planning.ledger import Outcomes
from hullward.agents.settings import Campaign
from hullward.agents.workspace import Workspace
from hullward.models.errors import InputError, first_problem
from hullward.models.formulas import reduced_spelling
from hullward.models.language import Constraint, read_json
from hullward.tools.crystal import shorten
from hullward.tools.records import ModelAnswer, ModelFailure, Plan, stable_id

MOST_FORMULAS = 24
TRIES = 2  # the second with the error of the first
UNUSABLE = ("unfit", "truncated", "empty", "repetition")  # kinds of failure worth a second try
BRIEF_AT, PLAN_AT = 0, TRIES  # positions within a cycle's requests

SYSTEM = (
    "You plan a search for inorganic crystals on or near the convex hull of formation energies. "
    "You know only what you are told here. You answer with one JSON object and nothing else."
)


Formula = Annotated[str, Field(max_length=24)]


# Docstrings and descriptions of the next three classes are part of the schema the model gets.


class BriefAnswer(BaseModel):
    """What a brief says."""

    model_config = ConfigDict(extra="forbid")

    summary: str = Field(max_length=600, description="what the results so far teach, in brief")
    promising: list[Formula] = Field(max_length=MOST_FORMULAS, description="formulas to pursue")
    avoid: list[Formula] = Field(max_length=MOST_FORMULAS, description="formulas to leave alone")


class OperatorShare(BaseModel):
    """Proposals of one operator."""

    model_config = ConfigDict(extra="forbid")

    operator: str = Field(max_length=24)
    proposals: int = Field(ge=0)


class PlanAnswer(BaseModel):
    """What a plan says."""

    model_config = ConfigDict(extra="forbid")

    formulas: list[Formula] = Field(
        max_length=MOST_FORMULAS, description="reduced formulas to aim at, best first"
    )
    quotas: list[OperatorShare] = Field(max_length=32, description="proposals of every operator")
    space_groups: list[int] = Field(max_length=MOST_FORMULAS, description="numbers from 1 to 230")
    reason: str = Field(max_length=400, description="why, in a sentence or two")


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What the chat model concludes from the results; `dropped` counts formulas left out."""

    text: str
    dropped: int = 0


A = TypeVar("A", bound=BaseModel)


def make_brief(workspace: Workspace, cycle: int, outcomes: Outcomes) -> Brief | None:
    """The brief of the chat model; None without such a model or without results."""
    endpoint = workspace.endpoints.chat
    if endpoint is None or outcomes.up_to_cycle < 0:
        return None
    prompt = "\n".join(
        [*_situation(workspace, outcomes, cycle), "Write the brief for the next plan."]
    )
    answer, _ = _ask(workspace, endpoint, cycle, "brief", BRIEF_AT, prompt, BriefAnswer)
    if answer is None:
        return None
    fates: Counter[str] = Counter()
    promising = _usable(workspace.campaign, answer.promising, fates)
    avoid = _usable(workspace.campaign, answer.avoid, fates)
    lines = [" ".join(answer.summary.split())]
    if promising:
        lines.append(f"Promising: {', '.join(promising)}.")
    if avoid:
        lines.append(f"Not worth more tries: {', '.join(avoid)}.")
    return Brief(text="\n".join(lines), dropped=fates.total())


def plan_by_chat(
    workspace: Workspace, rules: Plan, outcomes: Outcomes, brief: Brief | None
) -> Plan:
    """The plan of the chat model within the limits, completed by the plan of the rules.

    Without a chat model the plan of the rules; where the model fails, that plan with the reason.
    """
    endpoint = workspace.endpoints.chat
    if endpoint is None:
        return rules
    n_proposals = workspace.campaign.budget.proposals_per_cycle
    prompt = "\n".join(
        [
            *_situation(workspace, outcomes, rules.cycle),
            *(["Brief:", brief.text] if brief else []),
            f"Plan the next {n_proposals} proposals: formulas to aim at, how many proposals of "
            "each operator (they sum to that number), and space groups where they help.",
        ]
    )
    answer, why = _ask(workspace, endpoint, rules.cycle, "plan", PLAN_AT, prompt, PlanAnswer)
    if answer is None:
        failed = (
            f"The chat model {endpoint.label} gave no usable plan ({why}): planned by the rules."
        )
        return rules.model_copy(update={"reasons": (failed, *rules.reasons)})
    return _merged(workspace.campaign, rules, answer, endpoint, brief)


def _merged(
    campaign: Campaign,
    rules: Plan,
    answer: PlanAnswer,
    endpoint: ModelEndpoint,
    brief: Brief | None,
) -> Plan:
    """The model's plan within the limits, completed by the rules' plan."""
    fates: Counter[str] = Counter()
    formulas = _usable(campaign, answer.formulas, fates)
    groups = tuple(dict.fromkeys(g for g in answer.space_groups if 1 <= g <= 230))
    fates["space_group"] += sum(not 1 <= g <= 230 for g in answer.space_groups)
    quotas = _quotas(campaign, answer, fates)
    dropped = {what: n for what, n in sorted(fates.items()) if n}
    if brief and brief.dropped:
        dropped["brief"] = brief.dropped
    ordered = (*formulas, *(f for f in rules.formulas if f not in formulas))
    split = ", ".join(f"{n} {name}" for name, n in (quotas or rules.quotas).items())
    reasons = [f"Planned by {endpoint.label}: {' '.join(answer.reason.split())}"]
    if dropped:
        counts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in dropped.items())
        reasons.append(f"Dropped as out of limits: {counts}.")
    if quotas is None:
        reasons.append("The quotas are those of the rules.")
    reasons += [
        f"Proposals: {split}.",
        f"Formulas first tried: {', '.join(ordered[:5]) or 'none'}; {len(rules.parents)} parents.",
    ]
    fields = {
        "quotas": quotas or rules.quotas,
        "formulas": ordered,
        "space_groups": groups,
        "made_by": endpoint.label,
        "brief": brief.text if brief else None,
        "dropped": dropped,
        "reasons": tuple(reasons),
        "formula_reasons": {
            formula: rules.formula_reasons.get(formula, f"named by {endpoint.label}")
            for formula in ordered[: len(rules.formula_reasons)]
        },
    }
    changed = rules.model_copy(update=fields)
    content = [rules.plan_id, changed.quotas, changed.formulas, groups, endpoint.label]
    return changed.model_copy(update={"plan_id": stable_id("plan", *content)})


def _usable(campaign: Campaign, formulas: Sequence[str], fates: Counter[str]) -> tuple[str, ...]:
    """The formulas within the campaign's limits, reduced, each once; `fates` counts the others."""
    found: dict[str, None] = {}
    for text in formulas:
        formula, flaw = checked_formula(campaign, text)
        if flaw:
            fates[flaw] += 1
        else:
            found[formula] = None
    return tuple(found)


def checked_formula(campaign: Campaign, text: str) -> tuple[str, str]:
    """(reduced formula, '') or ('', why it lies outside the campaign's limits)."""
    from hullward.tools.crystal import charge_balance, parse_formula

    try:
        amounts = parse_formula(text)
    except InputError:
        return "", "unreadable"
    homes = [palette for palette in campaign.palettes if amounts.keys() <= set(palette)]
    if not homes:
        return "", "elements"
    sizes = [campaign.sizes(palette) for palette in homes]
    if not any(fewest <= len(amounts) <= most for fewest, most in sizes):
        return "", "number_of_elements"
    if sum(amounts.values()) > campaign.max_atoms:
        return "", "too_large"
    if charge_balance(amounts, campaign.oxidation_states or None).balanced is False:
        return "", "charges"
    return reduced_spelling(amounts), ""


def _quotas(campaign: Campaign, answer: PlanAnswer, fates: Counter[str]) -> dict[str, int] | None:
    """The model's quotas; None where they do not sum to the campaign's budget."""
    asked: Counter[str] = Counter()
    for share in answer.quotas:
        if share.operator in campaign.operators:
            asked[share.operator] += share.proposals
        else:
            fates["operator"] += 1
    if asked.total() != campaign.budget.proposals_per_cycle:
        fates["quotas"] += 1
        return None
    return {name: asked[name] for name in campaign.operators}


def _situation(workspace: Workspace, outcomes: Outcomes, cycle: int) -> list[str]:
    """Goal, limits and results, as lines of a prompt."""
    campaign = workspace.campaign
    palettes = " or ".join(", ".join(palette) for palette in campaign.palettes)
    states = "; ".join(
        f"{symbol} {', '.join(f'{n:+d}' for n in allowed)}"
        for symbol, allowed in sorted(campaign.oxidation_states.items())
    )
    lines = [
        f"Goal: {' '.join(campaign.goal.split()) or 'novel phases on or near the hull'}",
        f"Elements: {palettes}; {campaign.fewest_elements} to {campaign.most_elements} of them in "
        f"a formula; at most {campaign.max_atoms} atoms in a cell.",
        *([f"Oxidation states: {states}."] if states else []),
        f"Operators: {', '.join(campaign.operators)}.",
    ]
    if outcomes.up_to_cycle < 0:
        return [*lines, "There are no results yet."]
    evidence = read_evidence(workspace.store, cycle, campaign.metastable_ev_per_atom)
    return [*lines, *_results(outcomes, evidence)]


def _results(outcomes: Outcomes, evidence: Evidence) -> list[str]:
    lines = ["Results so far, operator: novel and near the hull of proposed:"]
    lines += [f"- {o.operator}: {o.rewarded} of {o.proposed}" for o in outcomes.operators]
    for heading, found in (
        ("Near the hull:", evidence.successes),
        ("Near misses:", evidence.near_misses),
        ("What did not work:", evidence.failures),
    ):
        if found:
            lines += [heading, *(f"- {line}" for line in found)]
    return lines


def _ask(
    workspace: Workspace,
    endpoint: ModelEndpoint,
    cycle: int,
    purpose: str,
    position: int,
    prompt: str,
    answer: type[A],
) -> tuple[A | None, str]:
    """(the answer, '') or (None, why there is none), after at most one more try."""
    constraint = Constraint.json(answer)
    why = ""
    for turn in range(TRIES):
        again = f"\nYour last answer could not be used: {why}." if turn else ""
        question = Question(
            prompt=prompt + again,
            role="chat",
            system=SYSTEM,
            constraint=constraint,
            constraint_words=f"JSON of {answer.__name__}",
        )
        if not endpoint.room_for(SYSTEM, question.prompt):
            return None, "the prompt exceeds the model's context"
        slot = RequestSlot(
            campaign_id=workspace.campaign.campaign_id,
            cycle=cycle,
            position=position + turn,
            purpose=purpose,
            seed=workspace.campaign.seed,
        )
        record, request = request_of(slot, endpoint, question, 1)
        complete_requests(workspace.store, endpoint, [(record, request, question)])
        if failures := workspace.store.load(ModelFailure, [record.request_id]):
            why = f"{failures[0].kind}: {failures[0].message}"
            if failures[0].kind in UNUSABLE:
                continue
            return None, why
        (reply,) = workspace.store.load(ModelAnswer, [record.request_id])
        try:
            return read_json(answer, reply.text), ""
        except ValidationError as error:
            why = f"{first_problem(error)}; it begins {shorten(reply.text)}"
    return None, why
