"""Whole campaigns against a server that goes wrong in every way: counted, said, and gone on."""

import json
import math
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import BreakerError
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.server_double import ServerDouble, Trouble
from hullward.tools.records import ModelFailure, ModelRequest, Plan
from hullward.tools.report import count_requests
from hullward.tools.store import Store, fetch_rows, funnel, open_snapshot

HASTE = RetryPolicy(
    connect_s=2, read_s=1.5, total_s=2, probe_s=2, tries=2, backoff_s=0.01, breaker_failures=50,
    rest_s=0.05, outage_s=0.5,
)  # fmt: skip
BACK_WITHIN_S = 60  # what is promised
HALF = "4.1 4.1 4.1\n90 90 90\nLi\n0.00 0.00 0.00\nMn\n0.50 0.50"
LOOP = "and then " * 60
PLAN = {"formulas": ["LiMnO2"], "quotas": [], "space_groups": [], "reason": "It is a salt."}


def answer(asked: dict[str, Any]) -> str:
    """A plan or a brief where messages ask for one, else a crystal by the seed."""
    if "messages" in asked:
        brief = "brief" in asked["messages"][-1]["content"].splitlines()[-1]
        return json.dumps({"summary": "-", "promising": [], "avoid": []} if brief else PLAN)
    rng = random.Random(asked.get("seed"))  # a probe has none
    lengths = " ".join(f"{rng.uniform(3.4, 5.4):.1f}" for _ in range(3))
    sites = "Li\n0.00 0.00 0.00\nMn\n0.50 0.50 0.00\nO\n0.50 0.00 0.50\nO\n0.00 0.50 0.50"
    return f"{lengths}\n90 90 90\n{sites}"


Begin = Callable[[ServerDouble], None]


def nothing(server: ServerDouble) -> None:
    """No fault at all."""


def every(trouble: Trouble) -> Begin:
    """All tries of all requests meet this trouble, until it is over."""
    return lambda server: server.troubles.extend([trouble] * 9)


def hangs(server: ServerDouble) -> None:
    server.hanging = True  # /version and /v1/models answer all the while


def restarts(**other: str) -> Begin:
    """The server comes back with another model."""

    def begin(server: ServerDouble) -> None:
        server.down()
        server.up(**other)

    return begin


def text(said: str, reason: str = "stop") -> Begin:
    return every(Trouble("text", text=said, finish_reason=reason))


def body(said: bytes) -> Begin:
    return every(Trouble("body", body=said))


# what happens to the server, and how the requests that meet it are counted
FAULTS: list[tuple[Begin, str]] = [
    (nothing, ""),  # first, so that the model is known
    (ServerDouble.down, "unreachable"),
    (every(Trouble("cut")), "unreachable"),
    (every(Trouble("stall")), "timeout"),
    (every(Trouble("trickle")), "timeout"),
    (hangs, "timeout"),
    (every(Trouble("status", 429, retry_after="3600")), "busy"),
    (every(Trouble("status", 500)), "server"),
    (restarts(root="/models/other"), "identity"),
    (every(Trouble("status", 400, text="no such parameter")), "refused"),
    (every(Trouble("status", 400, text="maximum context length is 9")), "context"),
    (body(b'{"choices": [{"te'), "protocol"),
    (body(b'{"choices": "\xff"}'), "encoding"),
]
# the same for texts that are no structures: proposals, and rejected with this reason
TEXTS: list[tuple[Begin, str]] = [
    (text("I would rather talk about the weather."), "prose"),
    (text(" \n" * 20), "empty"),
    (text(HALF, "length"), "truncated"),
    (text(f"{HALF} 0.00\n{LOOP}"), "repetition"),
    (text(HALF, "repetition"), "repetition"),
]
# and for plans, which a schema holds and which are asked for once more
PLANS: list[tuple[Begin, str]] = [
    (text("Sure! I would try spinels."), "unfit"),
    (text(""), "empty"),
    (text(json.dumps(PLAN)[:30], "length"), "truncated"),
    (text(LOOP), "repetition"),
    (body(b"\xff\xfe"), "encoding"),
]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hullward.models.serving.RetryPolicy", lambda: HASTE)


def campaign(settings: dict[str, Any], url: str, cycles: int, **changes: Any) -> Campaign:
    asked = {
        "operators": ["de_novo", "elements", "formula", "space_group", "e_hull", "perturbation"],
        "crystal": {
            "url": url,
            "model": "double",
            "max_tokens": 90,
            "samples": 1,
            "grammar": False,
        },
        "budget": {"cycles": cycles, "proposals_per_cycle": 6},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 5},
    }
    return parse_settings(Campaign, settings | asked | changes, "test")


