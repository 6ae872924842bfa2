"""The model that comes with Hullward behind a real vLLM server: it writes what it writes here."""

import math
import socket
import sys
from pathlib import Path

import pytest

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.models.crystal import Crystal
from hullward.models.errors import PreflightError
from hullward.models.language import (
    NANO,
    CompletionError,
    LocalModel,
    Request,
    Sampling,
    crystal_prompt,
    flat_formula,
    model_card,
)
from hullward.models.serving import RetryPolicy, ServedModel, ServePlan, ServerProcess, find_vllm
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.records import Flaw, ModelFailure, ModelRequest, Proposal, Reason
from hullward.tools.store import Store, funnel, open_snapshot

pytestmark = pytest.mark.vllm

STARTING_S = 900
FORMULAS = [
    "NaCl", "MgO", "CaF2", "TiO2", "Al2O3", "ZnS", "LiFeO2", "BaTiO3", "MgAl2O4", "Fe2O3",
    "LiMnO2", "K2O",
]  # fmt: skip
SAMPLES = 8
RARELY = 1e-3  # a difference that equal models show less often than this is one of models


@pytest.fixture(scope="module")
def plan():
    python = read_machine().vllm_python or sys.executable
    try:
        find_vllm(python)
    except PreflightError as error:
        pytest.skip(str(error))
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    card = model_card("nano")
    plan = ServePlan(
        python=python,
        model=card.source,
        name=card.name,
        context_tokens=card.context_tokens,
        dtype="float32",
        port=port,
        cpu_cache_gb=1,
        more=("--enforce-eager",),
    )
    with ServerProcess(plan.command(), lambda line: None) as child:
        child.wait_until_ready(plan.url, plan.name, STARTING_S)
        yield plan


def test_it_writes_as_many_crystals_and_formulas_as_in_process(plan):
    """From one folder: the same likelihoods, and rates that differ by chance only."""
    drawn = Sampling(temperature=0.8, max_tokens=200, n=SAMPLES, seed=1)
    requests = [
        Request(request_id=f, prompt=crystal_prompt(formula=f, form="asymmetric"), sampling=drawn)
        for f in map(flat_formula, FORMULAS)
    ]
    policy = RetryPolicy(read_s=600, total_s=600)
    served_model = ServedModel(plan.url, plan.name, policy=policy)
    models = {"here": LocalModel(Path(plan.model)), "served": served_model}
    rates, texts = {}, []
    for where, model in models.items():
        valid = matched = 0
        for request, answer in zip(requests, model.complete(requests), strict=True):
            assert not isinstance(answer, CompletionError), answer
            texts.append((request.prompt, answer[0].text))
            read = [parse_asymmetric_text(one.text) for one in answer]
            crystals = [crystal for crystal in read if isinstance(crystal, Crystal)]
            valid += len(crystals)
            matched += sum(flat_formula(c.formula) == request.request_id for c in crystals)
        rates[where] = valid, matched
    n = len(FORMULAS) * SAMPLES
    assert rates["here"][0] > n / 2
    for here, served in zip(*rates.values(), strict=True):
        assert chance(here, served, n) > RARELY, rates
    scored = [pair for pair in texts if pair[1]][:12]
    here, served = (model.score(scored) for model in models.values())
    assert here == pytest.approx(served, abs=1e-3)


def chance(one, other, n):
    """Two-sided probability of a difference as large between two samples of n of one rate."""
    pooled = (one + other) / (2 * n)
    error = math.sqrt(2 * pooled * (1 - pooled) / n)
    return 1.0 if error == 0 else math.erfc(abs(one - other) / n / error / math.sqrt(2))


def test_a_whole_campaign_holds_it_to_the_grammar(plan, toy_settings, tmp_path):
    asked = {
        "operators": ["de_novo", "formula", "perturbation"],
        "crystal": {"url": plan.url, "model": plan.name, "samples": 3, "text_form": "cell"},
        "max_atoms": 6,
        "budget": {"cycles": 2, "proposals_per_cycle": 9},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 20},
    }
    run(tmp_path / "c", parse_settings(Campaign, toy_settings | asked, "test"))
    with Store.open(tmp_path / "c", command="test") as store:
        assert not store.load(ModelFailure)
        assert all(r.constraint for r in store.load(ModelRequest))
        written = [p for p in store.load(Proposal) if p.operator != "perturbation"]
    assert len(written) >= 12
    for proposal in written:
        assert NANO in (proposal.model or "")
        crystal = parse_cell_text(proposal.raw)
        if isinstance(crystal, Flaw):  # no grammar of a server knows which angles close a cell
            assert crystal.reason == Reason.IMPOSSIBLE_CELL, proposal.raw
            continue
        assert set(crystal.species) <= {"Li", "Mn", "O"}
        assert crystal.n_atoms <= 6
    with open_snapshot(tmp_path / "c") as connection:
        assert funnel.verify(connection).proposed > len(written)
