"""What a real vLLM server does at its limits: a context that is full, an engine that dies.

It has a server of its own, with a short context that is cheap to fill.
"""

import os
import signal
import subprocess
import time

import pytest

from hullward.models.language import CompletionError, Request, Sampling
from hullward.models.serving import ServedModel, ServerProcess
from hullward.models.serving.breaker import RetryPolicy

pytestmark = pytest.mark.vllm

STARTING_S = 900
CONTEXT = 512


@pytest.fixture(scope="module")
def plan(tiny_vllm):
    return tiny_vllm(context_tokens=CONTEXT)


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


def ask(prompt="abc", number=0, **sampling):
    return Request(
        request_id=f"q-{number}",
        prompt=prompt,
        sampling=Sampling(**({"max_tokens": 16} | sampling)),
    )


def only(answers):
    [answer] = answers
    assert not isinstance(answer, CompletionError), answer
    return answer


@pytest.mark.parametrize("letters", [9, CONTEXT - 17, CONTEXT - 16, 3 * CONTEXT])
def test_no_request_is_refused_for_its_length(model, letters):
    """One token a letter and one for the beginning: what we let through, the server takes."""
    [answer] = model.complete([ask("a" * letters)])
    if letters + 1 + 16 <= CONTEXT:
        assert answer[0].prompt_tokens == letters + 1
    else:
        assert answer.kind == "context"
        assert "the prompt has" in str(answer)


def engines(child):
    """The processes of the server's group, without its first."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-g", str(child._process.pid)], capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split() if int(pid) != child._process.pid]


def test_a_killed_engine_is_noticed_and_a_new_server_is_used_at_once(plan, server):
    """Last: it ends the server of this module and starts another at the same place."""
    policy = RetryPolicy(read_s=20, total_s=30, probe_s=10, rest_s=1, outage_s=5, backoff_s=0.2)
    model = ServedModel(plan.url, "tiny", policy=policy)
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
        time.sleep(policy.rest_s)
        back = time.monotonic()
        assert only(model.complete([ask()]))
        assert time.monotonic() - back < 60
