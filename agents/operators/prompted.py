"""Operators whose questions use the prompts that crystal models are trained on.

Each builder yields questions in order of preference. They depend on the plan and the records of
earlier cycles only, so a cycle carried out twice asks the same twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

from hullward.agents.language import ModelEndpoint, Question
from hullward.agents.workspace import Workspace
from hullward.models.language import Constraint, crystal_prompt, flat_formula, infill_prompt
from hullward.tools.crystal.text import can_hold, write_cell_text
from hullward.tools.records import Plan, Wish

ON_THE_HULL_EV_PER_ATOM = 0.0  # the height that `e_hull` wishes
# Where a plan names no space groups: those of its parents, then the commonest among the oxides,
# halides, sulfides and intermetallics of the Materials Project.
COMMON_SPACE_GROUPS = (225, 62, 14, 2, 221, 166, 139, 12, 194, 227, 15, 148, 63, 123, 164, 216)


def ask_de_novo(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """Any crystal; a grammar, where one is sent, keeps to the campaign's elements."""
    for palette in cycle(workspace.campaign.palettes):
        yield _question(workspace, endpoint, Wish(allowed=palette))


def ask_elements(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """A crystal of the elements of each target system in turn."""
    for system in cycle(workspace.campaign.target_systems):
        yield _question(workspace, endpoint, Wish(elements=tuple(system.split("-"))))


def ask_formula(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """A crystal of each formula of the plan in turn, the most promising first."""
    for formula in cycle(plan.formulas):
        yield _question(workspace, endpoint, Wish(formula=formula))


def ask_e_hull(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """A crystal of each formula in turn, on the hull."""
    for formula in cycle(plan.formulas):
        wish = Wish(formula=formula, e_above_hull_ev_per_atom=ON_THE_HULL_EV_PER_ATOM)
        yield _question(workspace, endpoint, wish)


def ask_space_group(
    workspace: Workspace, plan: Plan, endpoint: ModelEndpoint
) -> Iterator[Question]:
    """A crystal of a formula in a space group: each turn the next group with the next formula.

    A group whose positions cannot hold the formula is skipped.
    """
    groups = _space_groups(workspace, plan)
    formulas = plan.formulas
    pairs = math.lcm(len(groups), len(formulas)) if formulas else 0
    turns = ((groups[i % len(groups)], formulas[i % len(formulas)]) for i in range(pairs))
    possible = ((g, f) for g, f in turns if can_hold(g, f, workspace.campaign.max_atoms))
    for group, formula in cycle(possible):
        yield _question(workspace, endpoint, Wish(formula=formula, space_group=group))


def ask_infill(workspace: Workspace, plan: Plan, endpoint: ModelEndpoint) -> Iterator[Question]:
    """An element to replace one of a parent's elements; the answer is its symbol."""
    allowed = sorted({e for palette in workspace.campaign.palettes for e in palette})
    for parent_id in plan.parents:
        parent = workspace.parent(parent_id)
        if parent is None or parent.n_atoms > workspace.campaign.max_atoms:
            continue
        try:
            text = write_cell_text(parent)
        except ValueError:  # the text form cannot hold it
            continue
        for element in sorted(set(parent.species)):
            prompt = infill_prompt(text, element)
            others = [e for e in allowed if e not in parent.species]
            choices = others or [e for e in allowed if e != element]
            yield _fitted(
                endpoint,
                Question(
                    prompt=prompt,
                    role=endpoint.role,
                    constraint=Constraint.regex(f"({'|'.join(choices)})") if choices else None,
                    constraint_words=f"one of {', '.join(choices)}",
                    parents=(parent_id,),
                    wish=Wish(masked=element),
                ),
            )


def _question(workspace: Workspace, endpoint: ModelEndpoint, wish: Wish) -> Question:
    """The question for a wish: a prompt as in training, and the matching constraint."""
    wish = wish.model_copy(update={"max_atoms": workspace.campaign.max_atoms})
    formula = wish.formula
    prompt = crystal_prompt(
        formula=flat_formula(formula) if formula and endpoint.flat_formulas else formula,
        elements=wish.elements,
        e_above_hull_ev_per_atom=wish.e_above_hull_ev_per_atom,
        space_group=wish.space_group,
        form=endpoint.text_form,
    )
    constraint, words = endpoint.constrain(wish)
    return _fitted(
        endpoint,
        Question(
            prompt=prompt,
            role=endpoint.role,
            constraint=constraint,
            constraint_words=words,
            target_formula=formula,
            wish=wish,
        ),
    )


def _fitted(endpoint: ModelEndpoint, question: Question) -> Question:
    """The question, marked where it does not fit the model's context."""
    if endpoint.room_for(question.system, question.prompt):
        return question
    return too_long(question, endpoint)


def too_long(question: Question, endpoint: ModelEndpoint) -> Question:
    """The question, marked to be counted and not sent."""
    why = (
        f"prompt of {len(question.prompt)} characters and {endpoint.sampling.max_tokens} tokens of "
        f"answer exceed the context of {endpoint.context_tokens} tokens"
    )
    return replace(question, too_long=why)


def _space_groups(workspace: Workspace, plan: Plan) -> list[int]:
    """The space groups of the plan, else those of its parents and then the commonest."""
    if plan.space_groups:
        return list(plan.space_groups)
    from hullward.tools.crystal import space_group

    parents = [workspace.parent(parent_id) for parent_id in plan.parents]
    own = [space_group(p, 0.1) for p in parents if p is not None]
    known = [g for g in own if g is not None and g > 1]
    return list(dict.fromkeys([*known, *COMMON_SPACE_GROUPS]))
