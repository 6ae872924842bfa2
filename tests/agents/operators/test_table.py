"""Numbers of operators are stored with every request: they are pinned, and so are the names."""

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from hullward.agents.cli.propose import ProposalKind
from hullward.agents.language import ModelEndpoint, ModelEndpoints
from hullward.agents.operators import table
from hullward.agents.operators.prompted import ask_formula
from hullward.agents.operators.table import OPERATORS, Operator, requests_for
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.agents.settings.campaign import BY_CRYSTAL_MODEL, BY_INSTRUCTION, OperatorName
from hullward.agents.workspace import Workspace, open_workspace
from hullward.models.crystal import Crystal
from hullward.models.language import Sampling
from hullward.models.language.doubles import ScriptedModel
from hullward.tools.prototypes import Constructed
from hullward.tools.records import Plan, Proposal
from hullward.tools.screening import check_proposals

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


def plan_of(cycle: int, quotas: dict[str, int]) -> Plan:
    return Plan(
        plan_id=f"plan-{cycle}",
        campaign_id="k-1",
        cycle=cycle,
        quotas=quotas,
        parents=(),
        outcomes=(),
        formulas=("Li2O", "MnO"),
        results_up_to_cycle=0,
        reasons=(),
    )


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
    plan = plan_of(2, dict.fromkeys(names, 3))
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


def test_what_was_constructed_in_an_earlier_cycle_is_not_proposed_again(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of it; and a cycle carried out again proposes the same again."""
    sites = ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystals = [Crystal.from_parameters([a] * 3, [90] * 3, *sites) for a in (0.2, 2.6, 2.8)]
    built = [Constructed(crystal=crystal, parents=(), note="") for crystal in crystals]
    operator = Operator(8, "substitution", lambda *_: iter(built), None, ("formulas",))
    monkeypatch.setitem(OPERATORS, "substitution", operator)
    settings = parse_settings(Campaign, toy_settings, "test")

    def proposed(cycle: int, quota: int) -> list[Proposal]:
        plan = plan_of(cycle, {"substitution": quota})
        return [one for one in table.propose(workspace, plan) if isinstance(one, Proposal)]

    with closing(
        open_workspace(tmp_path / "c", read_machine(), command="test", campaign=settings)
    ) as workspace:
        first = proposed(0, 2)
        workspace.store.add(first)
        check_proposals(workspace.screen, first)
        assert workspace.store.count().states["rejected_check"] == 1
        assert proposed(0, 2) == first
        assert [one.raw for one in proposed(1, 2)] == [crystals[2].model_dump_json()]
