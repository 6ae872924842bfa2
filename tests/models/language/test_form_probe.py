"""Finding out which prompt form a model knows."""

import json

import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.models.errors import PreflightError
from hullward.models.language import Completion, ProbeCase, Sampling, probe_forms
from hullward.models.serving import ServedModel
from hullward.models.serving.server_double import ServerDouble, Trouble

CASES = [
    ProbeCase(question=f"q {i}", plain=f"p {i}", answer="4.2 right", system="s") for i in range(6)
]
FORMS = ("input-output", "chatml", "plain")
MARKS = {"input-output": "output-", "chatml": "<|im_start|>answer\n", "plain": ""}


@pytest.fixture
def server():
    with ServerDouble() as double:
        yield double


def form_of(prompt):
    prompt = prompt.removesuffix("4.2 right")
    return next(form for form, mark in MARKS.items() if prompt.endswith(mark))


class Knows:
    """Writes a right answer in `rates[form]` of ten texts, and has its likings."""

    name = "knows"

    def __init__(self, rates, likely):
        self.rates, self.likely = rates, likely

    def score(self, pairs):
        return [self.likely[form_of(prompt)] for prompt, _ in pairs]

    def complete(self, requests):
        return [
            tuple(
                Completion(text="right" if i < self.rates[form_of(r.prompt)] else "", model="m")
                for i in range(r.sampling.n)
            )
            for r in requests
        ]


def probe(rates, likely):
    model = Knows(rates, likely)
    return probe_forms(model, FORMS, CASES, lambda t: t == "right", Sampling(n=10))


def test_what_is_written_decides_where_it_clearly_differs():
    rates = {"input-output": 1, "chatml": 9, "plain": 0}
    scores = probe(rates, {"input-output": -0.5, "chatml": -2.0, "plain": -1.0})
    assert [s.form for s in scores] == ["chatml", "input-output", "plain"]
    assert scores[0].rate == 0.9
    assert scores[0].written == 60
    assert scores[0].mean_logprob == -2.0


def test_likelihood_decides_where_writing_does_not():
    rates = {"input-output": 5, "chatml": 5, "plain": 5}
    scores = probe(rates, {"input-output": -0.9, "chatml": -0.7, "plain": -0.8})
    assert [s.form for s in scores] == ["chatml", "plain", "input-output"]


def test_a_form_without_any_answer_says_why(server):
    server.troubles += [Trouble("body", body=b'{"choices": [{}]}')] * 6  # the likelihoods fail
    model = ServedModel(server.url, "double")
    with pytest.raises(PreflightError, match="no log-probabilities"):
        probe_forms(model, FORMS, CASES, bool, Sampling())


def test_the_command_asks_for_known_crystals_and_names_the_form(server):
    def answer(body):
        knows = body["prompt"].endswith("output-")
        return "4.2 4.2 4.2\n90 90 90\nNa\n0.00 0.00 0.00\nTitle: next" if knows else "Sure!"

    server.answer = answer
    server.max_model_len = 4096
    words = ["probe", "--url", server.url, "--model", "double", "--cases", "2", "--samples", "2"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["forms"][0]["form"] == "input-output"
    rows = {row["form"]: row for row in json.loads(result.stdout)["forms"]}
    assert (rows["input-output"]["parsed"], rows["chatml"]["parsed"]) == (4, 0)
    prompts = [p for p in server.texts() if p.endswith("output-")]
    assert any("The chemical formula is NaCl." in prompt for prompt in prompts)
