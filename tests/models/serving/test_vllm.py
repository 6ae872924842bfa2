"""A real vLLM server on this machine, serving a small Llama of random weights and an adapter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel, Field
from pymatgen.core import Composition

from hullward.agents.campaign import run
from hullward.agents.planning.chat import PlanAnswer
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.language import CompletionError, Constraint, LocalModel, Request, Sampling
from hullward.models.language.prompt_forms import conversation
from hullward.models.language.tiny_llama import CONTEXT
from hullward.models.serving import ServedModel, ServerProcess
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.connection import Connection
from hullward.models.serving.wire import Call
from hullward.tools.crystal.text import crystal_grammar, parse_cell_text
from hullward.tools.records import (
    Flaw,
    ModelAnswer,
    ModelFailure,
    ModelRequest,
    ModelResponse,
    Proposal,
    Reason,
)
from hullward.tools.records import Plan as Cycle
from hullward.tools.store import Store, funnel, open_snapshot

pytestmark = pytest.mark.vllm

STARTING_S = 900


class Plan(BaseModel):
    formula: str = Field(max_length=12)
    cycles: int = Field(ge=1, le=9)


@pytest.fixture(scope="module")
def plan(tiny_vllm):
    return tiny_vllm()


def started(plan):
    return ServerProcess(plan.command(), lambda line: None)


@pytest.fixture(scope="module")
def server(plan):
    with started(plan) as child:
        child.wait_until_ready(plan.url, plan.name, STARTING_S)
        yield child


@pytest.fixture
def model(server, plan):
    return ServedModel(plan.url, "tiny")


def ask(prompt="abc", number=0, messages=(), constraint=None, **sampling):
    return Request(
        request_id=f"q-{number}",
        prompt="" if messages else prompt,
        messages=messages,
        constraint=constraint,
        sampling=Sampling(**({"max_tokens": 16} | sampling)),
    )


def only(answers):
    [answer] = answers
    assert not isinstance(answer, CompletionError), answer
    return answer


def test_the_server_says_what_it_serves(model, plan):
    served = model.check()
    assert (served.root, served.max_model_len, served.is_vllm) == (plan.model, CONTEXT, True)
    tuned = ServedModel(plan.url, "tuned").check()
    assert (tuned.parent, tuned.max_model_len) == ("tiny", CONTEXT)


def test_a_seed_gives_the_same_texts_and_each_of_n_its_own(model):
    first = only(model.complete([ask(n=4, seed=3, logprobs=True)]))
    again = only(model.complete([ask(n=4, seed=3, logprobs=True)]))
    assert first == again
    assert len({c.text for c in first}) == 4
    assert all(c.mean_logprob < 0 for c in first)
    whole = [one for one in first if one.finish_reason == "length"]
    assert whole
    assert all(one.completion_tokens == 16 for one in whole)


def test_a_conversation_with_a_schema_gives_an_object_of_it(model):
    request = ask(
        messages=conversation("What next?", "Answer in JSON."),
        constraint=Constraint.json(Plan),
        max_tokens=80,
    )
    for seed in range(4):
        text = only(model.complete([ask_with(request, seed)]))[0].text
        assert Plan.model_validate_json(text)
        assert "\n" not in text  # no white space to fill the budget with


def ask_with(request, seed):
    return replace(request, sampling=replace(request.sampling, seed=seed))


@pytest.mark.parametrize(
    "wish",
    [
        {"formula": "NaCl", "max_atoms": 4},
        {"elements": ["Li", "Mn", "O"], "n_atoms": 4},
        {"elements": ["Li", "Mn", "O"], "only": True, "max_atoms": 3},
        {"max_atoms": 2},
    ],
    ids=["formula", "elements and atoms", "some of these elements", "any crystal"],
)
def test_the_grammar_of_crystals_is_kept_by_every_text(model, wish):
    grammar = crystal_grammar(**wish)
    answer = only(model.complete([ask(constraint=grammar.constraint(), n=8, max_tokens=200)]))
    flaws = [grammar.flaw(one.text) for one in answer]
    # no context-free grammar can check whether three angles close a cell
    assert all(f is None or f.startswith("impossible_cell") for f in flaws)
    assert {one.finish_reason for one in answer} == {"stop"}


def test_a_pattern_is_kept(model):
    constraint = Constraint.regex("[0-9]{2}[.][0-9]")
    assert only(model.complete([ask(constraint=constraint, n=3)]))[0].fault is None


def test_a_constraint_that_is_none_is_refused(model):
    [answer] = model.complete([ask(constraint=Constraint.grammar("root ::= (((("))])
    assert (answer.kind, answer.retry) == ("refused", False)


async def _raw(plan, call):
    async with Connection(plan.url, None, "server", RetryPolicy(), None) as line:
        return await line.send(call, "q", 0)


def test_guided_json_is_ignored_in_silence(server, plan):
    """Why it is never sent: a server of today answers 200 and writes what it likes."""
    import asyncio

    arguments = {"model": "tiny", "prompt": "abc", "max_tokens": 16, "temperature": 0}
    call = Call(path="completions", arguments=arguments, extra={"guided_json": {"type": "object"}})
    body = json.loads(asyncio.run(_raw(plan, call)).body)
    assert not body["choices"][0]["text"].startswith("{")


def test_an_adapter_writes_something_else_than_its_base(model, plan):
    tuned = ServedModel(plan.url, "tuned")
    base = only(model.complete([ask(temperature=0)]))[0].text
    assert only(tuned.complete([ask(temperature=0)]))[0].text != base


def test_llamats_own_form_is_stopped_by_its_marks(server, plan):
    llamat = ServedModel(plan.url, "tiny", form="chatml", stop=("<|im_end|>",))
    talk = conversation("What?", "Be brief.")
    texts = []
    for seed in range(6):
        answer = only(llamat.complete([ask(messages=talk, max_tokens=400, seed=seed)]))[0]
        assert "<|im_end|>" not in answer.text
        texts.append(answer)
    assert any(a.finish_reason == "stop" for a in texts)


def test_a_loop_is_stopped_by_the_server(model):
    answer = only(model.complete([ask(temperature=0, max_tokens=800)]))[0]
    assert (answer.finish_reason, answer.fault) == ("repetition", "repetition")
    assert answer.completion_tokens < 800


def test_likelihoods_of_known_texts_are_told(model):
    rare, common = model.score([("abc", "zzzzqq"), ("abc", only(
        model.complete([ask(temperature=0, max_tokens=6)]))[0].text)])  # fmt: skip
    assert rare < common < 0


def test_served_and_in_process_it_is_one_model(model, plan):
    """The same likelihood for the same texts is the same distribution in both."""
    local = LocalModel(Path(plan.model))
    greedy = only(model.complete([ask(temperature=0, max_tokens=20)]))[0].text
    pairs = [("abc", "hello world"), ("4.2 4.2", " 4.2\n90 90 90\nNa"), ("abc", greedy)]
    assert model.score(pairs) == pytest.approx(local.score(pairs), abs=1e-3)
    answers = local.complete([ask(temperature=0, max_tokens=20)])
    assert only(answers)[0].text.startswith(greedy)


def test_many_requests_at_once_all_come_back(plan):
    kept = []
    model = ServedModel(plan.url, "tiny", on_response=kept.append)
    answers = model.complete([ask(f"prompt {i}", i, seed=i, n=2) for i in range(64)])
    assert all(len(answer) == 2 for answer in answers)
    assert len(kept) == 64


def test_a_whole_campaign_asks_it(server, plan, toy_settings, tmp_path):
    """Chat through a schema, crystals through the grammar from an adapter, four at a time."""
    asked = {
        "operators": ["formula", "elements", "perturbation"],
        "crystal": {"url": plan.url, "model": "tuned", "samples": 4, "max_tokens": 300},
        "chat": {"url": plan.url, "model": "tiny", "max_tokens": 400, "temperature": 0.8},
        "budget": {"cycles": 1, "proposals_per_cycle": 12},
    }
    directory = tmp_path / "c"
    campaign = parse_settings(Campaign, toy_settings | asked, "test")
    run(directory, campaign)
    with Store.open(directory, command="test") as store:
        answers = {role: [] for role in ("crystal", "chat")}
        requests = {r.request_id: r for r in store.load(ModelRequest)}
        for answer in store.load(ModelAnswer):
            answers[requests[answer.request_id].backend].append(answer.text)
        failures = store.load(ModelFailure)
        plans = store.load(Cycle)
    assert len(answers["crystal"]) >= 8
    read = [parse_cell_text(text) for text in answers["crystal"]]
    closed = [one for one in read if not isinstance(one, Flaw)]
    assert closed
    allowed = {"Li", "Mn", "O"}
    assert all(set(crystal.species) <= allowed for crystal in closed)
    for text in answers["chat"]:
        json.loads(text)
    chats = sum(r.backend == "chat" for r in requests.values())
    assert len(answers["chat"]) + len(failures) >= chats  # each answered, or counted with a reason
    assert {p.made_by for p in plans} <= {"tiny", "rules"}
    for one in plans:  # a plan of a model is held to the limits like any other
        assert sum(one.quotas.values()) == 12
        assert all(set(Composition(f).as_dict()) <= allowed for f in one.formulas)
    with open_snapshot(directory) as connection:
        assert funnel.verify(connection).proposed >= 8


def test_a_campaign_of_three_cycles_plans_and_writes_through_it(
    server, plan, toy_settings, tmp_path
):
    settings = {
        "operators": ["formula", "de_novo", "perturbation"],
        "crystal": {"url": plan.url, "model": "tuned", "samples": 2, "max_tokens": 300},
        "chat": {"url": plan.url, "model": "tiny", "max_tokens": 2000},
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
        proposals, plans = store.load(Proposal), store.load(Cycle)
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
    for one in plans:
        assert one.made_by == "tiny" or "gave no usable plan" in one.reasons[0]
    written = [p for p in proposals if p.operator != "perturbation"]
    assert written
    for proposal in written:
        assert "tuned" in (proposal.model or "")
        crystal = parse_cell_text(proposal.raw)
        if isinstance(crystal, Flaw):  # no grammar of a server knows which angles close a cell
            assert crystal.reason == Reason.IMPOSSIBLE_CELL, proposal.raw
            continue
        assert set(crystal.species) <= {"Li", "Mn", "O"}
        assert crystal.n_atoms <= 6
        if proposal.target_formula:
            assert crystal.formula == proposal.target_formula
    assert counting.proposed == len(proposals)
