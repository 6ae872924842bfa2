"""The operators in one table: number, name, how proposals are made, and what they need.

An operator constructs crystals or asks a language model; it yields crystals or questions in order
of preference, and every answer is a proposal. Both depend on the plan and the records of earlier
cycles only, so a cycle carried out twice proposes the same twice.

To add an operator: a row with the next number here, and its name in `agents/settings/campaign.py`.
"""

from __future__ import annotations

from collections import Counter
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
from hullward.tools.prototypes import Constructed, perturb, seeded_rng, swap
from hullward.tools.records import ModelRequest, Plan, Proposal, Record, stable_id

SWAPPED_CELL = 24  # atoms up to which a cell is doubled for a swap
LEAST_OF_A_FORMULA = 4  # constructed crystals that a cycle may have of one formula
TRIES_PER_PROPOSAL = 8  # children made for each one kept
FIRST_POSITION = 10  # of a cycle's requests; before it come those of brief and plan
POSITIONS = 100_000  # for each operator within a cycle
ASKED_AT_ONCE = (32, 1024)  # constructed crystals looked up together: at first, and at most

Need = Literal["formulas", "a parent", "two parents", "a crystal model", "instructions followed"]
Construct = Callable[[Workspace, Plan], Iterator[Constructed]]
Ask = Callable[[Workspace, Plan, ModelEndpoint], Iterator[Question]]


def _substitution(workspace: Workspace, plan: Plan) -> Iterator[Constructed]:
    return workspace.substitution.propose(plan.formulas)


def _perturbation(workspace: Workspace, plan: Plan) -> Iterator[Constructed]:
    return _perturbed(workspace, plan, phases=workspace.campaign.perturbs_phases)


def _perturbed(workspace: Workspace, plan: Plan, *, phases: bool) -> Iterator[Constructed]:
    """Perturbed parents; phases: those of the reference as well, though they would come back."""
    for number, (parent_id, parent) in enumerate(_parents_in_turn(workspace, plan)):
        small = parent.n_atoms <= workspace.campaign.max_atoms
        if small and (phases or not workspace.is_phase(parent_id)):
            rng = seeded_rng(workspace.campaign.seed, plan.cycle, "perturbation", parent_id, number)
            yield perturb(parent_id, parent, rng)


def _swap(workspace: Workspace, plan: Plan) -> Iterator[Constructed]:
    most = min(workspace.campaign.max_atoms, SWAPPED_CELL)
    for number, (parent_id, parent) in enumerate(_parents_in_turn(workspace, plan)):
        rng = seeded_rng(workspace.campaign.seed, plan.cycle, "swap", parent_id, number)
        child = swap(parent_id, parent, rng, max_atoms=most)
        if child is not None:
            yield child


@dataclass(frozen=True)
class Operator:
    """A way to make proposals: exactly one of `constructs` and `asks`."""

    number: int  # enters request ids and seeds: never changed, never used again
    name: str
    constructs: Construct | None
    asks: Ask | None
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
    workspace: Workspace,
    plan: Plan,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[Record]:
    """All proposals of one cycle, with the rejections of answers without a structure.

    Constructed crystals are new to the campaign; every answer of a model counts. Where there would
    be none at all, because no model answers for example, known phases are perturbed. Ends early
    when `stopping()` is true; carried out again, it continues there.
    """
    ask_models(workspace, plan, stopping, progress)
    constructing = _Constructing(workspace, plan)
    found: list[Record] = []
    wanted = 0
    for name, quota in plan.quotas.items():
        operator = OPERATORS[name]
        if operator.constructs is not None:
            constructing.add(name, operator.constructs(workspace, plan), quota)
            wanted += quota
        else:
            found += proposals_of(
                workspace, [record for record, _, _ in requests_for(workspace, plan, name)]
            )
    # what one operator cannot use goes to the others, last to the one that repeats most
    for name in sorted(constructing.streams, key=lambda name: name == "perturbation"):
        constructing.fill(name, wanted)
    if not found and not constructing.proposals and "perturbation" in plan.quotas:
        phases = _perturbed(workspace, plan, phases=True)
        constructing.add("perturbation", phases, 0 if stopping() else sum(plan.quotas.values()))
    return [*found, *constructing.proposals.values()]


