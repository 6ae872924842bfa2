"""A campaign that asks language models: everything they say is kept, counted and replayable."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.language import ModelEndpoint, ModelEndpoints
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import RunInterruptedError
from hullward.models.language import Answer, Completion, CompletionError, Request, Sampling
from hullward.tools.crystal.text import can_hold
from hullward.tools.records import ModelAnswer, ModelFailure, ModelRequest, Plan, Proposal
from hullward.tools.report import count_requests, requests_line
from hullward.tools.store import Store, funnel, open_snapshot, rebuild

TABLE = """SELECT cycle, operator, proposal_id, candidate_id, parents, state, formula, reason,
                  duplicate_before, known_before, rediscovered, duplicate_after,
                  round(energy_ev_per_atom, 4), round(e_above_union_ev_per_atom, 4)
           FROM results ORDER BY cycle, proposal_id"""
LANGUAGE = ["de_novo", "elements", "formula", "space_group", "e_hull", "infill"]


def crystal_for(request: Request, index: int) -> str:
    """A crystal of Li, Mn and O that depends on the seed of the request and nothing else."""
    rng = random.Random(f"{request.sampling.seed}-{index}")
    species = [*["Li", "Mn", "O"], *rng.choices(["Li", "Mn", "O"], k=rng.randint(0, 3))]
    lines = [" ".join(f"{rng.uniform(3.4, 5):.1f}" for _ in range(3)), "90 90 90"]
    for place, symbol in enumerate(species):
        xyz = (place % 2 / 2, place // 2 % 2 / 2, place // 4 / 2)
        lines += [symbol, " ".join(f"{x + rng.uniform(0, 0.06):.2f}" for x in xyz)]
    return "\n".join(lines)


class Answering:
    """A model that answers every request by a rule, and remembers what it was asked."""

    name = "answering@1"

    def __init__(self, rule: Callable[[Request, int], str | CompletionError] = crystal_for) -> None:
        self.rule = rule
        self.asked: list[Request] = []

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Answer:
        self.asked.append(request)
        said = [self.rule(request, index) for index in range(request.sampling.n)]
        if isinstance(said[0], CompletionError):
            return said[0]
        return tuple(
            Completion(
                text=str(text),
                model=self.name,
                finish_reason="stop",
                prompt_tokens=len(request.prompt),
                completion_tokens=len(str(text)),
            )
            for text in said
        )


class Refusing:
    """A model that nobody may ask."""

    name = "refusing"

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        raise AssertionError(f"asked for {[request.request_id for request in requests]}")


def endpoint(model: Any, **changes: Any) -> ModelEndpoint:
    fields: dict[str, Any] = {"role": "crystal", "label": "test", "samples": 2, "at_once": 2}
    return ModelEndpoint(model=model, sampling=Sampling(max_tokens=400), **fields | changes)


def chat(model: Any, **changes: Any) -> ModelEndpoint:
    return endpoint(model, role="chat", label="chatter", form="server", samples=1, **changes)


def campaign(settings: dict[str, Any], **changes: Any) -> Campaign:
    asked: dict[str, Any] = {
        "crystal": {"recorded": "/nowhere.jsonl"},
        "operators": ["formula", "perturbation"],
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 80},  # quick, not good
        "budget": {"cycles": 3, "proposals_per_cycle": 6},
    }
    return parse_settings(Campaign, settings | asked | changes, "test")


def table(directory: Path) -> list[tuple[Any, ...]]:
    with open_snapshot(directory) as connection:
        funnel.verify(connection)
        return connection.execute(TABLE).fetchall()


def stored(directory: Path, kind: Any) -> list[Any]:
    with Store.open(directory, command="test") as store:
        return store.load(kind)


@pytest.fixture(scope="module")
def finished(toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of three cycles whose model answered everything; tests only read it."""
    directory = tmp_path_factory.mktemp("written") / "c"
    run(directory, campaign(toy_settings), endpoints=ModelEndpoints.of(endpoint(Answering())))
    return directory