def stored(directory: Path, kind: Any) -> list[Any]:
    with Store.open(directory, command="test") as store:
        return store.load(kind)


def go_wrong(
    directory: Path,
    asked: Campaign,
    server: ServerDouble,
    faults: Sequence[Begin],
    ends_after: Collection[str],
    begins_after: Collection[str],
) -> None:
    """Run the campaign with one fault after the other, between its steps of these names."""
    left = iter(faults)
    model, root = server.model, server.root

    def between(step: str, done: int, total: int) -> None:
        if step in ends_after and done == total:
            server.troubles.clear()
            server.hanging = False
            server.down()
            server.up(model, root)
        if step in begins_after and done == total:
            next(left, nothing)(server)

    next(left)(server)
    run(directory, asked, progress=between)
    assert next(left, None) is None, "a fault was left over"


def test_every_fault_is_counted_by_its_name_and_passes(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path
) -> None:
    """In every cycle three operators meet a fault each, two find the server well again."""
    ill, well = ("de_novo", "elements", "space_group"), ("formula", "e_hull")
    faults = FAULTS + TEXTS
    cycles = math.ceil(len(faults) / len(ill))
    with ServerDouble(answer=answer, max_model_len=4096) as server:
        go_wrong(
            tmp_path / "c",
            campaign(toy_settings, server.url, cycles, seeds_from=[str(toy_seeds)]),
            server,
            [begin for begin, _ in faults],
            ends_after=[f"ask {name}" for name in ill],
            begins_after=["match", "ask de_novo", "ask formula"],
        )
    asked = {
        (r.cycle, r.purpose): r.request_id
        for r in sorted(stored(tmp_path / "c", ModelRequest), key=lambda r: r.position)
    }
    failed = {f.request_id: f.kind for f in stored(tmp_path / "c", ModelFailure)}
    assert not failed.keys() & {asked[cycle, name] for cycle in range(cycles) for name in well}
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
        counts = count_requests(connection)
        proposed = {
            (row["cycle"], row["operator"]): row["reason"]
            for row in fetch_rows(connection, "SELECT cycle, operator, reason FROM results")
        }
    for number, (_, kind) in enumerate(faults):
        cycle, name = number // len(ill), ill[number % len(ill)]
        assert failed.get(asked[cycle, name], "") == (kind if number < len(FAULTS) else "")
        assert proposed.get((cycle, name)) == (kind if number >= len(FAULTS) else None)
    kinds = Counter(kind for _, kind in FAULTS if kind)
    reasons = Counter(reason for _, reason in TEXTS)
    assert counts["failures"] == kinds
    assert counts["waiting"] == 0
    assert {reason: counting.rejections[reason] for reason in reasons} == reasons
    for cycle in range(cycles):
        assert {name for at, name in proposed if at == cycle} >= {*well, "perturbation"}

    report = json.loads((tmp_path / "c" / "report" / "report.json").read_text())
    assert report["runs"][-1]["reason"] == "finished"
    assert sum((Counter(use["failures"]) for use in report["asked"]), Counter()) == kinds
    assert sum(use["unreadable"] for use in report["asked"]) == len(TEXTS)


