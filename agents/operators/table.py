"""The operators: one table of name, how its proposals come about, and what it needs.

Some construct crystals: they take the bench and the plan and yield crystals in order of preference.
Others ask a language model: they yield questions in order of preference, and every answer is a
proposal. Either depends on nothing but the plan and what is stored of earlier cycles, so a cycle
planned twice proposes the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from hullward.agents.language import (
    ModelEndpoint,
    Question,
    RequestSlot,
    complete_requests,
    request_of,
)
from hullward.agents.operators.answers import proposals_of
from hullward.agents.operators.evolved import ask_crossover, ask_mutation
from hullward.agents.operators.prompted import (
    ask_de_novo,
    ask_e_hull,
    ask_elements,
    ask_formula,
    ask_infill,
    ask_space_group,
)
from hullward.agents.workspace import Workspace
from hullward.models.crystal import Crystal
from hullward.models.language import Request
from hullward.tools.prototypes import Constructed, generator, perturb, swap
from hullward.tools.records import ModelRequest, Plan, Proposal, Record, stable_id

TRIES_PER_PROPOSAL = 8  # mutations drawn for each one kept
FIRST_POSITION = 10  # of a cycle's requests; before it come those of brief and plan
POSITIONS = 100_000  # of one operator within a cycle

Need = Literal["formulas", "a parent", "two parents", "a crystal model", "instructions followed"]
Construct = Callable[[Workspace, Plan], Iterator[Constructed]]
Prompts = Callable[[Workspace, Plan, ModelEndpoint], Iterator[Question]]


def _substitution(bench: Workspace, plan: Plan) -> Iterator[Constructed]:
    return bench.substitution.propose(plan.formulas)


def _perturbation(bench: Workspace, plan: Plan) -> Iterator[Constructed]:
    for number, (parent_id, parent) in enumerate(_parents_in_turn(bench, plan)):
        if parent.n_atoms <= bench.campaign.max_atoms:
            rng = generator(bench.campaign.seed, plan.cycle, "perturbation", parent_id, number)
            yield perturb(parent_id, parent, rng)


def _swap(bench: Workspace, plan: Plan) -> Iterator[Constructed]:
    for number, (parent_id, parent) in enumerate(_parents_in_turn(bench, plan)):
        rng = generator(bench.campaign.seed, plan.cycle, "swap", parent_id, number)
        child = swap(parent_id, parent, rng, max_atoms=bench.campaign.max_atoms)
        if child is not None:
            yield child


@dataclass(frozen=True)
class Operator:
    """A way to make proposals: exactly one of `constructs` and `asks`."""

    number: int  # enters request ids and seeds: never changed, never used again
    name: str
    constructs: Construct | None
    asks: Prompts | None
    needs: tuple[Need, ...]


_TABLE: tuple[Operator, ...] = (
    Operator(0, "de_novo", None, ask_de_novo, ("a crystal model",)),
    Operator(1, "elements", None, ask_elements, ("a crystal model",)),
    Operator(2, "formula", None, ask_formula, ("a crystal model", "formulas")),
    Operator(3, "space_group", None, ask_space_group, ("a crystal model", "formulas")),
    Operator(4, "e_hull", None, ask_e_hull, ("a crystal model", "formulas")),
    Operator(5, "infill", None, ask_infill, ("a crystal model", "a parent")),
    Operator(6, "mutation", None, ask_mutation, ("instructions followed", "a parent")),
    Operator(7, "crossover", None, ask_crossover, ("instructions followed", "two parents")),
    Operator(8, "substitution", _substitution, None, ("formulas",)),
    Operator(9, "perturbation", _perturbation, None, ("a parent",)),
    Operator(10, "swap", _swap, None, ("a parent",)),
)
OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in sorted(_TABLE, key=lambda operator: operator.number)
}


def propose(
    bench: Workspace,
    plan: Plan,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[Record]:
    """All proposals of one cycle, with the rejections of answers that hold no structure.

    Every constructed crystal is new to the campaign; what a model writes counts as it comes. May
    end early where the run is to stop: carried out again, it goes on there.
    """
    ask_models(bench, plan, stopping, progress)
    taken = bench.proposed_content(before_cycle=plan.cycle)
    found: list[Record] = []
    for name, quota in plan.quotas.items():
        operator = OPERATORS[name]
        if operator.constructs is not None:
            fresh = _fresh(operator.constructs(bench, plan), taken)
            for index, built in enumerate(islice(fresh, quota)):
                found.append(_proposal(bench, plan, name, index, built))
        else:
            found += proposals_of(bench, [record for record, _, _ in questions(bench, plan, name)])
    return found


def ask_models(
    bench: Workspace,
    plan: Plan,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> None:
    """Send what the plan's operators want to know, and store every answer."""
    for name in OPERATORS:  # in the order of their numbers, whatever order the plan has
        voice = _voice(bench, OPERATORS[name]) if name in plan.quotas else None
        if voice is not None:
            asked = questions(bench, plan, name)
            complete_requests(bench.store, voice, asked, stopping, partial(progress, f"ask {name}"))


