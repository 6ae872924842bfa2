"""The planner: a simple policy that reads stored outcomes. No language model is involved.

Operators share a cycle's proposals in proportion to their expected reward per proposal, a Beta
posterior with prior mean 1/4, and none falls below a floor, so that every operator keeps being
measured. A reward is an unknown candidate within the metastable threshold of a hull that covers it.

Formulas are tried in order of promise: the best height seen so far, or an optimistic guess for a
formula never tried, plus a charge for every try already spent. Parents are the candidates likeliest
to survive DFT where a calibrator gives probabilities, else the lowest, at most two of a formula.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hullward.agents.planning.ledger import MAX_PARENTS, PARENTS_PER_FORMULA, Outcomes
from hullward.agents.settings import BY_PARENT, Campaign
from hullward.tools.records import Plan, stable_id

PRIOR_REWARDS, PRIOR_MISSES = 1.0, 3.0
FLOOR = 0.15  # share of an equal split that no operator falls below
UNTRIED_EV_PER_ATOM = 0.05  # assumed height of a formula never tried
TRY_CHARGE_EV_PER_ATOM = 0.01  # added for every try
PLACE_CHARGE_EV_PER_ATOM = 0.001  # added to a formula without results for every one before it
# Formulas that a plan carries, as many as its operators can use: some have every likely structure
# proposed already.
FORMULAS_PER_PROPOSAL = 4
LEAST_FORMULAS = 300
SHOWN_FORMULAS = 10  # with their reasons


def make_plan(
    campaign: Campaign,
    cycle: int,
    outcomes: Outcomes,
    formulas: Mapping[str, str],
    spare_parents: Sequence[str],
    phases: Sequence[str] = (),
) -> Plan:
    """Decide what one cycle proposes.

    formulas: every formula the campaign may aim at, likeliest first, each with the reason.
    spare_parents: ids of seeds, used while there are few candidates; phases: of reference phases,
    used after them. Known phases are not perturbed: they would return to what they are.
    """
    parents = _parents(outcomes, [*spare_parents, *phases])
    own = set(parents) - (set() if campaign.perturbs_phases else set(phases))
    idle = _idle(campaign.operators, len(parents), bool(own))
    quotas = _quotas(campaign, outcomes, idle)
    ordered = _formulas(tuple(formulas), outcomes)
    reasons = _reasons(outcomes, quotas, ordered, parents)
    if idle:
        reasons += (_without_parents(idle, quotas),)
    content = [campaign.campaign_id, cycle, quotas, parents, ordered, outcomes.up_to_cycle]
    most = max(LEAST_FORMULAS, FORMULAS_PER_PROPOSAL * campaign.budget.proposals_per_cycle)
    return Plan(
        plan_id=stable_id("plan", *content),
        campaign_id=campaign.campaign_id,
        cycle=cycle,
        quotas=quotas,
        parents=parents,
        formulas=ordered[:most],
        formulas_ranked=len(ordered),
        formulas_digest=stable_id("f", *ordered),
        outcomes=outcomes.operators,
        results_up_to_cycle=outcomes.up_to_cycle,
        reasons=reasons,
        formula_reasons={formula: formulas[formula] for formula in ordered[:SHOWN_FORMULAS]},
    )


def _expected_reward(rewarded: int, proposed: int) -> float:
    """Posterior mean of the reward per proposal."""
    return (rewarded + PRIOR_REWARDS) / (proposed + PRIOR_REWARDS + PRIOR_MISSES)


def _idle(operators: Sequence[str], parents: int, own: bool) -> list[str]:
    """The operators that have no parents; own: some may be perturbed."""
    enough = dict.fromkeys(BY_PARENT, parents > 0)
    enough |= {"crossover": parents > 1, "perturbation": own}
    return [name for name in operators if not enough.get(name, True)]


def _without_parents(idle: Sequence[str], quotas: dict[str, int]) -> str:
    names = " and ".join(idle)
    if any(quotas[name] for name in idle):
        return f"No parents yet for {names}, and no other operator: nothing may come of it."
    return f"No parents yet for {names}: the other operators take their share."


def _quotas(campaign: Campaign, outcomes: Outcomes, idle: Sequence[str]) -> dict[str, int]:
    """Proposals for each operator, summing to the cycle's budget (largest remainder).

    idle: operators that can make none; the others take their share.
    """
    total = campaign.budget.proposals_per_cycle
    seen = {o.operator: (o.rewarded, o.proposed) for o in outcomes.operators}
    able = [name for name in campaign.operators if name not in idle] or campaign.operators
    expected = {name: _expected_reward(*seen.get(name, (0, 0))) for name in able}
    floor = FLOOR / len(expected)
    scale = (1 - FLOOR) / sum(expected.values())
    shares: dict[str, float] = {
        name: total * (floor + scale * value) for name, value in expected.items()
    }
    quotas: dict[str, int] = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (quotas[name] - shares[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return {name: quotas.get(name, 0) for name in campaign.operators}


def _formulas(formulas: Sequence[str], outcomes: Outcomes) -> tuple[str, ...]:
    """All target formulas, most promising first."""
    seen = {f.formula: f for f in outcomes.formulas}

    def promise(position: int) -> tuple[float, int]:
        known = seen.get(formulas[position])
        best = known.best_ev_per_atom if known else None
        if best is None:  # the further down the list, the less likely
            best = UNTRIED_EV_PER_ATOM + PLACE_CHARGE_EV_PER_ATOM * position
        return best + TRY_CHARGE_EV_PER_ATOM * (known.tried if known else 0), position

    return tuple(formulas[i] for i in sorted(range(len(formulas)), key=promise))


def _parents(outcomes: Outcomes, spare: Sequence[str]) -> tuple[str, ...]:
    """The best candidates, few of each formula, then the spares."""
    chosen: list[str] = []
    used: Counter[str] = Counter()
    for parent in outcomes.parents:
        if used[parent.formula] < PARENTS_PER_FORMULA:
            used[parent.formula] += 1
            chosen.append(parent.candidate_id)
    chosen += [p for p in spare if p not in chosen]
    return tuple(chosen[:MAX_PARENTS])


def _reasons(
    outcomes: Outcomes,
    quotas: dict[str, int],
    formulas: Sequence[str],
    parents: Sequence[str],
) -> tuple[str, ...]:
    """The plan in words, for the report."""
    split = ", ".join(f"{n} {name}" for name, n in quotas.items() if n)
    first = ", ".join(formulas[:SHOWN_FORMULAS]) or "none"
    if outcomes.up_to_cycle < 0:
        basis = "No results may be seen yet: an equal split."
    else:
        seen = ", ".join(f"{o.operator} {o.rewarded} of {o.proposed}" for o in outcomes.operators)
        basis = f"Rewards up to cycle {outcomes.up_to_cycle}: {seen or 'none'}."
    return (
        basis,
        f"Proposals: {split}.",
        f"Formulas first tried: {first}; {len(parents)} parents.",
    )
