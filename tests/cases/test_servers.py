"""Servers that differ from each other, each behaviour through the client: used, or named."""

import json
import math
import ssl
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import PreflightError, RunInterruptedError
from hullward.models.language import CompletionError, Constraint, Message, Request, Sampling
from hullward.models.serving import RawResponse, RetryPolicy, ServedModel
from hullward.models.serving.server_double import ServerDouble, Trouble
from hullward.models.yaml_file import read_yaml
from hullward.tools.records import ModelFailure, ModelResponse, Plan
from hullward.tools.report import count_requests
from hullward.tools.store import Store, fetch_rows, open_snapshot

FILES = Path(__file__).parent / "files"

HASTE = RetryPolicy(
    connect_s=2, read_s=1, total_s=1.2, probe_s=1, tries=2, backoff_s=0.01, rest_s=0.05,
    outage_s=0.5, longest_wait_s=0.5,
)  # fmt: skip
NAME = "chat"
GOOD = '{"a": 1}'
THOUGHT = '<think>\nPerhaps {"a": 2}? No.\n</think>\n\n'


class Small(BaseModel):
    a: int


def question(number: int = 0, **sampling: Any) -> Request:
    return Request(
        request_id=f"q-{number}",
        messages=(Message(role="user", content="How many?"),),
        sampling=Sampling(**{"max_tokens": 64, **sampling}),
        constraint=Constraint.json(Small),
    )


@pytest.fixture
def server() -> Iterator[ServerDouble]:
    with ServerDouble(NAME, answer=lambda asked: GOOD, owned_by="library") as double:
        yield double


def asked_of(server: ServerDouble, kept: list[RawResponse] | None = None) -> ServedModel:
    keep = None if kept is None else kept.append
    return ServedModel(server.url, NAME, policy=HASTE, on_response=keep)


# what may differ in an answer, and in it alone

Dress = Callable[[dict[str, Any]], Any]


def model_is(name: Any) -> Dress:
    return lambda body: body | {"model": name}


def without(key: str) -> Dress:
    return lambda body: {k: v for k, v in body.items() if k != key}


def usage_is(usage: Any) -> Dress:
    return lambda body: body | {"usage": usage}


def counts(prompt: Any, completion: Any) -> Dress:
    return usage_is({"prompt_tokens": prompt, "completion_tokens": completion})


def choice_is(**changes: Any) -> Dress:
    return lambda body: body | {"choices": [one | changes for one in body["choices"]]}


def message_is(**message: Any) -> Dress:
    return choice_is(message={"role": "assistant"} | message)


def says(text: str) -> Dress:
    return message_is(content=text)


def as_bytes(before: bytes) -> Dress:
    return lambda body: before + json.dumps(body).encode()


def no_index(body: dict[str, Any]) -> Any:
    return body | {
        "choices": [{k: v for k, v in c.items() if k != "index"} for c in body["choices"]]
    }


CALLED = {"type": "function", "function": {"name": "answer", "arguments": GOOD}}
UNKNOWN = None  # tokens