def questions(
    bench: Workspace, plan: Plan, name: str
) -> list[tuple[ModelRequest, Request, Question]]:
    """The requests of one operator, enough for its quota, in the order of asking.

    A question that does not fit the model's context stands among them, is never sent, and makes
    room for the next one.
    """
    operator = OPERATORS[name]
    voice = _voice(bench, operator)
    if operator.asks is None or voice is None:
        return []
    left, asked = plan.quotas[name], []
    start = FIRST_POSITION + POSITIONS * operator.number
    limit = start + 2 * left + len(plan.parents) ** 2  # where every parent is too long
    asks = operator.asks(bench, plan, voice) if left else iter(())
    for position, ask in enumerate(asks, start):
        if left <= 0 or position >= limit:
            break
        samples = min(voice.samples, left)
        place = RequestSlot(
            campaign_id=plan.campaign_id,
            cycle=plan.cycle,
            position=position,
            purpose=name,
            seed=bench.campaign.seed,
            plan_id=plan.plan_id,
        )
        record, request = request_of(place, voice, ask, samples)
        asked.append((record, request, ask))
        left -= 0 if ask.too_long else samples
    return asked


def _voice(bench: Workspace, operator: Operator) -> ModelEndpoint | None:
    """Who answers an operator's questions; None for one that asks nobody."""
    if operator.asks is None:
        return None
    if "instructions followed" in operator.needs and bench.campaign.variation_model == "chat":
        return bench.voices.variation_model
    return bench.voices.crystal


def _fresh(built: Iterator[Constructed], taken: set[str]) -> Iterator[Constructed]:
    for one in built:
        if one.crystal.content_id not in taken:
            taken.add(one.crystal.content_id)
            yield one


def _proposal(
    bench: Workspace, plan: Plan, operator: str, index: int, built: Constructed
) -> Proposal:
    seed = bench.campaign.seed
    request_id = stable_id("q", plan.campaign_id, plan.cycle, operator, plan.plan_id, seed)
    return Proposal(
        proposal_id=stable_id("x", request_id, index),
        request_id=request_id,
        campaign_id=plan.campaign_id,
        cycle=plan.cycle,
        index=index,
        operator=operator,
        plan_id=plan.plan_id,
        parents=built.parents,
        sampling={"note": built.note},
        seed=seed,
        raw=built.crystal.model_dump_json(),
        format="crystal_json",
        target_formula=built.target_formula,
    )


def _parents_in_turn(bench: Workspace, plan: Plan) -> Iterator[tuple[str, Crystal]]:
    """Every parent once, then again, while more children may be wanted."""
    rounds = TRIES_PER_PROPOSAL * max(plan.quotas.values())
    parents = [(i, crystal) for i in plan.parents if (crystal := bench.parent(i)) is not None]
    for _ in range(rounds if parents else 0):
        yield from parents
