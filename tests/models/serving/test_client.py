"""The client of OpenAI-compatible servers, and every row of what can go wrong with one."""

import asyncio
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import BaseModel

from hullward.models.errors import PreflightError
from hullward.models.language import (
    CompletionError,
    Constraint,
    LanguageModel,
    Message,
    Request,
    Sampling,
)
from hullward.models.language.prompt_forms import conversation
from hullward.models.serving import ServedModel, read_answer
from hullward.models.serving.answers import is_repetitive
from hullward.models.serving.breaker import Breaker, RetryPolicy
from hullward.models.serving.server_double import ServerDouble, Trouble
from hullward.models.serving.wire import Served

# Short waits between tries; a busy machine has all the time it needs to answer.
PATIENT = RetryPolicy(tries=3, backoff_s=0.01, longest_wait_s=0.5, rest_s=0.05)
# For servers that never answer.
HASTE = replace(PATIENT, connect_s=0.5, read_s=0.6, total_s=0.8, probe_s=0.6, outage_s=0.3)


class Plan(BaseModel):
    formula: str
    reason: str


GOOD = '{"formula": "NaCl", "reason": "salt"}'


def ask(number=0, prompt="a crystal", n=1, messages=(), constraint=None, **sampling):
    return Request(
        request_id=f"q-{number}",
        prompt="" if messages else prompt,
        messages=messages,
        constraint=constraint,
        sampling=Sampling(n=n, max_tokens=sampling.pop("max_tokens", 16), **sampling),
    )


def plan(number=0):
    talk = conversation("What next?", "Answer in JSON.")
    return ask(number, messages=talk, constraint=Constraint.json(Plan))


@pytest.fixture
def server():
    with ServerDouble() as double:
        yield double


@pytest.fixture
def model(server):
    return ServedModel(server.url, "double", policy=PATIENT)


def only(answers):
    [answer] = answers
    return answer


# what is sent, and what comes back


def test_texts_tokens_and_reasons_come_back_in_order(server, model):
    server.answer = lambda asked: asked["prompt"].upper()
    protocol: LanguageModel = model
    answers = protocol.complete([ask(1, "a b"), ask(2, "c d e", n=2)])
    assert [[c.text for c in answer] for answer in answers] == [["A B"], ["C D E"] * 2]
    completion = answers[1][0]
    assert (completion.prompt_tokens, completion.completion_tokens) == (3, 3)
    assert (completion.finish_reason, completion.fault) == ("stop", None)
    assert completion.model == "double (/models/double)"
    assert len(server.asked) == 2


def test_every_value_is_sent_as_it_stands(server, model):
    sampling = {
        "temperature": 0.3, "top_p": 0.8, "top_k": 50, "frequency_penalty": 1.0, "seed": 7,
        "stop": ("Title", "<|im_end|>"), "logprobs": True,
    }  # fmt: skip
    [[one, _]] = model.complete([ask(n=2, **sampling)])
    [(path, body)] = server.asked
    assert path == "completions"
    sent = sampling | {"stop": ["Title", "<|im_end|>"], "logprobs": 1}
    assert {name: body[name] for name in sent} == sent
    assert (body["n"], body["max_tokens"]) == (2, 16)
    assert body["skip_special_tokens"] is False  # else <|im_end|> stops nothing
    assert body["repetition_detection"]["min_count"] == 16
    assert (body["min_p"], body["repetition_penalty"]) == (0.0, 1.0)
    assert one.mean_logprob == -0.5


def test_a_server_of_another_make_gets_no_words_of_vllm(server):
    server.owned_by = "library"
    model = ServedModel(server.url, "double", policy=PATIENT)
    schema = Constraint.json(Plan)
    server.answer = lambda asked: GOOD
    model.complete([ask(1), ask(2, messages=conversation("?"), constraint=schema)])
    plain, chat = sorted((body for _, body in server.asked), key=lambda b: "messages" in b)
    foreign = {"structured_outputs", "repetition_detection", "min_p", "top_k"}
    assert not foreign & (set(plain) | set(chat))
    assert chat["response_format"]["json_schema"]["schema"] == json.loads(schema.value)
    assert "/tokenize" not in server.other


