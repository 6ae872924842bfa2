"""A real vLLM server on this machine, serving a small Llama of random weights and an adapter."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel, Field
from pymatgen.core import Composition

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, read_machine
from hullward.agents.settings_file import parse_settings
from hullward.models.errors import PreflightError
from hullward.models.language import CompletionError, Constraint, Request, Sampling
from hullward.models.local_model import LocalModel
from hullward.models.model_cards import model_card
from hullward.models.openai_breaker import Patience
from hullward.models.openai_line import Line
from hullward.models.openai_server import ServedModel
from hullward.models.openai_wire import Call
from hullward.models.prompt_forms import conversation
from hullward.models.tiny_llama import CONTEXT, write_tiny_adapter, write_tiny_llama
from hullward.models.vllm_server import Child, ServePlan, find_vllm
from hullward.tools import crystal_text, funnel
from hullward.tools.crystal_grammar import crystal_grammar
from hullward.tools.records import Flaw
from hullward.tools.records import Plan as Cycle
from hullward.tools.records_requests import ModelAnswer, ModelFailure, ModelRequest
from hullward.tools.store import Store, open_snapshot

pytestmark = pytest.mark.vllm

STARTING_S = 900


class Plan(BaseModel):
    formula: str = Field(max_length=12)
    cycles: int = Field(ge=1, le=9)


@pytest.fixture(scope="module")
def python():
    """The interpreter that has vLLM; without one the tests are skipped and say why."""
    named = read_machine().vllm_python or sys.executable
    try:
        find_vllm(named)
    except PreflightError as error:
        pytest.skip(str(error))
    return named


@pytest.fixture(scope="module")
def plan(python, tmp_path_factory):
    home = tmp_path_factory.mktemp("served")
    base = write_tiny_llama(home / "tiny")
    adapter = write_tiny_adapter(home / "adapter", base)
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    return ServePlan(
        python=python,
        model=str(base),
        name="tiny",
        context_tokens=model_card(str(base)).context_tokens,
        dtype="float32",
        port=port,
        adapters={"tuned": adapter},
        rank=4,
        cpu_cache_gb=1,
        more=("--enforce-eager",),  # nothing here is worth compiling
    )


def started(plan):
    return Child(plan.command(), lambda line: None)


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
    # what no context-free grammar can say: whether three angles close a cell
    assert all(f is None or f.startswith("impossible_cell") for f in flaws)
    assert {one.finish_reason for one in answer} == {"stop"}


def test_a_pattern_is_kept(model):
    constraint = Constraint.regex("[0-9]{2}[.][0-9]")
    assert only(model.complete([ask(constraint=constraint, n=3)]))[0].fault is None


def test_a_constraint_that_is_none_is_refused(model):
    [answer] = model.complete([ask(constraint=Constraint.grammar("root ::= (((("))])
    assert (answer.kind, answer.retry) == ("refused", False)


async def _raw(plan, call):
    async with Line(plan.url, None, "server", Patience(), None) as line:
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


@pytest.mark.parametrize("letters", [9, CONTEXT - 17, CONTEXT - 16, 3 * CONTEXT])
def test_no_request_is_refused_for_its_length(model, letters):
    """One token a letter and one for the beginning: what we let through, the server takes."""
    [answer] = model.complete([ask("a" * letters)])
    if letters + 1 + 16 <= CONTEXT:
        assert answer[0].prompt_tokens == letters + 1
    else:
        assert answer.kind == "context"
        assert "the prompt has" in str(answer)


def test_likelihoods_of_known_texts_are_told(model):
    rare, common = model.score([("abc", "zzzzqq"), ("abc", only(
        model.complete([ask(temperature=0, max_tokens=6)]))[0].text)])  # fmt: skip
    assert rare < common < 0


def test_served_and_in_process_it_is_one_model(model, plan):
    """The same likelihood for the same texts is the same distribution, whoever samples it."""
    local = LocalModel(Path(plan.model))
    greedy = only(model.complete([ask(temperature=0, max_tokens=20)]))[0].text
    pairs = [("abc", "hello world"), ("4.2 4.2", " 4.2\n90 90 90\nNa"), ("abc", greedy)]
    assert model.score(pairs) == pytest.approx(local.score(pairs), abs=1e-3)
    said = local.complete([ask(temperature=0, max_tokens=20)])
    assert only(said)[0].text.startswith(greedy)


def test_many_requests_at_once_all_come_back(model):
    answers = model.complete([ask(f"prompt {i}", i, seed=i, n=2) for i in range(64)])
    assert all(len(answer) == 2 for answer in answers)
    assert model.spent.exchanges == 64


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
    read = [crystal_text.parse(text) for text in answers["crystal"]]
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


def engines(child):
    """The processes of the server's group, without its first."""
    told = subprocess.run(
        ["ps", "-o", "pid=", "-g", str(child._process.pid)], capture_output=True, text=True
    )
    return [int(pid) for pid in told.stdout.split() if int(pid) != child._process.pid]


def test_a_killed_engine_is_noticed_and_a_new_server_is_used_at_once(plan, server):
    """Last: it ends the server of this module and starts another at the same place."""
    patience = Patience(read_s=20, total_s=30, probe_s=10, rest_s=1, outage_s=5, backoff_s=0.2)
    model = ServedModel(plan.url, "tiny", patience=patience)
    assert only(model.complete([ask()]))
    for pid in engines(server):
        os.kill(pid, signal.SIGKILL)
    started_at = time.monotonic()
    answers = model.complete([ask(f"p {i}", i, max_tokens=200) for i in range(8)])
    assert {a.kind for a in answers} <= {"unreachable", "server", "timeout", "outage"}
    assert time.monotonic() - started_at < 60
    server.stop()
    with started(plan) as child:
        child.wait_until_ready(plan.url, plan.name, STARTING_S)
        time.sleep(patience.rest_s)
        back = time.monotonic()
        assert only(model.complete([ask()]))
        assert time.monotonic() - back < 60