def test_no_space_group_is_asked_for_that_cannot_hold_the_formula(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    budget = {"cycles": 1, "proposals_per_cycle": 12}
    asked = campaign(toy_settings, operators=["space_group"], budget=budget, max_atoms=8)
    run(tmp_path / "c", asked, endpoints=ModelEndpoints.of(endpoint(Answering())))
    wishes = [request.wish for request in stored(tmp_path / "c", ModelRequest)]
    assert wishes
    assert all(can_hold(w.space_group or 0, w.formula or "", 8) for w in wishes)


def test_every_operator_asks_in_its_own_words(toy_settings: dict[str, Any], tmp_path: Path) -> None:
    """And every answer becomes a proposal that says how it came about."""
    model = Answering(lambda r, i: "Mn." if "[MASK]" in r.prompt else crystal_for(r, i))
    budget = {"cycles": 1, "proposals_per_cycle": 18}
    asked = campaign(toy_settings, operators=LANGUAGE, budget=budget)
    run(tmp_path / "c", asked, endpoints=ModelEndpoints.of(endpoint(model)))
    requests = stored(tmp_path / "c", ModelRequest)
    words = {r.purpose: r.prompt for r in reversed(requests)}
    assert sorted(words) == sorted(LANGUAGE)
    assert "The chemical formula is " in words["formula"]
    assert "The elements are Li, Mn, O. " in words["elements"]
    assert "The spacegroup number is " in words["space_group"]
    assert "The energy above the convex hull is 0.00. " in words["e_hull"]
    assert "[MASK]" in words["infill"]
    assert not any(w in words["de_novo"] for w in ("formula is", "elements are", "number is"))
    proposals = stored(tmp_path / "c", Proposal)
    assert Counter(p.operator for p in proposals) == dict.fromkeys(LANGUAGE, 3)
    by_id = {r.request_id: r for r in requests}
    for p in proposals:
        request = by_id[p.request_id]
        assert (p.prompt, p.seed, p.parents) == (request.prompt, request.seed, request.parents)
        assert p.sampling["temperature"] == 1.0
        assert p.model == "answering@1"
        assert p.prompt_tokens == len(p.prompt or "")
        assert p.plan_id == request.plan_id
    filled = [p for p in proposals if p.operator == "infill"]
    assert all(p.parents and p.format == "crystal_json" and '"Mn"' in p.raw for p in filled)
    assert len({r.seed for r in requests}) == len(requests)


CRYSTAL = "3.0 3.0 3.0\n90 90 90\nLi\n0.00 0.00 0.00\nO\n0.50 0.50 0.50"
SPOILT = {
    "": "empty",
    " \n\t\n": "empty",
    "I am sorry, but I cannot help with that.": "prose",
    "3.0, 3.0, 3.0\n90, 90, 90\nLi\n0, 0, 0": "bad_lengths",
    "3.0 3.0 3.0\n90 90 90\nLi\n0.00 0.00 0.00\nO\n0.5": "truncated",
    "3.0 3.0 3.0\n90 90 90\nXx\n0.00 0.00 0.00": "unknown_element",
    "3.0 3.0 3.0\n90 90\nLi\n0.00 0.00 0.00": "bad_angles",
    "3.0 3.0 3.0\n90 90 90": "no_sites",
    "3.0 3.0 3.0\n90 90 90\nLi\n0.00 -0.10 0.00": "bad_coordinate_line",
    "3.0 3.0 3.0\n90 90 90" + "\nLi\n0.00 0.00 0.00" * 40: "repetition",
    "\ud800 half a pair": "prose",
}


def test_what_cannot_be_read_is_a_proposal_rejected_with_its_reason(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    texts = iter([*SPOILT, f"```\n{CRYSTAL}\n```", f"{CRYSTAL}\n\nTitle: something else\nLi"])
    model = Answering(lambda request, index: next(texts))
    budget = {"cycles": 1, "proposals_per_cycle": len(SPOILT) + 2}
    asked = campaign(toy_settings, operators=["formula"], budget=budget)
    run(tmp_path / "c", asked, endpoints=ModelEndpoints.of(endpoint(model)))
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
    assert counting.proposed == len(SPOILT) + 2
    assert counting.states["rejected_parse"] == len(SPOILT)
    assert counting.rejections == Counter(SPOILT.values())
    good = [p for p in stored(tmp_path / "c", Proposal) if p.raw == CRYSTAL]
    assert sorted(p.sampling["cut_characters"] for p in good) == [8, 26]


def test_a_request_that_failed_is_no_proposal(
    toy_settings: dict[str, Any], toy_seeds: Path, tmp_path: Path
) -> None:
    def rule(request: Request, index: int) -> str | CompletionError:
        if len(model.asked) % 3 == 0:
            return CompletionError("nobody answers", retry=True, kind="unreachable")
        return crystal_for(request, index)

    model = Answering(rule)
    budget = {"cycles": 1, "proposals_per_cycle": 16}
    run(
        tmp_path / "c",
        campaign(toy_settings, budget=budget, seeds_from=[str(toy_seeds)]),
        endpoints=ModelEndpoints.of(endpoint(model)),
    )
    failed = stored(tmp_path / "c", ModelFailure)
    assert 0 < len(failed) < 4
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
        states = dict(connection.execute("SELECT state, count(*) FROM asked GROUP BY 1").fetchall())
        counts = count_requests(connection)
    assert states == {"failed": len(failed), "answered": 4 - len(failed)}
    assert counts["failures"] == {"unreachable": len(failed)}
    line = requests_line(counts)
    assert line.startswith(f"{4 - len(failed)} answered, {len(failed)} failed ({len(failed)} unr")
    assert counting.proposed == 8 + 2 * (4 - len(failed))
    again = Answering()
    run(tmp_path / "c", None, endpoints=ModelEndpoints.of(endpoint(again)))
    assert not again.asked  # what failed stays failed: the table does not change


def test_operators_go_on_while_the_model_is_away(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Perturbation has no parents but known phases, and takes these rather than nothing."""
    away = Answering(lambda r, i: CompletionError("refused", retry=False, kind="unreachable"))
    run(tmp_path / "c", campaign(toy_settings), endpoints=ModelEndpoints.of(endpoint(away)))
    with open_snapshot(tmp_path / "c") as connection:
        rows = connection.execute("SELECT operator, count(*) FROM proposals GROUP BY 1").fetchall()
    assert [name for name, _ in rows] == ["perturbation"]
    report = json.loads((tmp_path / "c" / "report" / "report.json").read_text())
    (use,) = report["asked"]
    assert (use["purpose"], use["answered"], use["failed"]) == ("formula", 0, use["requests"])
    assert use["failures"] == {"unreachable": use["requests"]}


def test_the_same_answers_give_the_same_table(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    run(tmp_path / "c", campaign(toy_settings), endpoints=ModelEndpoints.of(endpoint(Answering())))
    assert table(tmp_path / "c") == table(finished)


def test_a_finished_campaign_asks_nothing_and_rebuilds_the_same(finished: Path) -> None:
    before = table(finished)
    run(finished, None, endpoints=ModelEndpoints.of(endpoint(Refusing())))
    rebuild(finished)
    assert table(finished) == before


@pytest.mark.parametrize("cut", range(4))
def test_whatever_the_journal_lost_answers_in_it_are_not_asked_for_again(
    cut: int, finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """A kill between an answer and its proposal, or between two answers, anywhere."""
    directory = tmp_path / "c"
    directory.mkdir()
    lines = (finished / "journal.jsonl").read_text().splitlines(keepends=True)
    said = [n for n, line in enumerate(lines) if '"kind":"ModelAnswer"' in line]
    end = said[random.Random(cut).randrange(len(said))] + 1
    (directory / "journal.jsonl").write_text("".join(lines[:end]))
    model = Answering()
    run(directory, campaign(toy_settings), endpoints=ModelEndpoints.of(endpoint(model)))
    assert table(directory) == table(finished)
    kept = Counter(json.loads(lines[n])["data"]["request_id"] for n in said if n < end)
    whole = {request_id for request_id, n in kept.items() if n == 2}
    assert not whole & {request.request_id for request in model.asked}
    answers = stored(directory, ModelAnswer)
    assert len(answers) == len({(a.request_id, a.index) for a in answers})
    assert answers == stored(finished, ModelAnswer)


def test_a_model_that_dies_half_way_loses_what_it_was_writing_and_no_more(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    model = Answering()

    def dies(request: Request, index: int) -> str:
        if len(model.asked) == 5:
            raise KeyboardInterrupt
        return crystal_for(request, index)

    model.rule = dies
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "c", campaign(toy_settings), endpoints=ModelEndpoints.of(endpoint(model)))
    heard = {a.request_id for a in stored(tmp_path / "c", ModelAnswer)}
    assert 0 < len(heard) < 5
    second = Answering()
    run(tmp_path / "c", None, endpoints=ModelEndpoints.of(endpoint(second)))
    assert table(tmp_path / "c") == table(finished)
    assert not heard & {request.request_id for request in second.asked}


def test_preparing_the_next_cycle_meanwhile_changes_nothing(
    finished: Path, toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    """In the thread that runs while workers relax, or between cycles: one table."""
    model = Answering()
    chatty = Answering(lambda request, index: "no JSON")
    for name, overlap in (("ahead", True), ("after", False)):
        asked = campaign(
            toy_settings, overlap=overlap, workers=1, chat={"recorded": "/nowhere.jsonl"}
        )
        run(tmp_path / name, asked, endpoints=ModelEndpoints.of(endpoint(model), chat(chatty)))
    assert table(tmp_path / "ahead") == table(tmp_path / "after")
    assert stored(tmp_path / "ahead", Plan) == stored(tmp_path / "after", Plan)
    journal = (tmp_path / "ahead" / "journal.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in journal]
    cycle_1 = next(i for i, k in enumerate(kinds) if k == "Plan" and '"cycle":1' in journal[i])
    assert cycle_1 < kinds.index("CycleEnd")  # planned before the first cycle had ended


def test_parents_and_memories_are_in_the_prompt_and_make_room_where_it_is_short(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    budget = {"cycles": 3, "proposals_per_cycle": 8}
    asked = campaign(
        toy_settings, operators=["mutation", "crossover", "perturbation"], budget=budget
    )
    wide = Answering()
    run(tmp_path / "wide", asked, endpoints=ModelEndpoints.of(endpoint(wide)))
    told = [r for r in stored(tmp_path / "wide", ModelRequest) if r.cycle == 2]
    assert any(r.memories for r in told)
    assert all(r.memories_left_out == 0 for r in told)
    for request in told:
        assert len(request.parents) == {"mutation": 1, "crossover": 2}[request.purpose]
        assert "At most 10 atoms" in request.prompt
        assert "Li +1; Mn +2, +3, +4; O -2." in request.prompt
        for parent in request.parents:
            assert parent
    longest = max(len(r.system) + len(r.prompt) for r in told if r.purpose == "crossover")
    context = longest + 400 - 60  # a little less than the longest prompt and its answer
    shutil.rmtree(tmp_path / "wide")
    narrow = endpoint(Answering(), context_tokens=context)
    run(tmp_path / "narrow", asked, endpoints=ModelEndpoints.of(narrow))
    left_out = [r.memories_left_out for r in stored(tmp_path / "narrow", ModelRequest)]
    assert any(left_out)
    for request in stored(tmp_path / "narrow", ModelRequest):
        assert len(request.system) + len(request.prompt) + 1 + 400 <= context


def test_a_parent_too_long_for_the_context_is_counted_and_not_sent(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    model = Answering()
    budget = {"cycles": 1, "proposals_per_cycle": 4}
    asked = campaign(toy_settings, operators=["mutation", "perturbation"], budget=budget)
    run(tmp_path / "c", asked, endpoints=ModelEndpoints.of(endpoint(model, context_tokens=500)))
    failed = stored(tmp_path / "c", ModelFailure)
    assert failed
    assert {f.kind for f in failed} == {"context"}
    assert not model.asked
    with open_snapshot(tmp_path / "c") as connection:
        assert funnel.verify(connection).proposed == 2  # the other operator's
