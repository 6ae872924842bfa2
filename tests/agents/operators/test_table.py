"""Numbers of operators are stored with every request: they are pinned, and so are the names."""

from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from hullward.agents.cli.propose import ProposalKind
from hullward.agents.language import ModelEndpoint, ModelEndpoints
from hullward.agents.operators import table
from hullward.agents.operators.prompted import ask_formula
from hullward.agents.operators.table import OPERATORS, Operator, requests_for
from hullward.agents.settings import Campaign, parse_settings
from hullward.agents.settings.campaign import BY_CRYSTAL_MODEL, BY_INSTRUCTION, OperatorName
from hullward.agents.workspace import Workspace
from hullward.models.language import Sampling
from hullward.models.language.doubles import ScriptedModel
from hullward.tools.records import Plan

NUMBERS = {
    "de_novo": 0,
    "elements": 1,
    "formula": 2,
    "space_group": 3,
    "e_hull": 4,
    "infill": 5,
    "mutation": 6,
    "crossover": 7,
    "substitution": 8,
    "perturbation": 9,
    "swap": 10,
}


def test_numbers_never_change() -> None:
    """A new operator gets the next number; the number of a removed one is not used again."""
    assert {name: operator.number for name, operator in OPERATORS.items()} == NUMBERS


def test_settings_table_and_command_line_name_the_same_operators() -> None:
    assert set(get_args(OperatorName)) == set(OPERATORS)
    assert {n for n, o in OPERATORS.items() if "a crystal model" in o.needs} == {*BY_CRYSTAL_MODEL}
    assert {n for n, o in OPERATORS.items() if "instructions followed" in o.needs} == {
        *BY_INSTRUCTION
    }
    assert {kind.value for kind in ProposalKind} <= set(OPERATORS)


def request_ids(names: list[str]) -> list[str]:
    """The ids of the requests of some operators in one cycle."""
    settings: dict[str, Any] = {"name": "x", "systems": ["Li-Mn-O"]}
    endpoint = ModelEndpoint(
        role="crystal", label="m", model=ScriptedModel([]), sampling=Sampling(max_tokens=10)
    )
    workspace = SimpleNamespace(
        campaign=parse_settings(Campaign, settings, "test"),
        endpoints=ModelEndpoints.of(endpoint),
    )
    plan = Plan(
        plan_id="plan-1",
        campaign_id="k-1",
        cycle=2,
        quotas=dict.fromkeys(names, 3),
        parents=(),
        outcomes=(),
        formulas=("Li2O", "MnO"),
        results_up_to_cycle=0,
        reasons=(),
    )
    return [
        record.request_id
        for name in names
        for record, _, _ in requests_for(cast(Workspace, workspace), plan, name)
    ]


def test_a_new_row_changes_no_other_id(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["de_novo", "elements", "formula", "e_hull"]
    before = request_ids(names)
    new = Operator(11, "new", None, ask_formula, ("a crystal model", "formulas"))
    monkeypatch.setattr(table, "OPERATORS", {"new": new, **OPERATORS})
    assert request_ids(names) == before
    assert not set(request_ids(["new"])) & set(before)