def test_constraints_travel_as_structured_outputs_and_never_as_guided_json(server, model):
    grammar = Constraint.grammar('root ::= "a"')
    server.answer = lambda asked: GOOD if "messages" in asked else "aa"
    model.complete([ask(1, constraint=grammar), ask(2, constraint=Constraint.regex("a+")), plan(3)])
    sent = [body["structured_outputs"] for _, body in server.asked]
    assert {"grammar": 'root ::= "a"'} in sent
    assert {"regex": "a+"} in sent
    [schema] = [one for one in sent if "json" in one]
    assert schema["json"]["required"] == ["formula", "reason"]
    assert not any("guided" in json.dumps(body) for _, body in server.asked)


def test_messages_go_to_the_servers_template_or_through_our_form(server, model):
    talk = conversation("What is NaCl?", "Be brief.")
    llamat = ServedModel(server.url, "double", form="chatml", stop=("<|im_end|>",), policy=PATIENT)
    model.complete([ask(messages=talk)])
    llamat.complete([ask(messages=talk, stop=("Title",))])
    (chat, first), (completions, second) = server.asked
    assert (chat, completions) == ("chat/completions", "completions")
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    assert second["prompt"].endswith("<|im_start|>question\nWhat is NaCl?<|im_end|>\n"
                                     "<|im_start|>answer\n")  # fmt: skip
    assert second["stop"] == ["Title", "<|im_end|>"]


def test_a_server_that_ignores_n_is_asked_for_the_rest(server, model):
    server.honours_n = False
    [answer] = model.complete([ask(n=3)])
    assert len(answer) == 3
    assert [(body["n"], body["seed"]) for _, body in server.asked] == [(3, 0), (1, 1), (1, 2)]


def test_no_more_requests_are_in_flight_than_allowed(server):
    def slowly(asked):
        time.sleep(0.02)
        return "x"

    server.answer = slowly
    few = RetryPolicy(concurrency=3)
    ServedModel(server.url, "double", policy=few).complete([ask(i, f"p {i}") for i in range(12)])
    assert 1 < server.most_at_once <= 3


def test_the_key_is_sent_and_a_wrong_one_is_said(server):
    server.key = "secret-key"
    right = ServedModel(server.url, "double", api_key="secret-key", policy=PATIENT)
    assert right.check().model == "double"
    wrong = ServedModel(server.url, "double", api_key="other-key", policy=PATIENT)
    with pytest.raises(PreflightError, match=r"401.*HULLWARD_CHAT_API_KEY") as caught:
        wrong.check()
    assert "other-key" not in str(caught.value)
    [answer] = wrong.complete([ask()])
    assert (answer.kind, answer.retry) == ("refused", False)


def test_it_can_be_awaited(model):
    assert only(asyncio.run(model.acomplete([ask()])))[0].text == "one two three"


# stored before it is read


def test_every_answer_is_stored_before_anyone_reads_it(server):
    kept = []
    model = ServedModel(server.url, "double", policy=PATIENT, on_response=kept.append)
    server.troubles += [
        Trouble("status", 500),
        Trouble("body", body=b"\xff\xfe"),
        Trouble("body", body=b"<html>busy</html>"),
    ]
    answer = only(model.complete([ask(7)]))
    assert answer.kind == "protocol"
    assert [(raw.request_id, raw.exchange, raw.status) for raw in kept] == [
        ("q-7", 0, 500),
        ("q-7", 1, 200),
        ("q-7", 2, 200),
    ]
    assert kept[1].body == b"\xff\xfe"
    assert json.loads(kept[0].asked)["prompt"] == "a crystal"


def test_a_stored_answer_reads_the_same_again(server):
    kept = []
    model = ServedModel(server.url, "double", policy=PATIENT, on_response=kept.append)
    request = ask(n=2)
    answer = only(model.complete([request]))
    assert read_answer(request, kept[0], model.served.describe()) == answer


def test_what_cannot_be_stored_ends_the_batch(server):
    def full(raw):
        raise OSError("no space left")

    model = ServedModel(server.url, "double", policy=PATIENT, on_response=full)
    with pytest.raises(OSError, match="no space left"):
        model.complete([ask(i) for i in range(5)])