# an answer that is used, and the tokens that are counted for it: 2 where the count is believed
USED: dict[str, tuple[Dress, int | None]] = {
    "a dated name": (model_is("chat-2024-07-18"), 2),
    "a path": (model_is("/models/chat-Q4_K_M.gguf"), 2),
    "an empty name": (model_is(""), 2),
    "a name in capitals": (model_is("CHAT"), 2),
    "a tag": (model_is("chat:latest"), 2),
    "no name": (without("model"), 2),
    "a name that is null": (model_is(None), 2),
    "a name that is a number": (model_is(7), 2),
    "no usage": (without("usage"), UNKNOWN),
    "usage null": (usage_is(None), UNKNOWN),
    "usage empty": (usage_is({}), UNKNOWN),
    "usage a list": (usage_is([1, 2]), UNKNOWN),
    "count null": (counts(1, None), UNKNOWN),
    "count a whole float": (counts(1.0, 2.0), 2),
    "count a fraction": (counts(1, 2.5), UNKNOWN),
    "count a word": (counts(1, "2"), UNKNOWN),
    "count true": (counts(1, True), UNKNOWN),
    "count negative": (counts(1, -4_000_000), UNKNOWN),
    "count 2^62": (counts(2**62, 2**62), UNKNOWN),
    "count 2^63": (counts(1, 2**63), UNKNOWN),
    "count 10^30": (counts(10**30, 10**30), UNKNOWN),
    "count infinite": (counts(1, math.inf), UNKNOWN),
    "count of 5000 digits": (
        lambda body: json.dumps(body | {"usage": "N"}).replace(
            '"N"', '{"completion_tokens": ' + "9" * 5000 + "}"
        ).encode(),
        UNKNOWN,
    ),
    "index null": (choice_is(index=None), 2),
    "index a float": (choice_is(index=0.0), 2),
    "index a word": (choice_is(index="first"), 2),
    "index negative": (choice_is(index=-1), 2),
    "index 2^63": (choice_is(index=2**63), 2),
    "no index": (no_index, 2),
    "no finish reason": (choice_is(finish_reason=None), 2),
    "a finish reason of its own": (choice_is(finish_reason="eos_token"), 2),
    "a finish reason that is a number": (choice_is(finish_reason=1), 2),
    "log-probabilities that are none": (choice_is(logprobs=[1, None, "x"]), 2),
    "more choices than asked for": (lambda body: body | {"choices": body["choices"] * 3}, 2),
    "unknown fields": (lambda body: body | {"timings": {"ms": 1}, "x": [None]}, 2),
    "an error that is null": (lambda body: body | {"error": None}, 2),
    "parts": (message_is(content=[{"type": "text", "text": GOOD}]), 2),
    "a text in two parts": (
        message_is(content=[{"type": "text", "text": '{"a":'}, {"type": "text", "text": " 1}"}]),
        2,
    ),
    "a part that thinks": (
        message_is(content=[{"type": "thinking", "thinking": "?"}, {"type": "text", "text": GOOD}]),
        2,
    ),
    "an object in place of a text": (message_is(content={"a": 1}), 2),
    "thoughts alone": (message_is(content=None, reasoning_content=GOOD), 2),
    "thoughts beside an empty text": (message_is(content="", reasoning=GOOD), 2),
    "thoughts beside the text": (message_is(content=GOOD, reasoning_content="a 2? No."), 2),
    "a call of a tool": (
        lambda body: choice_is(
            finish_reason="tool_calls", message={"content": None, "tool_calls": [CALLED]}
        )(body),
        2,
    ),
    "a call in the old way": (message_is(content=None, function_call=CALLED["function"]), 2),
    "the text of a plain completion": (choice_is(message=None, text=GOOD), 2),
    "a fence": (says(f"```json\n{GOOD}\n```"), 2),
    "a fence in capitals": (says(f"```JSON\n{GOOD}\n```"), 2),
    "a fence of tildes without an end": (says(f"~~~\n{GOOD}"), 2),
    "prose around a fence": (says(f"Here it is:\n```json\n{GOOD}\n```\nHope this helps!"), 2),
    "prose before": (says(f"Sure! {GOOD}"), 2),
    "prose after": (says(f"{GOOD}\nThat is {{all}}."), 2),
    "thoughts before": (says(THOUGHT + GOOD), 2),
    "thoughts without a beginning": (says(f"a 2? No.</think>{GOOD}"), 2),
    "thoughts of another make": (says(f"[THINK]a 2?[/THINK]{GOOD}"), 2),
    "channels": (says(f"<|channel|>analysis<|message|>?<|channel|>final<|message|>{GOOD}"), 2),
    "an answer in tags": (says(f"<answer>{GOOD}</answer>"), 2),
    "an end of turn": (says(f"{GOOD}<|im_end|>\n"), 2),
    "a byte order mark in the text": (says(f"\ufeff{GOOD}"), 2),
    "a comment": (says('{"a": 1 // one\n}'), 2),
    "a last comma": (says('{"a": 1,}'), 2),
    "a number as a word": (says('{"a": "1"}'), 2),
    "whole at the limit": (choice_is(finish_reason="length"), 2),
    "a byte order mark": (as_bytes(b"\xef\xbb\xbf"), 2),
    "blank lines that keep the connection": (as_bytes(b"\n \r\n\n"), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", USED)
def test_what_differs_but_for_the_text_loses_no_answer(server: ServerDouble, name: str) -> None:
    server.dress, tokens = USED[name]
    kept: list[RawResponse] = []
    model = asked_of(server, kept)
    assert model.check().model == NAME  # the check and the run agree
    [answer] = model.complete([question()])
    assert isinstance(answer, tuple), answer
    [one] = answer
    assert Constraint.json(Small).flaw(one.text) is None
    assert one.fault is None
    assert one.completion_tokens == tokens
    assert one.prompt_tokens in (1, 2, None)
    assert len(kept) == 1


def test_texts_without_indices_keep_their_order(server: ServerDouble) -> None:
    texts = ["first", "second", "third"]

    def dress(indices: list[Any]) -> Dress:
        rows = zip(indices, texts, strict=True)
        choices = [{"index": i, "message": {"content": text}} for i, text in rows]
        return lambda body: body | {"choices": choices}

    plain = Request(request_id="q", messages=question().messages, sampling=Sampling(n=3))
    for indices, order in [
        ([2, 0, 1], [1, 2, 0]),
        ([0, 0, 0], [0, 1, 2]),
        ([None, 1, 0], [0, 1, 2]),
        (["b", "a", 0], [0, 1, 2]),
    ]:
        server.dress = dress(indices)
        [answer] = asked_of(server).complete([plain])
        assert isinstance(answer, tuple)
        assert [one.text for one in answer] == [texts[i] for i in order]


# the model's name


def test_another_name_in_the_middle_of_a_run_is_another_model(server: ServerDouble) -> None:
    model = asked_of(server)
    server.dress = model_is("chat-2024-07-18")
    [[first]] = model.complete([question(1)])
    assert first.model == "chat-2024-07-18"
    for same in ("chat-2024-07-18", "CHAT-2024-07-18", "", None):
        server.dress = model_is(same)
        assert isinstance(model.complete([question(2)])[0], tuple)
    server.dress = model_is("chat-2025-01-01")
    [answer] = model.complete([question(3)])
    assert isinstance(answer, CompletionError)
    assert answer.kind == "identity"
    assert "chat-2025-01-01 answered, chat-2024-07-18 before" in str(answer)
    with pytest.raises(PreflightError, match="chat-2025-01-01 answered"):
        model.check()


LISTS: dict[str, tuple[int, Any]] = {
    "a tag": (200, {"data": [{"id": "chat:latest", "owned_by": "library"}]}),
    "in capitals": (200, {"data": [{"id": "CHAT"}]}),
    "a bare list": (200, [{"id": "chat"}]),
    "a list of names": (200, ["chat"]),
    "the first page of many": (200, {"data": [{"id": "a"}], "has_more": True}),
    "a path, for every name": (200, {"data": [{"id": "/models/chat.gguf"}]}),
    "null": (200, {"data": None}),
    "empty": (200, {"data": []}),
    "odd fields": (200, {"data": [{"id": "chat", "max_model_len": "8k", "root": 7}]}),
    "HTML": (200, b"<html>hello</html>"),
    "nested too deeply": (200, b"[" * 100_000),
    "none": (404, {"error": "not found"}),
    "not allowed": (405, {"detail": "Method Not Allowed"}),
    "not permitted for this key": (403, {"error": {"message": "Missing scopes: model.read"}}),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_models_without_ours_leaves_it_to_the_answer(
    server: ServerDouble, name: str
) -> None:
    server.listing = LISTS[name]
    if name in ("a tag", "in capitals"):
        server.model = LISTS[name][1]["data"][0]["id"]
    model = asked_of(server)
    model.check()
    assert isinstance(model.complete([question()])[0], tuple)


def test_a_name_that_is_neither_listed_nor_answered_is_named_with_the_list(
    server: ServerDouble,
) -> None:
    model = ServedModel(server.url, "gpt", policy=HASTE)
    with pytest.raises(PreflightError, match=r"404: The model `gpt` does not exist.*lists chat"):
        model.check()
    [answer] = model.complete([question()])
    assert isinstance(answer, CompletionError)
    assert (answer.kind, answer.retry) == ("refused", False)


# parameters


def openai(name: str) -> tuple[int, Any]:
    text = f"Unsupported value: '{name}' does not support 0.2 with this model."
    return 400, {"error": {"message": text, "param": name, "code": "unsupported_value"}}


def pydantic(name: str) -> tuple[int, Any]:
    row = {
        "type": "extra_forbidden",
        "loc": ["body", name],
        "msg": "Extra inputs are not permitted",
    }
    return 422, {"detail": [row | {"input": {"messages": [], "seed": 1, "n": 1}}]}


def in_words(name: str) -> tuple[int, Any]:
    return 400, {"error": f"{name} is not supported by this model"}


def as_text(name: str) -> tuple[int, Any]:
    return 400, f"unknown field `{name}`".encode()


def not_implemented(name: str) -> tuple[int, Any]:
    return 501, {"message": f"parameter {name} is not implemented"}


REFUSALS: dict[str, tuple[tuple[str, ...], Callable[[str], tuple[int, Any]]]] = {
    "seed, Mistral": (("seed", "frequency_penalty"), pydantic),
    "seed, in words": (("seed",), in_words),
    "seed, not implemented": (("seed",), not_implemented),
    "n": (("n",), openai),
    "n, in words": (("n",), lambda name: (400, {"error": "n > 1 is not supported"})),
    "penalties": (("frequency_penalty", "presence_penalty"), in_words),
    "temperature": (("temperature", "top_p"), openai),
    "the schema": (("response_format",), openai),
    "the schema, in words": (
        ("response_format",),
        lambda name: (400, {"error": "json_schema is not supported, use guided decoding"}),
    ),
    "stop": (("stop",), as_text),
    "the old limit": (
        ("max_tokens",),
        lambda name: (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not "
                            "supported with this model. Use 'max_completion_tokens' instead."}}),
    ),
    "all at once": (
        ("seed", "n", "temperature", "top_p", "frequency_penalty", "presence_penalty",
         "response_format", "stop", "max_tokens"),
        pydantic,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_parameter_is_left_out_once_and_for_all(server: ServerDouble, name: str) -> None:
    refused, words = REFUSALS[name]

    def refusal(asked: dict[str, Any]) -> tuple[int, Any] | None:
        found = [one for one in refused if one in asked]
        return words(found[0]) if found else None

    server.refusal = refusal
    kept: list[RawResponse] = []
    model = asked_of(server, kept)
    for number in range(2):
        [answer] = model.complete([question(number, n=2, stop=("Title",))])
        assert isinstance(answer, tuple), answer
        assert len(answer) == 2
    taken = [raw for raw in kept if raw.status == 200]
    assert len(kept) - len(taken) <= len(refused)
    assert set(taken[-1].left_out) == set(refused) - {"max_tokens"}
    sent = json.loads(taken[-1].asked)
    assert not sent.keys() & set(refused)
    assert sent["max_completion_tokens" if "max_tokens" in refused else "max_tokens"] == 64
    model.check()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "System role not supported"),
        (500, "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant"),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    ],
)
def test_a_template_without_a_system_gets_its_text_from_the_user(
    server: ServerDouble, status: int, text: str
) -> None:
    def refusal(asked: dict[str, Any]) -> tuple[int, Any] | None:
        first = asked["messages"][0]["role"]
        return (status, {"error": {"message": text}}) if first == "system" else None

    server.refusal = refusal
    kept: list[RawResponse] = []
    turns = tuple(Message(role=role, content=role) for role in ("system", "user"))
    [answer] = asked_of(server, kept).complete(
        [Request(request_id="q", messages=turns, sampling=Sampling())]
    )
    assert isinstance(answer, tuple)
    assert kept[-1].left_out == ("system role",)
    assert json.loads(kept[-1].asked)["messages"] == [{"role": "user", "content": "system\n\nuser"}]


