"""The operators of this campaign: one table from name to constructor.

A constructor takes the bench, the plan, how many are asked for and which crystals exist already,
and returns crystals in order of preference. It depends on nothing else, so a cycle planned twice
proposes the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from hullward.agents.bench import Bench
from hullward.models.crystal import Crystal
from hullward.tools.mutation import Constructed, generator, perturb, swap
from hullward.tools.records import Plan, Proposal, stable_id

TRIES_PER_PROPOSAL = 8  # mutations drawn for each one kept


def _substitution(bench: Bench, plan: Plan) -> Iterator[Constructed]:
    return bench.substitution.propose(plan.formulas)


def _perturbation(bench: Bench, plan: Plan) -> Iterator[Constructed]:
    for number, (parent_id, parent) in enumerate(_parents_in_turn(bench, plan)):
        if parent.n_atoms <= bench.campaign.max_atoms:
            rng = generator(bench.campaign.seed, plan.cycle, "perturbation", parent_id, number)
            yield perturb(parent_id, parent, rng)


def _swap(bench: Bench, plan: Plan) -> Iterator[Constructed]:
    for number, (parent_id, parent) in enumerate(_parents_in_turn(bench, plan)):
        rng = generator(bench.campaign.seed, plan.cycle, "swap", parent_id, number)
        child = swap(parent_id, parent, rng, max_atoms=bench.campaign.max_atoms)
        if child is not None:
            yield child


OPERATORS: dict[str, Callable[[Bench, Plan], Iterator[Constructed]]] = {
    "substitution": _substitution,
    "perturbation": _perturbation,
    "swap": _swap,
}


def propose(bench: Bench, plan: Plan) -> list[Proposal]:
    """All proposals of one cycle, each crystal new to the campaign."""
    taken = bench.proposed_content(before_cycle=plan.cycle)
    proposals: list[Proposal] = []
    for operator, quota in plan.quotas.items():
        fresh = _fresh(OPERATORS[operator](bench, plan), taken)
        for index, built in enumerate(islice(fresh, quota)):
            proposals.append(_proposal(bench, plan, operator, index, built))
    return proposals


def _fresh(built: Iterator[Constructed], taken: set[str]) -> Iterator[Constructed]:
    for one in built:
        if one.crystal.content_id not in taken:
            taken.add(one.crystal.content_id)
            yield one


def _proposal(bench: Bench, plan: Plan, operator: str, index: int, built: Constructed) -> Proposal:
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


def _parents_in_turn(bench: Bench, plan: Plan) -> Iterator[tuple[str, Crystal]]:
    """Every parent once, then again, while more children may be wanted."""
    rounds = TRIES_PER_PROPOSAL * max(plan.quotas.values())
    parents = [(i, crystal) for i in plan.parents if (crystal := bench.parent(i)) is not None]
    for _ in range(rounds if parents else 0):
        yield from parents
