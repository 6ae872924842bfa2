"""A whole campaign against a real vLLM server: an adapter writes crystals, the base plans."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.plan_by_chat import PlanAnswer
from hullward.agents.settings import Campaign, read_machine
from hullward.agents.settings_file import parse_settings
from hullward.models.errors import PreflightError
from hullward.models.model_cards import model_card
from hullward.models.tiny_llama import write_tiny_adapter, write_tiny_llama
from hullward.models.vllm_server import Child, ServePlan, find_vllm
from hullward.tools import funnel
from hullward.tools.crystal_text import parse
from hullward.tools.records import Flaw, Plan, Proposal, Reason
from hullward.tools.records_requests import ModelAnswer, ModelFailure, ModelRequest, ModelResponse
from hullward.tools.store import Store, open_snapshot

pytestmark = pytest.mark.vllm

STARTING_S = 900


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    named = read_machine().vllm_python or sys.executable
    try:
        find_vllm(named)
    except PreflightError as error:
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("served")
    base = write_tiny_llama(home / "tiny")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    plan = ServePlan(
        python=named,
        model=str(base),
        name="tiny",
        context_tokens=model_card(str(base)).context_tokens,
        dtype="float32",
        port=port,
        adapters={"tuned": write_tiny_adapter(home / "adapter", base)},
        rank=4,
        cpu_cache_gb=1,
        more=("--enforce-eager",),
    )
    with Child(plan.command(), lambda line: None) as child:
        child.wait_until_ready(plan.url, plan.name, STARTING_S)
        yield plan.url


def test_a_campaign_plans_and_writes_through_vllm(
    url: str, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {
        "operators": ["formula", "de_novo", "perturbation"],
        "crystal": {"url": url, "model": "tuned", "samples": 2, "max_tokens": 300},
        "chat": {"url": url, "model": "tiny", "max_tokens": 2000},
        "max_atoms": 6,
        "budget": {"cycles": 3, "proposals_per_cycle": 9},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 40},
        "overlap": True,
        "workers": 1,
    }
    run(tmp_path / "c", parse_settings(Campaign, toy_settings | settings, "test"))
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
    with Store.open(tmp_path / "c", command="test") as store:
        proposals, plans = store.load(Proposal), store.load(Plan)
        requests = {r.request_id: r for r in store.load(ModelRequest)}
        answers, failures = store.load(ModelAnswer), store.load(ModelFailure)
        responses = store.load(ModelResponse)
    assert {f.kind for f in failures} <= {"truncated", "unfit"}  # random weights may ramble
    assert {r.purpose for r in requests.values()} >= {"plan", "brief", "formula"}
    assert {r.request_id for r in responses} == requests.keys()
    assert any(r.sampling["n"] == 2 for r in requests.values())
    for answer in answers:
        if requests[answer.request_id].purpose == "plan":
            PlanAnswer.model_validate_json(answer.text)
    assert len(plans) == 3
    for plan in plans:
        assert plan.made_by == "tiny" or "gave no usable plan" in plan.reasons[0]
    written = [p for p in proposals if p.operator != "perturbation"]
    assert written
    for proposal in written:
        assert "tuned" in (proposal.model or "")
        crystal = parse(proposal.raw)
        if isinstance(crystal, Flaw):  # no grammar of a server knows which angles close a cell
            assert crystal.reason == Reason.IMPOSSIBLE_CELL, proposal.raw
            continue
        assert set(crystal.species) <= {"Li", "Mn", "O"}
        assert crystal.n_atoms <= 6
        if proposal.target_formula:
            assert crystal.formula == proposal.target_formula
    assert counting.proposed == len(proposals)