def test_a_key_that_a_server_repeats_is_not_stored_or_shown(server: ServerDouble) -> None:
    server.key = "sk-canary-4567"
    server.troubles += [Trouble("status", 400, text=f"Bad key {server.key}")] * 4
    kept: list[RawResponse] = []
    model = ServedModel(server.url, NAME, api_key=server.key, policy=HASTE, on_response=kept.append)
    [answer] = model.complete([question()])
    assert "Bad key [key]" in str(answer)
    assert "canary" not in f"{answer} {kept}"
    server.troubles.clear()
    server.key = None
    server.answer = lambda asked: "none of these"
    plain = Request(request_id="q", messages=question().messages, sampling=Sampling())
    for word in (None, "none", "x"):  # keys for servers that need none
        [[one]] = ServedModel(server.url, NAME, api_key=word, policy=HASTE).complete([plain])
        assert one.text == "none of these"


def test_a_value_that_is_refused_is_not_asked_for_without_a_limit(server: ServerDouble) -> None:
    server.refusal = lambda asked: (400, {"error": "max_tokens must be at most 32"})
    [answer] = asked_of(server).complete([question()])
    assert isinstance(answer, CompletionError)
    assert answer.kind == "refused"
    assert "max_tokens must be at most 32" in str(answer)
    assert len(server.asked) == 1