# the table of faults: each ends as one kind, and the model is usable afterwards


ANSWERED = [
    ("stalls", Trouble("stall"), "timeout", True),
    ("trickles", Trouble("trickle"), "timeout", True),
    ("drops", Trouble("drop"), "unreachable", True),
    ("is cut", Trouble("cut"), "unreachable", True),
    ("500", Trouble("status", 500), "server", True),
    ("asks for patience", Trouble("status", 429, retry_after="3600"), "busy", True),
    ("unavailable", Trouble("status", 503), "busy", True),
    ("refuses", Trouble("status", 400, text="bad parameter"), "refused", False),
    ("too long", Trouble("status", 400, text="maximum context length is 9"), "context", False),
    ("HTML", Trouble("body", body=b"<html>login</html>"), "protocol", False),
    ("no choices", Trouble("body", body=b'{"choices": []}'), "protocol", False),
    ("half JSON", Trouble("body", body=b'{"choices": [{"te'), "protocol", False),
    ("not UTF-8", Trouble("body", body=b'{"choices": "\xff"}'), "encoding", False),
]  # fmt: skip


@pytest.mark.parametrize(("trouble", "kind", "retry"), [row[1:] for row in ANSWERED],
                         ids=[row[0] for row in ANSWERED])  # fmt: skip
def test_a_fault_has_a_name_and_passes(server, trouble, kind, retry):
    policy = HASTE if kind == "timeout" else PATIENT
    model = ServedModel(server.url, "double", policy=policy)
    server.troubles += [trouble] * policy.tries
    answer = only(model.complete([ask()]))
    assert isinstance(answer, CompletionError)
    assert (answer.kind, answer.retry) == (kind, retry)
    assert "\n" not in str(answer)
    assert len(server.asked) <= policy.tries  # no stacked retries
    server.troubles.clear()
    assert only(model.complete([ask()]))[0].text == "one two three"


def test_another_name_than_in_the_first_answer_is_another_model(server, model):
    assert only(model.complete([ask()]))[0].model == "double (/models/double)"
    server.troubles.append(Trouble("body", body=b'{"model": "b", "choices": [{"text": "x"}]}'))
    answer = only(model.complete([ask()]))
    assert (answer.kind, answer.retry) == ("identity", True)
    assert str(answer) == "b answered, double before: double was asked each time"
    assert only(model.complete([ask()]))[0].text == "one two three"


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("status", 500),
        Trouble("status", 429, retry_after="0"),
        Trouble("drop"),
        Trouble("body", body=b"\xff"),
        Trouble("body", body=b"<html>"),
    ],
)
def test_a_fault_that_passes_costs_one_more_exchange(server, model, trouble):
    server.troubles.append(trouble)
    assert only(model.complete([ask()]))[0].text == "one two three"
    assert len(server.asked) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_busy_server_gets_the_time_it_asks_for(server, form):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    wait = "1" if form == "seconds" else when
    server.troubles.append(Trouble("status", 429, retry_after=wait))
    patient = RetryPolicy(backoff_s=0.01)
    started = time.monotonic()
    assert only(ServedModel(server.url, "double", policy=patient).complete([ask()]))[0].text
    assert time.monotonic() - started >= 0.9


def test_the_rest_of_a_batch_goes_on(server, model):
    server.troubles.append(Trouble("status", 400))
    answers = model.complete([ask(i) for i in range(6)])
    assert sum(isinstance(a, CompletionError) for a in answers) == 1


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    model = ServedModel(url, "double", policy=HASTE)
    answers = model.complete([ask(i) for i in range(8)])
    assert {a.kind for a in answers} <= {"unreachable", "outage"}
    assert all(a.retry for a in answers)
    with pytest.raises(PreflightError, match="no answer from http://127"):
        model.check()


def test_a_wrong_address_is_said(server):
    root = server.url.removesuffix("/v1")
    with pytest.raises(PreflightError, match=r"404.*ends with /v1"):
        ServedModel(root, "double", policy=PATIENT).check()


