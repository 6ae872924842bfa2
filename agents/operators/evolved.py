"""Mutation and crossover by language model: parents and memories in the prompt, a crystal back.

A model that follows instructions sees one or two of the best structures so far and writes another
(as in MatLLMSearch, arXiv:2502.20933), with successes and failures of earlier cycles (as in LLEMA,
arXiv:2510.22503). Where the prompt exceeds the model's context, these memories are left out,
failures before successes; parents that are too long on their own are counted and skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count

from hullward.agents.language import ModelEndpoint, Question
from hullward.agents.operators.prompted import too_long
from hullward.agents.planning import Evidence, read_evidence
from hullward.agents.workspace import Workspace
from hullward.tools.crystal.text import write_cell_text
from hullward.tools.records import Plan, Wish

ROUNDS = 50  # turns through the parents: more children than any cycle needs

SYSTEM = (
    "You design inorganic crystals that lie low above the convex hull of formation energies. "
    "You answer with one crystal and nothing else, in this form: a line with the lengths a b c in "
    "angstrom with one decimal; a line with the angles alpha beta gamma in whole degrees; then for "
    "every atom of the cell a line with its element and a line with its three fractional "
    "coordinates with two decimals. Numbers are separated by single spaces. No words, no units."
)
CHANGES = (
    "Move atoms to other sites, or change the shape of the cell, and keep the formula.",
    "Replace one element by another that takes the same charge, and adapt the cell to its size.",
    "Change how many atoms of each element there are, keeping the charges balanced.",
)


@dataclass(frozen=True, kw_only=True)
class ParentCandidate:
    """A parent as the prompt shows it."""

    parent_id: str
    formula: str
    text: str


def ask_mutation(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """Each parent in turn, with each kind of change in turn."""
    evidence = _evidence(workspace, plan)
    parents = shown_parents(workspace, plan)
    for turn in range(ROUNDS * len(parents)):
        parent = parents[turn % len(parents)]
        change = CHANGES[(turn // len(parents) + turn) % len(CHANGES)]
        task = f"Write a changed crystal that could lie lower.\n{change}"
        yield _question(workspace, endpoint, (parent,), task, evidence)


def ask_crossover(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """Two parents of different formula or structure, the lowest pairs first."""
    evidence = _evidence(workspace, plan)
    pairs = list(combinations(shown_parents(workspace, plan), 2))
    pairs.sort(key=lambda pair: pair[0].formula == pair[1].formula)  # stable: unlike ones first
    task = (
        "Write one new crystal that combines them: the framework of one with the elements, "
        "proportions or site pattern of the other."
    )
    for _ in range(ROUNDS if pairs else 0):
        for pair in pairs:
            yield _question(workspace, endpoint, pair, task, evidence)


def shown_parents(workspace: Workspace, plan: Plan) -> list[ParentCandidate]:
    """The plan's parents that fit the campaign and the text form, in its order."""
    found = []
    for parent_id in plan.parents:
        crystal = workspace.parent(parent_id)
        if crystal is None or crystal.n_atoms > workspace.campaign.max_atoms:
            continue
        try:
            text = write_cell_text(crystal)
        except ValueError:  # the text form cannot hold it
            continue
        found.append(ParentCandidate(parent_id=parent_id, formula=crystal.formula, text=text))
    return found


def _evidence(workspace: Workspace, plan: Plan) -> Evidence:
    return read_evidence(workspace.store, plan.cycle, workspace.campaign.metastable_ev_per_atom)


def _question(
    workspace: Workspace,
    endpoint: ModelEndpoint,
    parents: Sequence[ParentCandidate],
    task: str,
    evidence: Evidence,
) -> Question:
    """The prompt with as many memories as fit."""
    memories = [("+", s) for s in evidence.successes] + [("-", f) for f in evidence.failures]
    campaign = workspace.campaign
    elements = sorted({e for palette in campaign.palettes for e in palette})
    limits = Wish(allowed=tuple(elements), max_atoms=campaign.max_atoms)
    constraint, words = endpoint.constrain(limits)
    question = Question(
        prompt="",
        role=endpoint.role,
        system=SYSTEM,
        constraint=constraint,
        constraint_words=words,
        parents=tuple(p.parent_id for p in parents),
    )
    for left_out in count():
        kept = memories[: len(memories) - left_out]
        prompt = _prompt(workspace, parents, task, kept)
        question = replace(question, prompt=prompt, memories=len(kept), memories_left_out=left_out)
        if endpoint.room_for(SYSTEM, prompt):
            return question
        if not kept:
            return too_long(question, endpoint)
    raise AssertionError("unreachable: the last turn has no memories left")


def _prompt(
    workspace: Workspace,
    parents: Sequence[ParentCandidate],
    task: str,
    memories: Sequence[tuple[str, str]],
) -> str:
    campaign = workspace.campaign
    palettes = " or ".join(", ".join(palette) for palette in campaign.palettes)
    lines = [
        f"Use only these elements: {palettes}. At most {campaign.max_atoms} atoms in the cell.",
    ]
    if campaign.oxidation_states:
        states = "; ".join(
            f"{symbol} {', '.join(f'{n:+d}' for n in allowed)}"
            for symbol, allowed in sorted(campaign.oxidation_states.items())
        )
        lines.append(f"Oxidation states: {states}.")
    for sign, heading in (("+", "Near the hull so far:"), ("-", "What did not work:")):
        if texts := [text for kind, text in memories if kind == sign]:
            lines += [heading, *(f"- {text}" for text in texts)]
    for number, parent in enumerate(parents, start=1):
        name = f"Crystal {number}" if len(parents) > 1 else "A crystal"
        lines += [f"{name}, {parent.formula}:", parent.text]
    return "\n".join([*lines, task, "The new crystal:"]) + "\n"
