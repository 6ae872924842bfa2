"""Structures written by a language model, asked in the words that crystal models are trained on.

Each builder yields questions in order of preference. They depend on the plan and on what is stored
of earlier cycles, so a cycle carried out twice asks the same twice.
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

ON_THE_HULL_EV_PER_ATOM = 0.0  # what the operator `e_hull` asks for
# Where a plan names no space groups: those of its parents, then the commonest among the oxides,
# halides, sulfides and intermetallics of the Materials Project.
COMMON_SPACE_GROUPS = (225, 62, 14, 2, 221, 166, 139, 12, 194, 227, 15, 148, 63, 123, 164, 216)


def ask_de_novo(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """Any crystal of the campaign's elements: where a grammar is sent, it keeps to them."""
    for palette in cycle(bench.campaign.palettes):
        yield _ask(bench, voice, Wish(allowed=palette))


def ask_elements(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """A crystal of these elements, one target system after the other."""
    for system in cycle(bench.campaign.target_systems):
        yield _ask(bench, voice, Wish(elements=tuple(system.split("-"))))


def ask_formula(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """A crystal of the plan's formulas, the most promising first."""
    for formula in cycle(plan.formulas):
        yield _ask(bench, voice, Wish(formula=formula))


def ask_e_hull(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """A crystal of a formula, said to lie on the hull."""
    for formula in cycle(plan.formulas):
        wish = Wish(formula=formula, e_above_hull_ev_per_atom=ON_THE_HULL_EV_PER_ATOM)
        yield _ask(bench, voice, wish)


def ask_space_group(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """A crystal of a formula in a space group: each turn the next group with the next formula.

    A group whose positions cannot hold the formula is passed over.
    """
    groups = _space_groups(bench, plan)
    formulas = plan.formulas
    pairs = math.lcm(len(groups), len(formulas)) if formulas else 0
    turns = [(groups[i % len(groups)], formulas[i % len(formulas)]) for i in range(pairs)]
    possible = [(g, f) for g, f in turns if can_hold(g, f, bench.campaign.max_atoms)]
    for group, formula in cycle(possible):
        yield _ask(bench, voice, Wish(formula=formula, space_group=group))


def ask_infill(bench: Workspace, plan: Plan, voice: ModelEndpoint) -> Iterator[Question]:
    """Which element could stand where one of a parent's stands; the answer is that element."""
    allowed = sorted({e for palette in bench.campaign.palettes for e in palette})
    for parent_id in plan.parents:
        parent = bench.parent(parent_id)
        if parent is None or parent.n_atoms > bench.campaign.max_atoms:
            continue
        try:
            text = write_cell_text(parent)
        except ValueError:  # what the text form cannot hold cannot be asked about
            continue
        for element in sorted(set(parent.species)):
            prompt = infill_prompt(text, element)
            others = [e for e in allowed if e not in parent.species]
            choices = others or [e for e in allowed if e != element]
            yield _fitted(
                voice,
                Question(
                    prompt=prompt,
                    role=voice.role,
                    constraint=Constraint.regex(f"({'|'.join(choices)})") if choices else None,
                    constraint_words=f"one of {', '.join(choices)}",
                    parents=(parent_id,),
                    wish=Wish(masked=element),
                ),
            )


def _ask(bench: Workspace, voice: ModelEndpoint, wish: Wish) -> Question:
    """A question in the training's words, with the constraint that says the same."""
    wish = wish.model_copy(update={"max_atoms": bench.campaign.max_atoms})
    formula = wish.formula
    prompt = crystal_prompt(
        formula=flat_formula(formula) if formula and voice.flat_formulas else formula,
        elements=wish.elements,
        e_above_hull_ev_per_atom=wish.e_above_hull_ev_per_atom,
        space_group=wish.space_group,
        form=voice.text_form,
    )
    constraint, words = voice.constrain(wish)
    return _fitted(
        voice,
        Question(
            prompt=prompt,
            role=voice.role,
            constraint=constraint,
            constraint_words=words,
            target_formula=formula,
            wish=wish,
        ),
    )


def _fitted(voice: ModelEndpoint, ask: Question) -> Question:
    """The question, marked where it does not fit the model's context."""
    if voice.room_for(ask.system, ask.prompt):
        return ask
    return too_long(ask, voice)


def too_long(ask: Question, voice: ModelEndpoint) -> Question:
    """The question as one that is counted and not sent."""
    why = (
        f"prompt of {len(ask.prompt)} characters and {voice.sampling.max_tokens} tokens of answer "
        f"exceed the context of {voice.context_tokens} tokens"
    )
    return replace(ask, too_long=why)


def _space_groups(bench: Workspace, plan: Plan) -> list[int]:
    """Those the plan names, else those of its parents and then the commonest."""
    if plan.space_groups:
        return list(plan.space_groups)
    from hullward.tools.crystal import space_group

    parents = [bench.parent(parent_id) for parent_id in plan.parents]
    own = [space_group(p, 0.1) for p in parents if p is not None]
    known = [g for g in own if g is not None and g > 1]
    return list(dict.fromkeys([*known, *COMMON_SPACE_GROUPS]))
