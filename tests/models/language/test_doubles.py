"""The scripted and the recorded language model."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from hullward.models.errors import InputError
from hullward.models.language import (
    Completion,
    CompletionError,
    Constraint,
    LanguageModel,
    Message,
    RecordedModel,
    Request,
    Sampling,
)
from hullward.models.language.doubles import ScriptedModel


def ask(number, prompt="a crystal", n=1):
    return Request(request_id=f"q-{number}", prompt=prompt, sampling=Sampling(n=n))


def texts(answers):
    return [
        [completion.text for completion in answer] if isinstance(answer, tuple) else "error"
        for answer in answers
    ]


@pytest.fixture
def record(tmp_path):
    def write(*lines):
        path = tmp_path / "recording.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"frequency_penalty": 2.5},
        {"max_tokens": 0},
        {"n": 0},
        {"stop": ("\n\n", "")},
    ],
)
def test_sampling_refuses_what_no_model_accepts(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


class Pair(BaseModel):
    formula: str
    atoms: int = Field(gt=0)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ('{"formula": "NaCl", "atoms": 2}', None),
        ('{"formula": "NaCl", "atoms": 0}', "atoms: Input should be greater than 0"),
        ('{"formula": "NaCl"', "Invalid JSON"),
        ("Sure! Here is your JSON:", "Invalid JSON"),
        ("", "Invalid JSON"),
    ],
)
def test_a_schema_is_checked_whoever_applied_it(text, flaw):
    constraint = Constraint.json(Pair)
    assert "formula" in json.loads(constraint.value)["properties"]
    found = constraint.flaw(text)
    assert found is None if flaw is None else found.startswith(flaw)


def test_a_grammar_is_checked_by_the_parser_that_comes_with_it():
    ebnf = 'root ::= "ab"'
    wrong = Constraint.grammar(ebnf, check=lambda text: None if text == "ab" else "not ab")
    assert (wrong.flaw("ab"), wrong.flaw("ba")) == (None, "not ab")
    assert wrong == Constraint.grammar(ebnf)  # equal for the sender


def test_a_request_is_a_prompt_or_a_conversation():
    with pytest.raises(ValueError, match="not both"):
        Request(request_id="q", prompt="a", messages=(Message(role="user", content="b"),))


# the script


def test_a_script_is_answered_in_order_and_remembers_what_was_asked():
    model: LanguageModel = ScriptedModel(["one", ["two", "deux"], "three"])
    assert texts(model.complete([ask(1), ask(2, n=2)])) == [["one"], ["two", "deux"]]
    assert texts(model.complete([ask(3)])) == [["three"]]
    assert [request.request_id for request in model.history] == ["q-1", "q-2", "q-3"]
    assert model.remaining == 0


def test_a_script_that_runs_dry_is_an_error_not_an_empty_answer():
    model = ScriptedModel(["one"])
    with pytest.raises(IndexError, match="no line for request 2"):
        model.complete([ask(1), ask(2)])


def test_a_scripted_refusal_leaves_the_rest_of_its_batch_alone():
    busy = CompletionError("server busy", retry=True)
    answers = ScriptedModel(["one", busy, "three"]).complete([ask(1), ask(2), ask(3)])
    assert texts(answers) == [["one"], "error", ["three"]]
    assert answers[1] is busy


def test_a_scripted_fault_is_raised():
    model = ScriptedModel([KeyboardInterrupt(), "one"])
    with pytest.raises(KeyboardInterrupt):
        model.complete([ask(1)])
    assert texts(model.complete([ask(1)])) == [["one"]]


def test_a_script_with_the_wrong_number_of_completions_is_a_mistake_in_the_test():
    with pytest.raises(ValueError, match="3 completions wanted, 1 in the script"):
        ScriptedModel(["one"]).complete([ask(1, n=3)])


# the recording


def test_plain_outputs_go_to_whoever_asks_next(record):
    model = RecordedModel(record(*({"text": t} for t in "abcd")))
    assert texts(model.complete([ask(1, n=2), ask(2)])) == [["a", "b"], ["c"]]
    assert model.remaining == 1


def test_an_id_is_stronger_than_a_prompt_and_a_prompt_than_the_order(record):
    model = RecordedModel(
        record(
            {"text": "anyone"},
            {"text": "for the prompt", "prompt": "LiMnO2"},
            {"text": "for the request", "request_id": "q-7"},
        )
    )
    requests = [ask(7, "LiMnO2"), ask(8, "LiMnO2"), ask(9, "NaCl")]
    assert texts(model.complete(requests)) == [["for the request"], ["for the prompt"], ["anyone"]]


def test_everything_recorded_is_given_back(record):
    line_fields = {
        "text": " 5.7 \n",
        "finish_reason": "length",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "model": "llamat-2-cif@abc",
    }
    [[completion]] = RecordedModel(record(line_fields)).complete([ask(1)])
    assert completion == Completion(**line_fields)


def test_an_exhausted_recording_says_so_and_stays_so(record):
    path = record({"text": "a"})
    model = RecordedModel(path)
    first, second = model.complete([ask(1), ask(2)])
    assert texts([first]) == [["a"]]
    assert isinstance(second, CompletionError)
    assert (second.retry, second.kind) == (False, "exhausted")
    assert "exhausted: request q-2 needs 1 completions, 0 are left" in str(second)
    assert texts(model.complete([ask(2), ask(1)])) == ["error", ["a"]]


@given(asked=st.lists(st.integers(0, 12), min_size=1, max_size=30), stop=st.integers(0, 30))
def test_a_resumed_recording_goes_on_where_it_stopped(tmp_path_factory, asked, stop):
    path = tmp_path_factory.mktemp("tape") / "recording.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(20)))
    requests = [ask(i, n=1 + i % 3) for i in asked]
    whole = RecordedModel(path).complete(requests)
    resumed = RecordedModel(path, served=requests[:stop]).complete(requests)
    assert texts(resumed) == texts(whole)


def test_the_name_of_a_recording_changes_with_its_content(record):
    assert RecordedModel(record({"text": "a"})).name != RecordedModel(record({"text": "b"})).name


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"text": "a"}\n{"text": \n', "line 2"),
        (b'{"output": "a"}\n', "output"),
        (b'{"text": 5}\n', "text"),
        (b'"just a string"\n', "line 1"),
        (b'{"text": "a", "finish_reason": "bored"}\n', "finish_reason"),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_place(tmp_path, content, problem):
    path = tmp_path / "recording.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        RecordedModel(path)


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        RecordedModel(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("count", [-1, 2**63, 10**30])
def test_a_count_that_no_model_can_have_written_is_no_recording(tmp_path, count):
    path = tmp_path / "tape.jsonl"
    path.write_text(json.dumps({"text": "x", "completion_tokens": count}))
    with pytest.raises(InputError, match=r"line 1: .*completion_tokens.* Input should be"):
        RecordedModel(path)
