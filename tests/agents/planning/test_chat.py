"""A chat model plans within the campaign's limits, or the rules do and say so."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullward.agents.campaign import run
from hullward.agents.language import ModelEndpoint, ModelEndpoints
from hullward.agents.planning.chat import BriefAnswer, PlanAnswer, checked_formula
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.language import CompletionError, Sampling
from hullward.models.language.doubles import ScriptedModel, ScriptLine
from hullward.tools.records import ModelAnswer, ModelFailure, ModelRequest, Plan
from hullward.tools.store import Store

GOOD = {
    "formulas": ["LiMn2O4", "Li4Mn4O8", "LiFeO2", "Li3MnO", "Li9Mn9O18", "water", "Mn2O3", ""],
    "quotas": [{"operator": "perturbation", "proposals": 4}, {"operator": "swap", "proposals": 2}],
    "space_groups": [227, 166, 0, 231],
    "reason": "Spinels are dense.",
}


def campaign(settings: dict[str, Any], **changes: Any) -> Campaign:
    asked = {
        "operators": ["perturbation", "swap"],
        "chat": {"recorded": "/nowhere.jsonl"},
        "budget": {"cycles": 1, "proposals_per_cycle": 6},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 80},
    }
    return parse_settings(Campaign, settings | asked | changes, "test")


def chatter(script: Iterable[ScriptLine]) -> ModelEndpoints:
    endpoint = ModelEndpoint(
        role="chat",
        label="chatter",
        model=ScriptedModel(script),
        sampling=Sampling(),
        form="server",
        grammar=True,
    )
    return ModelEndpoints.of(chat=endpoint)


def asked_of(endpoints: ModelEndpoints) -> list[Any]:
    assert endpoints.chat is not None
    return endpoints.chat.model.history  # type: ignore[attr-defined]


def stored(directory: Path, kind: Any) -> list[Any]:
    with Store.open(directory, command="test") as store:
        return store.load(kind)


def test_a_plan_within_the_limits_is_followed_and_the_rest_dropped_and_counted(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    endpoints = chatter([f"```json\n{json.dumps(GOOD)}\n```"])
    run(tmp_path / "c", campaign(toy_settings, goal="Cathodes."), endpoints=endpoints)
    (plan,) = stored(tmp_path / "c", Plan)
    assert plan.made_by == "chatter"
    assert plan.quotas == {"perturbation": 4, "swap": 2}
    assert plan.formulas[:3] == ("LiMn2O4", "LiMnO2", "Mn2O3")  # reduced, each once
    assert len(plan.formulas) == len(set(plan.formulas)) > 3  # the rules' own come after
    assert plan.space_groups == (227, 166)
    assert plan.dropped == {"charges": 1, "elements": 1, "space_group": 2, "unreadable": 2}
    assert plan.reasons[0] == "Planned by chatter: Spinels are dense."
    (request,) = asked_of(endpoints)
    question = request.messages[-1].content
    for told in ("Goal: Cathodes.", "Li, Mn, O", "at most 10 atoms", "perturbation, swap"):
        assert told in question
    assert request.constraint is not None
    assert json.loads(request.constraint.value) == PlanAnswer.model_json_schema()
    report = (tmp_path / "c" / "report" / "report.md").read_text()
    assert "planned by the recording /nowhere.jsonl." in report.replace("\\", "")


@pytest.mark.parametrize(
    "quotas",
    [
        [{"operator": "perturbation", "proposals": 5}],
        [{"operator": "magic", "proposals": 6}],
    ],
)
def test_quotas_that_miss_the_budget_are_the_rules(
    quotas: list[Any], toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    run(
        tmp_path / "c",
        campaign(toy_settings),
        endpoints=chatter([json.dumps(GOOD | {"quotas": quotas})]),
    )
    (plan,) = stored(tmp_path / "c", Plan)
    assert plan.quotas == {"perturbation": 3, "swap": 3}
    assert plan.dropped["quotas"] == 1
    assert "The quotas are those of the rules." in plan.reasons
    assert plan.formulas[0] == "LiMn2O4"


def test_an_answer_that_does_not_fit_is_asked_for_once_more(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    endpoints = chatter(["Certainly! I would try spinels.", json.dumps(GOOD)])
    run(tmp_path / "c", campaign(toy_settings), endpoints=endpoints)
    assert stored(tmp_path / "c", Plan)[0].made_by == "chatter"
    first, second = asked_of(endpoints)
    assert "Your last answer could not be used: Invalid JSON" in second.messages[-1].content
    assert first.request_id != second.request_id
    assert len(stored(tmp_path / "c", ModelAnswer)) == 2


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (["no", "no"], "Invalid JSON"),
        (["", "{}"], "Field required"),
        ([CompletionError("nobody there", retry=True, kind="unreachable")], "nobody there"),
    ],
)
def test_where_it_fails_the_rules_plan_and_say_so(
    script: list[ScriptLine], why: str, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    endpoints = chatter(script)
    run(tmp_path / "c", campaign(toy_settings), endpoints=endpoints)
    (plan,) = stored(tmp_path / "c", Plan)
    assert plan.made_by == "rules"
    assert plan.quotas == {"perturbation": 3, "swap": 3}
    assert plan.reasons[0].startswith("The chat model chatter gave no usable plan (")
    assert why in plan.reasons[0]
    report = (tmp_path / "c" / "report" / "report.md").read_text()
    assert "gave no usable plan in 1 of 1 cycles" in report
    failed = stored(tmp_path / "c", ModelFailure)
    assert len(failed) == sum(isinstance(line, CompletionError) for line in script)


def test_the_brief_is_made_of_the_campaign_s_own_results_and_told_to_the_planner(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    brief = {"summary": "Oxides work.", "promising": ["Li2MnO3", "NaCl"], "avoid": ["LiMnO2"]}
    endpoints = chatter([json.dumps(GOOD), json.dumps(GOOD), json.dumps(brief), json.dumps(GOOD)])
    budget = {"cycles": 3, "proposals_per_cycle": 6}
    run(tmp_path / "c", campaign(toy_settings, budget=budget), endpoints=endpoints)
    purposes = [r.purpose for r in stored(tmp_path / "c", ModelRequest)]
    assert purposes == ["plan", "plan", "brief", "plan"]  # nothing to read before the third
    told = asked_of(endpoints)[-1].messages[-1].content
    text = "Oxides work.\nPromising: Li2MnO3.\nNot worth more tries: LiMnO2."
    assert f"Brief:\n{text}" in told
    assert "- perturbation: " in told
    last = stored(tmp_path / "c", Plan)[-1]
    assert (last.brief, last.dropped["brief"], last.results_up_to_cycle) == (text, 1, 0)
    schema = json.loads(asked_of(endpoints)[2].constraint.value)
    assert schema == BriefAnswer.model_json_schema()


def test_a_killed_planner_does_not_ask_again(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    directory = tmp_path / "c"
    run(directory, campaign(toy_settings), endpoints=chatter([json.dumps(GOOD)]))
    plan = stored(directory, Plan)
    lines = (directory / "journal.jsonl").read_text().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if '"kind":"Plan"' in line)
    other = tmp_path / "d"
    other.mkdir()
    (other / "journal.jsonl").write_text("".join(lines[:cut]))
    silent = chatter([])  # would raise IndexError if asked
    run(other, campaign(toy_settings), endpoints=silent)
    assert stored(other, Plan) == plan


LIMITS = parse_settings(
    Campaign,
    {
        "name": "x",
        "systems": ["Li-Mn-O"],
        "max_atoms": 10,
        "min_elements": 2,
        "oxidation_states": {"Li": [1], "Mn": [2, 3, 4], "O": [-2]},
    },
    "test",
)


@pytest.mark.parametrize(
    ("text", "fate"),
    [
        ("Li2Mn2O4", ("LiMnO2", "")),
        (" Mn3O4\n", ("Mn3O4", "")),
        ("NaMnO2", ("", "elements")),
        ("O2", ("", "number_of_elements")),
        ("Li5Mn7O16", ("", "too_large")),
        ("LiMnO", ("", "charges")),
        ("Li0.5MnO2", ("", "unreadable")),
        ("LiMnO2; DROP TABLE", ("", "unreadable")),
        ("Xx2O3", ("", "unreadable")),
    ],
)
def test_one_formula_one_fate(text: str, fate: tuple[str, str]) -> None:
    assert checked_formula(LIMITS, text) == fate


@given(st.text(max_size=30) | st.from_regex(r"([A-Z][a-z]?[0-9]{0,3}){1,6}", fullmatch=True))
def test_whatever_is_written_for_a_formula_what_passes_is_within_the_limits(text: str) -> None:
    from pymatgen.core import Composition

    formula, flaw = checked_formula(LIMITS, text)
    assert bool(formula) != bool(flaw)
    if formula:
        amounts = Counter(Composition(formula).get_el_amt_dict())
        assert amounts.keys() <= {"Li", "Mn", "O"}
        assert len(amounts) >= 2
        assert amounts.total() <= 10