def test_no_redirect_is_followed(server, model):
    model.check()
    server.troubles.append(Trouble("status", 307, location=server.url))
    answer = only(model.complete([ask()]))
    assert answer.kind == "refused"
    assert f"answers 307: trouble 307; it redirects to {server.url}" in str(answer)
    assert len([body for _, body in server.asked if body["max_tokens"] > 1]) == 1


def test_a_model_that_is_not_served_is_named_with_those_that_are(server):
    model = ServedModel(server.url, "llamat-2-cif", policy=PATIENT)
    with pytest.raises(PreflightError, match="does not serve llamat-2-cif; it serves double"):
        model.check()
    assert only(model.complete([ask()])).kind == "refused"
    assert server.asked == []


# outages


def test_after_five_failures_nothing_is_sent_but_probes(server):
    server.hanging = True
    model = ServedModel(server.url, "double", policy=HASTE)
    answers = model.complete([ask(i) for i in range(40)])
    assert {a.kind for a in answers} == {"timeout", "outage"}
    assert model.breaker.times_opened == 1
    sent = [body for _, body in server.asked if body.get("max_tokens") != 1]
    assert len(sent) < 40  # most were never tried
    probes = [body for _, body in server.asked if body.get("max_tokens") == 1]
    assert 1 <= len(probes) <= 10
    assert all(body["prompt"] == "1" for body in probes)


def test_an_engine_that_hangs_behind_a_healthy_server_is_noticed_and_comes_back(server):
    model = ServedModel(server.url, "double", policy=HASTE)
    model.check()
    server.hanging = True
    assert {a.kind for a in model.complete([ask(i) for i in range(6)])} <= {"timeout", "outage"}
    with pytest.raises(PreflightError, match=r"did not finish|sent nothing"):
        model.check()  # /v1/models answers all the while
    server.hanging = False
    time.sleep(HASTE.rest_s)
    assert only(model.complete([ask()]))[0].text == "one two three"


def test_requests_wait_for_a_server_that_restarts(server):
    policy = RetryPolicy(backoff_s=0.01, tries=8, rest_s=0.05, outage_s=30, connect_s=0.5)
    model = ServedModel(server.url, "double", policy=policy)
    model.check()
    server.down()
    threading.Timer(0.6, server.up).start()
    answers = model.complete([ask(i) for i in range(12)])
    assert [a[0].text for a in answers] == ["one two three"] * 12
    assert model.breaker.times_opened == 1


@pytest.mark.parametrize(
    ("restarted", "difference"),
    [({"root": "/models/other"}, "root was /models/double, is /models/other"),
     ({"model": "other"}, "it serves other")],
)  # fmt: skip
def test_another_model_after_a_restart_is_not_used(server, model, restarted, difference):
    assert only(model.complete([ask()]))[0].text
    server.down()
    server.up(**restarted)
    answers = model.complete([ask(i) for i in range(3)])
    assert {a.kind for a in answers} == {"identity"}
    assert difference in str(answers[0])
    assert len(server.asked) == 1
    server.down()
    server.up("double", "/models/double")
    assert only(model.complete([ask()]))[0].text == "one two three"


def test_a_resumed_process_insists_on_the_model_of_the_first(server):
    before = Served(model="double", root="/models/old", max_model_len=512, is_vllm=True)
    model = ServedModel(server.url, "double", policy=PATIENT, expected=before)
    assert only(model.complete([ask()])).kind == "identity"


def test_the_breaker_counts_failures_in_a_row():
    now = [0.0]
    breaker = Breaker(RetryPolicy(rest_s=5, outage_s=60), clock=lambda: now[0])
    for _ in range(4):
        breaker.failed()
    breaker.answered()
    for _ in range(4):
        breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    assert breaker.until_probe_s() == 5
    now[0] = 61
    assert breaker.gives_up
    assert breaker.until_probe_s() == 0
    breaker.answered()
    assert not breaker.is_open
    assert not breaker.gives_up


# texts that are no answers