def test_a_model_that_only_thinks_passes_the_check(server: ServerDouble) -> None:
    text = "Could not finish the message because max_tokens or model output limit was reached."
    server.refusal = lambda asked: (
        (400, {"error": {"message": text}}) if asked["max_tokens"] == 1 else None
    )
    model = asked_of(server)
    assert model.check().model == NAME
    assert isinstance(model.complete([question()])[0], tuple)


# what is no answer


def reply(body: Any) -> Trouble:
    return Trouble("body", body=body if isinstance(body, bytes) else json.dumps(body).encode())


def router(code: int) -> Trouble:
    return reply({"error": {"message": "Provider returned error", "code": code}, "choices": None})


FAULTS: dict[str, tuple[Trouble, str]] = {
    "an error of the provider": (router(502), "server"),
    "a busy provider": (router(429), "busy"),
    "an error without a code": (reply({"error": {"message": "no"}}), "protocol"),
    "a stream of events": (reply(b'data: {"choices": []}\n\ndata: [DONE]\n\n'), "protocol"),
    "HTML": (reply(b"<html>log in</html>"), "protocol"),
    "a list": (reply([]), "protocol"),
    "null": (reply(None), "protocol"),
    "choices null": (reply({"choices": None}), "protocol"),
    "choices an object": (reply({"choices": {"0": {}}}), "protocol"),
    "choices of words": (reply({"choices": [GOOD]}), "protocol"),
    "choices nested too deeply": (reply(b'{"choices": ' + b"[" * 50_000), "protocol"),
    "half a surrogate pair": (reply(b'{"choices": "\xed\xa0\x80"}'), "encoding"),
    "UTF-16": (reply(json.dumps({"choices": []}).encode("utf-16")), "encoding"),
    "a refusal": (reply({"choices": [{"message": {"refusal": "I can't."}}]}), "unfit"),
    "nothing said": (reply({"choices": [{"message": {}}]}), "empty"),
    "no message": (reply({"choices": [{}]}), "empty"),
    "thoughts without an end": (
        Trouble("text", text="<think>hm", finish_reason="length"), "truncated"),
    "a superscript to wait for": (Trouble("status", 503, retry_after="\xb2"), "busy"),
    "400 nines to wait for": (Trouble("status", 429, retry_after="9" * 400), "busy"),
    "a year to wait for": (
        Trouble("status", 429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), "busy"),
    "another host": (Trouble("status", 307, location="http://192.0.2.1:9/v1/x"), "refused"),
    "the same host": (Trouble("status", 308, location="/v2/chat/completions"), "refused"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_answer_has_a_name(server: ServerDouble, name: str) -> None:
    trouble, kind = FAULTS[name]
    server.troubles += [trouble] * 4
    model = asked_of(server)
    started = time.monotonic()
    [answer] = model.complete([question()])
    assert time.monotonic() - started < 5
    assert isinstance(answer, CompletionError)
    assert answer.kind == kind
    assert "\n" not in str(answer)
    assert len(str(answer)) < 600
    server.troubles.clear()
    assert isinstance(model.complete([question()])[0], tuple)


def test_a_redirect_is_named_and_nothing_is_sent_there(server: ServerDouble) -> None:
    with ServerDouble(NAME, answer=lambda asked: GOOD, owned_by="library") as other:
        there = f"{other.url}/chat/completions"
        server.troubles += [Trouble("status", code, location=there) for code in (301, 302, 307)]
        for _ in range(3):
            [answer] = asked_of(server).complete([question()])
            assert isinstance(answer, CompletionError)
            assert there in str(answer)
        assert other.asked == other.other == []


# the environment: proxies and certificates

AWAY = "http://192.0.2.1:9/v1"  # an address for documentation, never routed


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ALL_PROXY": "socks5h://127.0.0.1:9"}, "SOCKS proxy .*pip install socksio"),
        ({"ALL_PROXY": "gopher://127.0.0.1:9"}, "the proxy .*gopher"),
        (
            {"HTTP_PROXY": "http://127.0.0.1:99999"},
            "port must be .*check the address and the proxy",
        ),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE.*cannot be used"),
        ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE.*cannot be used"),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "no answer from|does not take a connection"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named_in_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_environment(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    model = ServedModel(AWAY, NAME, policy=HASTE)
    [answer] = model.complete([question()])
    assert isinstance(answer, CompletionError)
    with pytest.raises(PreflightError, match=words) as caught:
        model.check()
    assert "\n" not in str(caught.value)


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_a_proxy_carries_what_is_not_on_this_machine(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double stands in for the proxy: it is asked for the whole address."""
    clear_environment(monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    away = ServedModel("http://models.example/v1", NAME, policy=HASTE)
    with pytest.raises(PreflightError, match="404"):
        away.check()
    assert server.other[0] == "http://models.example/v1/models"
    server.other.clear()
    monkeypatch.setenv("NO_PROXY", "models.example")
    with pytest.raises(PreflightError, match="no answer from"):
        away.check()
    assert server.other == []
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    asked_of(server).check()  # none to this machine


@pytest.mark.parametrize("key", ["sk-\u00e9t\u00e9", "sk-1\n", "sk\u2013dash"])
def test_a_key_that_no_header_holds_is_named_and_not_shown(server: ServerDouble, key: str) -> None:
    model = ServedModel(server.url, NAME, api_key=key, policy=HASTE)
    with pytest.raises(PreflightError, match="plain ASCII; copy it again") as caught:
        model.check()
    assert key not in str(caught.value)
    assert isinstance(model.complete([question()])[0], CompletionError)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext {names}"
    )
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key


def test_an_authority_of_ones_own_is_used_for_localhost_too(
    server: ServerDouble, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_environment(monkeypatch)
    certificate, key = authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.encrypt(context)
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    with pytest.raises(PreflightError, match="set SSL_CERT_FILE"):
        ServedModel(url, NAME, policy=HASTE).check()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    model = ServedModel(url, NAME, policy=HASTE)
    assert model.check().model == NAME
    assert isinstance(model.complete([question()])[0], tuple)
    with pytest.raises(PreflightError, match="no answer from"):
        ServedModel(url.replace("https", "http"), NAME, policy=HASTE).check()


# whole campaigns

HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"


def packed() -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, block = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in "12")
    yield HEAD % 200 + b"Content-Encoding: gzip\r\n\r\n"
    yield first
    yield from repeat(block)


# one a cycle, and how its requests are counted; '' for those that are answered
ILL: list[tuple[Trouble, str]] = [
    (Trouble("raw", raw=lambda: chain([HEAD % 500 + b"\r\n"], repeat(b"x" * 2**16))), "server"),
    (Trouble("raw", raw=packed), "protocol"),
    (reply(b'{"choices": ' + b"[" * 200_000), "protocol"),
    (Trouble("status", 307, location="http://192.0.2.1:9/v1"), "refused"),
    (reply({"model": "other", "choices": [{"message": {"content": "x"}}]}), "identity"),
    (
        reply(
            {
                "choices": [{"index": None, "message": {"content": json.dumps({"a": 1})}}],
                "usage": {"prompt_tokens": 2**63, "completion_tokens": -(10**30)},
            }
        ),
        "unfit",
    ),
]


@pytest.mark.usefixtures("hasty")
def test_a_campaign_goes_on_with_a_server_that_goes_wrong_in_every_cycle(
    server: ServerDouble, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    server.answer = plan_or_brief
    cycles = len(ILL) + 2  # the first and the last are well
    left = iter([*(trouble for trouble, _ in ILL), None])

    def between(step: str, done: int, total: int) -> None:
        if step == "match" and done == total:
            server.troubles.clear()
            if (trouble := next(left, None)) is not None:
                server.troubles += [trouble] * 12

    budget = {"cycles": cycles, "proposals_per_cycle": 2}
    asked = campaign_of("campaigns/chat_plain.yaml", toy_settings, server.url, budget=budget)
    run(tmp_path / "c", asked, progress=between)
    with Store.open(tmp_path / "c", command="test") as store:
        plans = store.load(Plan)
        asked_for = store.rows(
            "SELECT cycle, list(DISTINCT failure) AS kinds FROM asked "
            "WHERE purpose = 'plan' AND state = 'failed' GROUP BY cycle ORDER BY cycle"
        )
        proposed = store.rows("SELECT cycle, count(*) AS n FROM results GROUP BY cycle")
        counted = store.rows("SELECT sum(prompt_tokens) AS n FROM asked")
    kinds = [kind for _, kind in ILL]
    assert [(row["cycle"], row["kinds"]) for row in asked_for] == [
        (cycle, [kind]) for cycle, kind in enumerate(kinds, 1)
    ]
    assert [plan.made_by for plan in plans] == [NAME, *["rules"] * len(ILL), NAME]
    assert all(kind in plan.reasons[0] for kind, plan in zip(kinds, plans[1:], strict=False))
    assert {row["cycle"]: row["n"] for row in proposed} == dict.fromkeys(range(cycles), 2)
    assert 0 < counted[0]["n"] < 10_000
    assert (tmp_path / "c" / "journal.jsonl").stat().st_size < 3_000_000


PLAN = {
    "formulas": ["LiMnO2", "Li2MnO3"],
    "quotas": [{"operator": "perturbation", "proposals": 2}],
    "space_groups": [],
    "reason": "because",
}


def plan_or_brief(asked: dict[str, Any]) -> str:
    brief = "Write the brief" in asked["messages"][-1]["content"]
    return json.dumps({"summary": "-", "promising": [], "avoid": []} if brief else PLAN)


def fenced(body: dict[str, Any]) -> Any:
    return says(f"```json\n{body['choices'][0]['message']['content']}\n```")(body)


def thought_over(body: dict[str, Any]) -> Any:
    return says(THOUGHT + body["choices"][0]["message"]["content"])(body)


# a campaign file, how its server answers, who plans, and tokens out of one answer (None: unknown)
EXPECTED: dict[str, tuple[Dress, str, int | None]] = {
    "campaigns/chat_plain.yaml": (lambda body: body, "chat", 7),
    "campaigns/chat_fence.yaml": (fenced, "chat", 7),
    "campaigns/chat_think.yaml": (thought_over, "chat", 7),
    "campaigns/chat_snapshot.yaml": (model_is("chat-2024-07-18"), "chat", 7),
    "campaigns/chat_usagenull.yaml": (counts(1, None), "chat", UNKNOWN),
    "campaigns/chat_socks.yaml": (lambda body: body, "rules", None),
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullward.models.serving.RetryPolicy", lambda: HASTE)


def campaign_of(file: str, toy: dict[str, Any], url: str | None, **changes: Any) -> Campaign:
    """The file, with the toy potential and its reference, and the double for its server."""
    asked = dict(read_yaml(FILES / file, "campaign file").data)
    if url is not None:
        asked["chat"] = {**asked["chat"], "url": url}
    toy = {k: toy[k] for k in ("potential", "reference", "workers", "oxidation_states")}
    protocol = {"fmax_ev_per_a": 0.4, "max_steps": 5}
    changes = {"operators": ["perturbation"], "min_elements": 2, "protocol": protocol} | changes
    return parse_settings(Campaign, asked | toy | changes, file)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("file", EXPECTED)
def test_a_campaign_plans_with_every_server_that_answers(
    file: str,
    server: ServerDouble,
    toy_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clear_environment(monkeypatch)
    server.dress, planner, tokens = EXPECTED[file]
    server.answer = plan_or_brief
    socks = planner == "rules"
    if socks:
        monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    run(tmp_path / "c", campaign_of(file, toy_settings, None if socks else server.url))
    with Store.open(tmp_path / "c", command="test") as store:
        (plan,) = store.load(Plan)
        failures = store.load(ModelFailure)
        asked = store.rows("SELECT * FROM asked")
    assert plan.made_by == planner
    assert len(failures) == socks
    assert [row["completion_tokens"] is None for row in asked] == [tokens is None]
    if socks:
        assert "SOCKS proxy" in plan.reasons[0]
        assert "\n" not in plan.reasons[0]
    else:
        assert plan.quotas == {"perturbation": 2}
        name = "chat-2024-07-18" if "snapshot" in file else NAME
        assert asked[0]["answered_by"] == name
    with open_snapshot(tmp_path / "c") as connection:
        assert len(fetch_rows(connection, "SELECT * FROM results")) == 2


@pytest.mark.usefixtures("hasty")
def test_tokens_of_answers_without_use_count_against_the_budget(
    server: ServerDouble, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    server.answer = lambda asked: "I would rather talk about the weather."
    server.dress = counts(100, 50)
    budget = {"cycles": 9, "proposals_per_cycle": 2, "tokens": 500}
    asked = campaign_of("campaigns/chat_plain.yaml", toy_settings, server.url, budget=budget)
    run(tmp_path / "c", asked)
    with open_snapshot(tmp_path / "c") as connection:
        counted = count_requests(connection)
        (runs,) = fetch_rows(connection, "SELECT max(cycle) AS last FROM cycles")
    # two tries for each of two plans
    assert (counted["tokens_in"], counted["tokens_out"]) == (400, 200)
    assert counted["failures"] == {"unfit": 4}
    assert runs["last"] == 1


@pytest.mark.usefixtures("hasty")
def test_what_a_server_refuses_is_stored_and_said_in_the_report(
    server: ServerDouble, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    server.answer = plan_or_brief
    server.refusal = lambda asked: pydantic("seed") if "seed" in asked else None
    server.dress = counts(2**63, 10**30)
    run(tmp_path / "c", campaign_of("campaigns/chat_plain.yaml", toy_settings, server.url))
    with Store.open(tmp_path / "c", command="test") as store:
        refused, taken = sorted(store.load(ModelResponse), key=lambda one: one.exchange)
        assert store.load(Plan)[0].made_by == NAME
    assert (refused.status, refused.left_out) == (422, ())
    assert (taken.status, taken.left_out) == (200, ("seed",))
    report = json.loads((tmp_path / "c" / "report" / "report.json").read_text())
    assert "The server of chat refuses seed: sent without." in report["backends"]


@pytest.mark.usefixtures("hasty")
def test_a_resumed_campaign_insists_on_the_model_of_its_first_answer(
    server: ServerDouble, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    server.answer = plan_or_brief
    server.dress = model_is("chat-2024-07-18")
    file, budget = "campaigns/chat_snapshot.yaml", {"cycles": 2, "proposals_per_cycle": 2}
    asked = campaign_of(file, toy_settings, server.url, budget=budget)

    def between(step: str, done: int, total: int) -> None:
        if step == "match" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        run(tmp_path / "c", asked, progress=between)
    server.dress = model_is("chat-2025-01-01")
    run(tmp_path / "c", None)
    with Store.open(tmp_path / "c", command="test") as store:
        assert [plan.made_by for plan in store.load(Plan)] == [NAME, "rules"]
        assert {failure.kind for failure in store.load(ModelFailure)} == {"identity"}
