"""Names of language models, their cards, and the forms they are asked in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullward.models.errors import InputError, PreflightError
from hullward.models.language import Message, model_card, model_names, render
from hullward.models.language.prompt_forms import CHATML_STOP, break_marks, conversation


@pytest.mark.parametrize("name", model_names())
def test_a_llamat_card_says_where_terms_and_limits(name):
    card = model_card(name)
    assert card.source == f"m3rg-iitd/{name}"
    assert "Llama" in card.licence
    assert card.revision is None or len(card.revision) == 40  # a whole commit or none: no guess
    assert card.dtype == "bfloat16"
    assert card.trained_tokens <= card.context_tokens
    assert model_card(card.source) == card
    assert set(card.stop) == set(card.sampling.stop)


def test_the_six_differ_in_what_they_do():
    tasks = [model_card(name).task for name in model_names()]
    assert tasks == ["text", "chat", "crystal"] * 2
    assert model_card("llamat-2-chat").prompt_form == "chatml"
    assert set(CHATML_STOP) <= set(model_card("llamat-3-chat").stop)
    assert model_card("llamat-2-cif").prompt_forms[:2] == ("input-output", "chatml")
    assert model_card("llamat-3").context_tokens == 8192


@pytest.fixture
def folder(tmp_path):
    def make(config=None, **files):
        home = tmp_path / "My-Model"
        home.mkdir()
        default_config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}
        (home / "config.json").write_text(json.dumps(default_config | (config or {})))
        for name, content in {"model.safetensors": "", **files}.items():
            if content is not None:
                (home / name).write_text(content)
        return home

    return make


def test_a_folder_is_known_by_its_files(folder):
    card = model_card(str(folder(**{"tokenizer_config.json": '{"chat_template": "{{ x }}"}'})))
    assert (card.name, card.context_tokens, card.prompt_form) == ("my-model", 512, "server")
    assert card.is_local


def test_a_folder_without_a_template_is_continued_as_it_stands(folder):
    assert model_card(str(folder())).prompt_form == "plain"


@pytest.mark.parametrize(
    ("config", "files", "problem"),
    [
        ({"auto_map": {"AutoModel": "x.y"}}, {}, "never run here"),
        ({}, {"tokenizer_config.json": '{"auto_map": {}}'}, "never run here"),
        ({}, {"model.safetensors": None, "pytorch_model.bin": ""}, "no .*safetensors"),
        ({}, {"tokenizer_config.json": "{"}, "cannot be read"),
        ({}, {"config.json": "[]"}, "no JSON object"),
    ],
)
def test_a_folder_that_must_not_be_served_is_refused(folder, config, files, problem):
    with pytest.raises(PreflightError, match=problem):
        model_card(str(folder(config, **files)))


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(PreflightError, match=r"holds no model.*config\.json"):
        model_card(str(tmp_path))


def test_the_model_that_comes_with_hullward_has_a_card_where_its_weights_are(folder, monkeypatch):
    home = folder()
    monkeypatch.setattr("hullward.models.language.cards.nano_folder", lambda: home)
    card = model_card("nano")
    assert card == model_card("hullward-nano-cif")
    assert (card.name, card.source, card.prompt_form) == ("hullward-nano-cif", str(home), "plain")
    assert (card.task, card.licence, card.context_tokens) == ("crystal", "MIT", 512)


def test_any_model_of_the_hub_can_be_named():
    card = model_card("Someone/Some-Model-7B")
    assert (card.name, card.source, card.is_local) == (
        "some-model-7b",
        "Someone/Some-Model-7B",
        False,
    )
    assert "model card" in card.licence


@pytest.mark.parametrize("name", ["llamat-2-cfi", "/nowhere/at/all", "../x", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(InputError, match="no model"):
        model_card(name)


def test_the_nearest_name_is_offered():
    with pytest.raises(InputError, match="did you mean 'llamat-2-cif'"):
        model_card("llamat-2-cfi")


# forms


def test_llamat_is_asked_with_its_own_roles():
    talk = (*conversation("1?", "Be brief."), Message(role="assistant", content="one"))
    prompt = render("chatml", (*talk, Message(role="user", content="2?")))
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>question\n1?<|im_end|>\n"
        "<|im_start|>answer\none<|im_end|>\n<|im_start|>question\n2?<|im_end|>\n"
        "<|im_start|>answer\n"
    )


def test_plain_text_is_left_alone():
    assert render("plain", conversation("Below is …\n")) == "Below is …\n"
    assert render("plain", conversation("b\n", "a")) == "a\nb\n"


@pytest.mark.parametrize(
    ("form", "messages", "problem"),
    [
        ("server", conversation("a"), "template"),
        (
            "chatml",
            (Message(role="assistant", content="a"),),
            "must end with a message of the user",
        ),
        ("chatml", (), "must end with a message of the user"),
        ("input-output", conversation("a") + conversation("b"), "one question"),
    ],
)
def test_a_conversation_a_form_cannot_hold_is_refused(form, messages, problem):
    with pytest.raises(ValueError, match=problem):
        render(form, messages)


MARKS = [
    "<|im_end|>", "<|im_start|>", "<|eot_id|>", "</s>", "<s>", "[INST]", "[/INST]",
    "<<SYS>>", "<</SYS>>",
]  # fmt: skip


@given(st.lists(st.sampled_from([*MARKS, "x", " ", "<", "|>", "[", "/"]), max_size=12))
def test_no_text_of_a_paper_can_end_a_turn(parts):
    prompt = render("chatml", conversation("".join(parts)))
    assert prompt.count("<|im_end|>") == 1
    assert prompt.count("<|im_start|>") == 2
    assert not any(mark in break_marks("".join(parts)) for mark in MARKS)
