"""The planner reads outcomes: other results, another plan."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullward.agents.campaign import run
from hullward.agents.planning import ledger, make_plan, read_outcomes
from hullward.agents.planning.ledger import FormulaOutcome, Outcomes, ParentOutcome
from hullward.agents.planning.rules import FORMULAS_PER_PROPOSAL, LEAST_FORMULAS
from hullward.agents.settings import Campaign, parse_settings
from hullward.tools.records import OperatorOutcome, Plan
from hullward.tools.store import ORDER_BEFORE_OPINIONS, Store, ranking

FORMULAS = ["LiMnO2", "Li2MnO3", "LiMn2O4"]
WHY = dict.fromkeys(FORMULAS, "a reason")


def campaign(**changes: Any) -> Campaign:
    base = {"name": "x", "systems": ["Li-Mn-O"], "budget": {"proposals_per_cycle": 30}}
    return parse_settings(Campaign, {**base, **changes}, "test")


def outcome(operator: str, rewarded: int, proposed: int = 20) -> OperatorOutcome:
    return OperatorOutcome(
        operator=operator, proposed=proposed, judged=proposed, rewarded=rewarded, force_calls=100
    )


def plan(outcomes: Outcomes, **changes: Any) -> Plan:
    return make_plan(
        campaign(**changes),
        2,
        outcomes,
        WHY,
        ["spare-1", "spare-2"],
    )


def seen(**rewards: int) -> Outcomes:
    return Outcomes(up_to_cycle=0, operators=tuple(outcome(k, n) for k, n in rewards.items()))


def test_two_outcome_tables_give_two_plans() -> None:
    one = plan(seen(substitution=9, perturbation=0, swap=1))
    other = plan(seen(substitution=0, perturbation=0, swap=9))
    assert one.quotas["substitution"] > one.quotas["swap"]
    assert other.quotas["swap"] > other.quotas["substitution"]
    assert one.plan_id != other.plan_id


def test_one_outcome_table_gives_one_plan() -> None:
    assert plan(seen(substitution=3)) == plan(seen(substitution=3))


def test_without_results_the_split_is_equal() -> None:
    assert set(plan(Outcomes(up_to_cycle=-1)).quotas.values()) == {10}


@given(
    rewards=st.lists(st.integers(0, 40), min_size=3, max_size=3),
    total=st.integers(1, 200),
)
def test_quotas_sum_to_the_budget_and_none_is_negative(rewards: list[int], total: int) -> None:
    names = ("substitution", "perturbation", "swap")
    outcomes = Outcomes(
        up_to_cycle=0,
        operators=tuple(outcome(n, r, 40) for n, r in zip(names, rewards, strict=True)),
    )
    quotas = plan(outcomes, budget={"proposals_per_cycle": total}).quotas
    assert sum(quotas.values()) == total
    assert min(quotas.values()) >= 0


def test_no_operator_starves() -> None:
    quotas = plan(seen(substitution=20, perturbation=0, swap=0)).quotas
    assert min(quotas.values()) >= 1


def test_what_operators_without_parents_cannot_use_goes_to_the_others() -> None:
    made = make_plan(campaign(), 0, Outcomes(up_to_cycle=-1), WHY, [])
    assert made.quotas == {"substitution": 30, "perturbation": 0, "swap": 0}
    assert made.reasons[-1].startswith("No parents yet for perturbation and swap: the other")
    phases = make_plan(campaign(), 0, Outcomes(up_to_cycle=-1), WHY, [], ["MnO#1"])
    assert phases.quotas == {"substitution": 15, "perturbation": 0, "swap": 15}


def test_formulas_do_not_circle() -> None:
    """One that was tried without results waits behind the next ones; so does a good one, later."""
    tried = (FormulaOutcome(formula="LiMnO2", tried=4, best_ev_per_atom=None),)
    assert plan(Outcomes(up_to_cycle=-1, formulas=tried)).formulas[-1] == "LiMnO2"
    good = (FormulaOutcome(formula="LiMnO2", tried=12, best_ev_per_atom=-0.02),)
    assert plan(Outcomes(up_to_cycle=0, formulas=good)).formulas[-1] == "LiMnO2"


def test_a_formula_that_came_out_high_waits_behind_untried_ones() -> None:
    tried = (FormulaOutcome(formula="LiMnO2", tried=2, best_ev_per_atom=0.4),)
    assert plan(Outcomes(up_to_cycle=0, formulas=tried)).formulas[-1] == "LiMnO2"


def test_a_formula_near_the_hull_comes_first() -> None:
    tried = (FormulaOutcome(formula="LiMn2O4", tried=1, best_ev_per_atom=-0.02),)
    assert plan(Outcomes(up_to_cycle=0, formulas=tried)).formulas[0] == "LiMn2O4"


def test_a_plan_carries_the_formulas_it_can_use_and_a_hash_of_all() -> None:
    """Ten elements have 30,000 formulas; none of them is lost, for the rest comes up later."""
    formulas = [f"Li{n}O" for n in range(30_000)]
    first = make_plan(campaign(), 2, Outcomes(up_to_cycle=-1), dict.fromkeys(formulas, ""), [])
    assert first.formulas == tuple(formulas[:LEAST_FORMULAS])
    assert len(first.model_dump_json()) < 10_000
    assert first.formulas_ranked == len(formulas)
    other = make_plan(
        campaign(), 2, Outcomes(up_to_cycle=-1), dict.fromkeys([*formulas[:-1], "LiO2"], ""), []
    )
    assert (other.formulas, other.formulas_ranked) == (first.formulas, first.formulas_ranked)
    assert other.formulas_digest != first.formulas_digest
    assert other.plan_id != first.plan_id
    many = campaign(budget={"proposals_per_cycle": 500})
    asked = make_plan(many, 2, Outcomes(up_to_cycle=-1), dict.fromkeys(formulas, ""), []).formulas
    assert len(asked) == FORMULAS_PER_PROPOSAL * 500


def test_parents_are_the_first_ranked_and_few_of_a_formula() -> None:
    parents = tuple(
        ParentOutcome(candidate_id=f"c-{i}", formula=f, e_above_reference_ev_per_atom=e)
        for i, (f, e) in enumerate([("A", 0.0), ("A", 0.1), ("A", 0.2), ("B", 0.3)])
    )
    chosen = plan(Outcomes(up_to_cycle=0, parents=parents)).parents
    assert chosen == ("c-0", "c-1", "c-3", "spare-1", "spare-2")


def test_what_ranks_higher_is_likelier_then_lower() -> None:
    rows = [("a", 0.2, 0.00), ("b", 0.9, 0.09), ("c", None, -0.10), ("d", None, 0.05)]
    with duckdb.connect() as connection:
        connection.execute(
            """CREATE TABLE results (candidate_id VARCHAR, p_below_50mev DOUBLE,
               e_above_reference_ev_per_atom DOUBLE)"""
        )
        connection.executemany("INSERT INTO results VALUES (?, ?, ?)", rows)
        order = ranking("e_above_reference_ev_per_atom")
        found = connection.execute(f"SELECT candidate_id FROM results ORDER BY {order}").fetchall()
    assert [i for (i,) in found] == ["b", "a", "c", "d"]
    union, reference = "e_above_union_ev_per_atom", "e_above_reference_ev_per_atom"
    assert ranking(union, reference) == ORDER_BEFORE_OPINIONS


def test_the_ledger_gives_the_parents_a_plan_would_choose_from_all(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(
        Campaign, toy_settings | {"operators": ["perturbation", "swap"]}, "test"
    )
    run(tmp_path / "c", settings)
    with Store.open(tmp_path / "c", command="test") as store:
        few = read_outcomes(store, 9)
        monkeypatch.setattr(ledger, "MAX_PARENTS", 10**6)
        monkeypatch.setattr(ledger, "PARENTS_PER_FORMULA", 10**6)
        everyone = read_outcomes(store, 9)
    assert len(few.parents) < len(everyone.parents)
    monkeypatch.undo()
    plans = [
        make_plan(settings, 9, found, dict.fromkeys(FORMULAS, ""), []) for found in (few, everyone)
    ]
    assert plans[0].parents == plans[1].parents