class _Constructing:
    """What operators construct for one cycle: distinct crystals, few of one formula.

    Proposals of the cycle that are stored already, as after a kill, stay as they are and count,
    whatever would be constructed today.
    """

    def __init__(self, workspace: Workspace, plan: Plan) -> None:
        self.streams: dict[str, Iterator[Proposal]] = {}
        self.proposals: dict[str, Proposal] = {  # by id
            proposal.proposal_id: proposal
            for proposal in workspace.store.load(Proposal, [plan.plan_id], by="plan_id")
            if OPERATORS[proposal.operator].constructs is not None
        }
        self._workspace, self._plan = workspace, plan
        self._taken: set[str] = set()
        self._of_formula: Counter[str] = Counter()

    def add(self, name: str, built: Iterator[Constructed], count: int) -> None:
        """Add so many proposals of an operator; `fill` takes further ones."""
        fresh = _fresh(self._workspace, self._plan, built, self._taken)
        spread = _spread(fresh, self._of_formula, _most_of_a_formula(self._plan))
        self.streams[name] = (
            _proposal(self._workspace, self._plan, name, index, one)
            for index, one in enumerate(spread)
        )
        for proposal in islice(self.streams[name], count):
            self.proposals.setdefault(proposal.proposal_id, proposal)

    def fill(self, name: str, total: int) -> None:
        """Add further proposals of an operator until there are `total` of all."""
        while len(self.proposals) < total and (more := next(self.streams[name], None)) is not None:
            self.proposals.setdefault(more.proposal_id, more)


def _most_of_a_formula(plan: Plan) -> int:
    """How many crystals of one formula a cycle may construct."""
    total, formulas = sum(plan.quotas.values()), max(1, len(plan.formulas))
    return max(LEAST_OF_A_FORMULA, 2 * -(-total // formulas))


def _spread(
    built: Iterator[Constructed], of_formula: Counter[str], most: int
) -> Iterator[Constructed]:
    """Those of formulas that the cycle has few of; of_formula counts them and is added to."""
    for one in built:
        formula = one.target_formula or one.crystal.formula
        if of_formula[formula] < most:
            of_formula[formula] += 1
            yield one


def ask_models(
    workspace: Workspace,
    plan: Plan,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> None:
    """Send the questions of the plan's operators and store every answer."""
    for name in OPERATORS:  # in the order of their numbers, whatever order the plan has
        endpoint = _endpoint(workspace, OPERATORS[name]) if name in plan.quotas else None
        if endpoint is not None:
            asked = requests_for(workspace, plan, name)
            complete_requests(
                workspace.store, endpoint, asked, stopping, partial(progress, f"ask {name}")
            )


def requests_for(
    workspace: Workspace, plan: Plan, name: str
) -> list[tuple[ModelRequest, Request, Question]]:
    """The requests of one operator in order, enough for its quota.

    A question that exceeds the model's context is among them but is never sent, and does not count
    for the quota.
    """
    operator = OPERATORS[name]
    endpoint = _endpoint(workspace, operator)
    if operator.asks is None or endpoint is None:
        return []
    left, asked = plan.quotas[name], []
    start = FIRST_POSITION + POSITIONS * operator.number
    limit = start + 2 * left + len(plan.parents) ** 2  # where every parent is too long
    asks = operator.asks(workspace, plan, endpoint) if left else iter(())
    for position, question in enumerate(asks, start):
        if left <= 0 or position >= limit:
            break
        samples = min(endpoint.samples, left)
        slot = RequestSlot(
            campaign_id=plan.campaign_id,
            cycle=plan.cycle,
            position=position,
            purpose=name,
            seed=workspace.campaign.seed,
            plan_id=plan.plan_id,
        )
        record, request = request_of(slot, endpoint, question, samples)
        asked.append((record, request, question))
        left -= 0 if question.too_long else samples
    return asked


def _endpoint(workspace: Workspace, operator: Operator) -> ModelEndpoint | None:
    """The model that an operator asks; None for one that asks no model."""
    if operator.asks is None:
        return None
    if "instructions followed" in operator.needs and workspace.campaign.variation_model == "chat":
        return workspace.endpoints.variation_model
    return workspace.endpoints.crystal


def _fresh(
    workspace: Workspace, plan: Plan, built: Iterator[Constructed], taken: set[str]
) -> Iterator[Constructed]:
    """Those that neither an earlier cycle nor this one (`taken`, added to) has proposed."""
    at_once, most = ASKED_AT_ONCE
    while some := list(islice(built, at_once)):
        at_once = min(2 * at_once, most)  # what comes first has often been proposed long ago
        ids = {one.crystal.content_id for one in some}
        taken |= workspace.proposed_content(ids, before_cycle=plan.cycle)
        for one in some:
            if one.crystal.content_id not in taken:
                taken.add(one.crystal.content_id)
                yield one


def _proposal(
    workspace: Workspace, plan: Plan, operator: str, index: int, built: Constructed
) -> Proposal:
    seed = workspace.campaign.seed
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


def _parents_in_turn(workspace: Workspace, plan: Plan) -> Iterator[tuple[str, Crystal]]:
    """Every parent in turn, again and again, up to the most children a cycle may need."""
    rounds = TRIES_PER_PROPOSAL * max(plan.quotas.values())
    parents = [(i, crystal) for i in plan.parents if (crystal := workspace.parent(i)) is not None]
    for _ in range(rounds if parents else 0):
        yield from parents