BAD = [
    ("prose", Trouble("text", text="Sure! The best plan is NaCl."), "unfit"),
    ("another shape", Trouble("text", text='{"answer": 42}'), "unfit"),
    ("empty", Trouble("text", text=""), "empty"),
    ("white space", Trouble("text", text=" \n\t" * 50), "empty"),
    ("truncated", Trouble("text", text=GOOD[:20], finish_reason="length"), "truncated"),
    ("a loop", Trouble("text", text="and then " * 60), "repetition"),
    ("a loop the server stopped", Trouble("text", text=GOOD, finish_reason="repetition"),
     "repetition"),
    ("unfinished JSON that says it stopped", Trouble("text", text=GOOD[:-1]), "unfit"),
]  # fmt: skip


@pytest.mark.parametrize(("trouble", "kind"), [row[1:] for row in BAD], ids=[r[0] for r in BAD])
def test_an_answer_that_breaks_its_schema_is_asked_for_once_more(server, model, trouble, kind):
    server.answer = lambda asked: GOOD
    server.troubles.append(trouble)
    assert only(model.complete([plan()]))[0].text == GOOD
    (_, first), (_, second) = server.asked
    assert first["seed"] != second["seed"]
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    server.asked.clear()
    server.troubles += [trouble] * 5
    answer = only(model.complete([plan()]))
    assert (answer.kind, answer.retry) == (kind, False)
    assert len(server.asked) == 2  # at most twice the tokens


def test_who_asks_again_himself_gets_the_first_answer(server):
    server.troubles += [Trouble("text", text="no JSON")] * 2
    model = ServedModel(server.url, "double", policy=PATIENT, ask_again=False)
    assert only(model.complete([plan()])).kind == "unfit"
    assert len(server.asked) == 1


@pytest.mark.parametrize(("trouble", "kind"), [row[1:] for row in BAD], ids=[r[0] for r in BAD])
def test_a_crystal_that_went_wrong_is_kept_and_labelled(server, model, trouble, kind):
    server.troubles.append(trouble)
    constraint = Constraint.grammar("root ::= [0-9]", check=lambda text: "no crystal")
    [answer] = model.complete([ask(constraint=constraint)])
    assert (answer[0].text, answer[0].fault) == (trouble.text, kind)
    assert len(server.asked) == 1  # every one counts as a proposal; none is asked for twice


def test_one_good_text_of_several_is_enough(server, model):
    server.honours_n = False
    server.answer = lambda asked: GOOD
    server.troubles.append(Trouble("text", text="no"))
    request = ask(n=2, messages=conversation("?"), constraint=Constraint.json(Plan))
    [answer] = model.complete([request])
    assert [c.fault for c in answer] == ["unfit", None]


def test_crystals_are_not_taken_for_loops():
    sites = "".join(f"O\n0.{i:02d} 0.50 0.00\n" for i in range(99))
    assert not is_repetitive(f"4.2 4.2 4.2\n90 90 90\n{sites}")
    assert not is_repetitive("0.00 0.00 0.00\n" * 3)
    assert is_repetitive(sites + "0.00 0.00 0.00\n" * 20)


# the context


@pytest.mark.parametrize("words", [1, 400, 496, 497, 5000])
def test_what_does_not_fit_the_context_is_not_sent(server, model, words):
    answer = only(model.complete([ask(prompt="w " * words)]))
    fits = words + 16 <= server.max_model_len
    assert isinstance(answer, CompletionError) is not fits
    assert len(server.asked) == fits
    if not fits:
        assert (answer.kind, answer.retry) == ("context", False)
        assert f"the prompt has {words} tokens" in str(answer)


def test_a_conversation_is_counted_too(server, model):
    talk = (*conversation("w " * 300), Message(role="assistant", content="w " * 300))
    talk += conversation("w")
    assert only(model.complete([ask(messages=talk)])).kind == "context"


def test_a_server_that_cannot_count_gets_the_request(server, model):
    server.owned_by = "library"
    assert only(model.complete([ask(prompt="w " * 5000)]))[0].text == "one two three"


def test_a_prompt_is_counted_once(server, model):
    model.complete([ask(i, seed=i) for i in range(3)])
    model.complete([ask(i, seed=i) for i in range(3)])
    assert server.other.count("/tokenize") <= 3


def test_patience_of_nothing_is_refused():
    with pytest.raises(ValueError, match="tries must be more than 0"):
        RetryPolicy(tries=0)
