"""A campaign that asks a server: what came back is on disk before it is read."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.serving.server_double import ServerDouble, Trouble
from hullward.tools.records import ModelAnswer, ModelFailure, ModelRequest, ModelResponse, Plan
from hullward.tools.store import Store, funnel, open_snapshot

KEY = "sk-canary-4567"


def answer(asked: dict[str, Any]) -> str:
    """A plan where messages ask for one, else a crystal by the seed."""
    if "messages" in asked:
        return json.dumps(
            {"formulas": ["LiMn2O4"], "quotas": [], "space_groups": [], "reason": "."}
        )
    rng = random.Random(asked["seed"])
    a, b, c = (rng.uniform(3.4, 4.4) for _ in range(3))
    sites = "Li\n0.00 0.00 0.00\nMn\n0.50 0.50 0.00\nO\n0.50 0.00 0.50\nO\n0.00 0.50 0.50"
    return f"{a:.1f} {b:.1f} {c:.1f}\n90 90 90\n{sites}"


def campaign(settings: dict[str, Any], url: str, **changes: Any) -> Campaign:
    asked = {
        "operators": ["formula", "perturbation"],
        "crystal": {"url": url, "model": "double", "samples": 2, "max_tokens": 300},
        "chat": {"url": url, "model": "double", "max_tokens": 300},
        "budget": {"cycles": 1, "proposals_per_cycle": 8},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 60},
    }
    return parse_settings(Campaign, settings | asked | changes, "test")


def stored(directory: Path, kind: Any) -> list[Any]:
    with Store.open(directory, command="test") as store:
        return store.load(kind)


def test_a_server_writes_structures_and_plans_and_what_it_sent_is_kept(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_CRYSTAL_API_KEY", KEY)
    monkeypatch.setenv("HULLWARD_CHAT_API_KEY", KEY)
    directory = tmp_path / "c"
    with ServerDouble(answer=answer, max_model_len=4096, key=KEY) as server:
        asked = campaign(toy_settings, server.url, seeds_from=[str(toy_seeds)])
        run(directory, asked)
        sent = len(server.asked)
        assert sent == 3  # one plan, two prompts
        paths = {path for path, _ in server.asked}
        assert len(paths) == 2  # chat and plain completions
        assert {body["n"] for _, body in server.asked} == {1, 2}
        responses, answers = stored(directory, ModelResponse), stored(directory, ModelAnswer)
        assert len(responses) == sent
        assert len(answers) == 5
        assert stored(directory, Plan)[0].made_by == "double"

        # killed between a response and its reading: it is read, not asked for again
        lines = (directory / "journal.jsonl").read_text().splitlines(keepends=True)
        last = max(n for n, line in enumerate(lines) if '"kind":"ModelResponse"' in line)
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "journal.jsonl").write_text("".join(lines[: last + 1]))
        run(tmp_path / "d", asked)
        assert len(server.asked) == sent
    assert [a.text for a in stored(tmp_path / "d", ModelAnswer)] == [a.text for a in answers]
    query = "SELECT proposal_id, candidate_id, state FROM results ORDER BY 1"
    with open_snapshot(directory) as one, open_snapshot(tmp_path / "d") as other:
        assert one.execute(query).fetchall() == other.execute(query).fetchall()
    for path in directory.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_what_goes_wrong_is_counted_and_the_campaign_goes_on(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"operators": ["formula"], "chat": "rules"}
    settings["budget"] = {"cycles": 1, "proposals_per_cycle": 8}
    with ServerDouble(answer=answer, max_model_len=4096) as server:
        asked = campaign(toy_settings, server.url, **settings)
        server.troubles.extend(
            [
                Trouble("status", status=400, body=b"no"),
                Trouble("text", text="I would rather not."),
                Trouble("text", text=answer({"seed": 1}), finish_reason="length"),
            ]
        )
        run(tmp_path / "c", asked)
    failed = stored(tmp_path / "c", ModelFailure)
    assert len(failed) == 1
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
    assert counting.proposed == 6
    assert counting.rejections["prose"] >= 1
    assert counting.rejections["truncated"] >= 1
    report = json.loads((tmp_path / "c" / "report" / "report.json").read_text())
    (use,) = report["asked"]
    assert (use["requests"], use["answered"], use["failed"]) == (4, 3, 1)
    assert report["backends"].startswith(
        f"Structures were written by double at {asked.crystal.url}"
    )


@pytest.mark.parametrize(("model", "kind"), [("another", "refused"), ("double", "context")])
def test_a_server_that_cannot_answer_is_said_and_the_other_operators_go_on(
    model: str, kind: str, toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path
) -> None:
    """Without the model that was named; with a context that holds no prompt."""
    with ServerDouble(model="double", answer=answer, max_model_len=100) as server:
        backend = {"url": server.url, "model": model, "samples": 2, "max_tokens": 99}
        settings = toy_settings | {"seeds_from": [str(toy_seeds)]}
        run(tmp_path / "c", campaign(settings, server.url, crystal=backend, chat="rules"))
    failed = stored(tmp_path / "c", ModelFailure)
    assert {f.kind for f in failed} == {kind}
    assert len(failed) == len(stored(tmp_path / "c", ModelRequest)) == 2
    with open_snapshot(tmp_path / "c") as connection:
        assert funnel.verify(connection).proposed == 4
    report = (tmp_path / "c" / "report" / "report.md").read_text()
    assert f"2: 2 {kind}" in report