def test_a_chat_model_that_goes_wrong_leaves_the_plan_to_the_rules(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    faults = [*(begin for begin, _ in PLANS), nothing]
    with ServerDouble(answer=answer, max_model_len=4096) as server:
        changes = {
            "operators": ["perturbation"],
            "chat": {"url": server.url, "model": "double", "max_tokens": 90},
            "budget": {"cycles": len(faults), "proposals_per_cycle": 2},
        }
        asked = campaign(toy_settings, server.url, len(faults), **changes)
        go_wrong(tmp_path / "c", asked, server, faults, ["check"], ["match"])
    requests = {r.request_id: r for r in stored(tmp_path / "c", ModelRequest)}
    kinds: dict[tuple[int, str], set[str]] = {}
    for failure in stored(tmp_path / "c", ModelFailure):
        request = requests[failure.request_id]
        kinds.setdefault((request.cycle, request.purpose), set()).add(failure.kind)
    plans = stored(tmp_path / "c", Plan)
    for cycle, (_, kind) in enumerate(PLANS):
        assert kinds.pop((cycle, "plan")) == {kind}
        assert kinds.pop((cycle, "brief"), {kind}) == {kind}
        assert plans[cycle].made_by == "rules"
        assert f"gave no usable plan ({kind}: " in plans[cycle].reasons[0]
        asked_for = [r for r in requests.values() if (r.cycle, r.purpose) == (cycle, "plan")]
        assert len(asked_for) <= 2
    assert not kinds
    assert plans[-1].made_by == "double"
    with open_snapshot(tmp_path / "c") as connection:
        assert funnel.verify(connection).proposed == 2 * len(faults)
    said = json.loads((tmp_path / "c" / "report" / "report.json").read_text())["backends"]
    assert f"gave no usable plan in {len(PLANS)} of {len(faults)} cycles" in said


def test_in_an_outage_the_other_operators_go_on_and_after_it_all_do(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that hangs for a whole cycle: nothing more is sent to it until it writes again."""
    policy = replace(HASTE, breaker_failures=2)
    monkeypatch.setattr("hullward.models.serving.RetryPolicy", lambda: policy)

    def rested(server: ServerDouble) -> None:
        time.sleep(policy.rest_s)

    with ServerDouble(answer=answer, max_model_len=4096) as server:
        operators = ["de_novo", "formula", "perturbation"]
        seeds = [str(toy_seeds)]
        asked = campaign(toy_settings, server.url, 3, operators=operators, seeds_from=seeds)
        go_wrong(tmp_path / "c", asked, server, [nothing, hangs, rested], ["check"], ["match"])
        sent = [said for _, said in server.asked if said["max_tokens"] > 1]  # the rest are probes
    requests = {r.request_id: r for r in stored(tmp_path / "c", ModelRequest)}
    failures = stored(tmp_path / "c", ModelFailure)
    purposes = {(requests[f.request_id].cycle, requests[f.request_id].purpose) for f in failures}
    assert purposes == {(1, "de_novo"), (1, "formula")}
    assert {f.kind for f in failures} == {"timeout", "outage"}
    assert all(f.retry for f in failures)
    assert len(sent) < len(requests)
    with open_snapshot(tmp_path / "c") as connection:
        funnel.verify(connection)
        found = fetch_rows(
            connection, "SELECT cycle, count(DISTINCT operator) AS n FROM results GROUP BY 1"
        )
    assert {row["cycle"]: row["n"] for row in found} == {0: 3, 1: 1, 2: 3}


def test_where_nothing_else_proposes_an_outage_stops_the_run_and_resume_goes_on(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """It costs one cycle, not all that are left."""
    with ServerDouble(answer=answer, max_model_len=4096) as server:
        asked = campaign(toy_settings, server.url, 4, operators=["formula"])
        left = iter([ServerDouble.down])

        def between(step: str, done: int, total: int) -> None:
            if step == "match" and done == total:
                next(left, nothing)(server)

        with pytest.raises(BreakerError, match=r"cycle 1 proposed nothing: 6 .* unreachable: no"):
            run(tmp_path / "c", asked, progress=between)
        assert "hullward resume" in (tmp_path / "c" / "report" / "report.md").read_text()
        server.up()
        run(tmp_path / "c", None)
    with open_snapshot(tmp_path / "c") as connection:
        found = fetch_rows(connection, "SELECT cycle, count(*) AS n FROM results GROUP BY 1")
    assert {row["cycle"]: row["n"] for row in found} == {0: 6, 2: 6, 3: 6}


def test_a_wrong_address_is_said_and_the_other_operators_go_on(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path
) -> None:
    """A server without /v1 for the crystals, a port where nobody listens for the plans."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with ServerDouble(answer=answer, max_model_len=4096) as server:
        asked = campaign(
            toy_settings,
            server.url.removesuffix("/v1"),
            1,
            operators=["formula", "perturbation"],
            seeds_from=[str(toy_seeds)],
            budget={"cycles": 1, "proposals_per_cycle": 4},
            chat={"url": nobody, "model": "double", "max_tokens": 90},
        )
        run(tmp_path / "c", asked)
    requests = {r.request_id: r for r in stored(tmp_path / "c", ModelRequest)}
    failures = stored(tmp_path / "c", ModelFailure)
    by_role = {requests[f.request_id].backend: f for f in failures}
    assert len(failures) == len(requests) == 3
    assert (by_role["crystal"].kind, by_role["chat"].kind) == ("refused", "unreachable")
    assert "check the address (it ends with /v1)" in by_role["crystal"].message
    with open_snapshot(tmp_path / "c") as connection:
        assert funnel.verify(connection).proposed == 2


def test_by_default_a_server_that_is_back_is_asked_again_within_a_minute() -> None:
    p = RetryPolicy()
    # it comes back while a probe hangs: asked who it is, then for a token; the next one is its
    assert max(p.rest_s, 2 * p.probe_s) + p.probe_s <= BACK_WITHIN_S
    # it comes back before it was given up: the longest wait between two tries
    assert 1.5 * p.backoff_s * 2 ** (p.tries - 2) <= p.longest_wait_s <= BACK_WITHIN_S
    assert p.outage_s <= BACK_WITHIN_S  # and nobody waits longer for one that does not
