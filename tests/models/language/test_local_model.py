"""The model in this process, on tiny checkpoints with random weights made here."""

import json
import shutil

import pytest

from hullward.models.errors import PreflightError
from hullward.models.language import (
    CompletionError,
    Constraint,
    LanguageModel,
    LocalModel,
    Message,
    Request,
    Sampling,
)
from hullward.models.language.protocol import Scorer

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefgh", "\n"]
CONTEXT = 64


def write_checkpoint(folder, *, rows=None, eos=2):
    """A word-level tokenizer of single letters and a Llama of 10,000 weights."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=rows or len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=eos,
        pad_token_id=0,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return LocalModel(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def ask(prompt="abc", request_id="q", constraint=None, **sampling):
    sampling = Sampling(**{"max_tokens": 20, "seed": 1, **sampling})
    return Request(request_id=request_id, prompt=prompt, sampling=sampling, constraint=constraint)


def only(model, request):
    [[completion]] = model.complete([request])
    return completion


def test_it_is_a_language_model_and_a_scorer(model):
    as_model: LanguageModel = model
    as_scorer: Scorer = model
    assert as_model.name.startswith("tiny@")
    assert as_scorer.score([("abc", "def")])[0] < 0


def test_a_row_says_the_same_alone_and_in_any_company(model):
    requests = [
        ask(
            "abcdefgh"[: 1 + i % 7] * (1 + i % 3), f"q{i}", seed=i, n=1 + i % 2, top_p=1 - i % 3 / 5
        )
        for i in range(30)
    ]
    alone = [model.complete([request])[0] for request in requests]
    assert model.complete(requests) == alone
    assert model.complete(requests[::-1]) == alone[::-1]
    assert len({c.text for answer in alone for c in answer}) > 20


def test_rows_are_the_model_s_own_distribution(model):
    """The chance of each first letter, counted, beside a plain forward pass."""
    import torch

    logits = model._checkpoint.model(torch.tensor([[1, 4, 5, 6]])).logits[0, -1]
    expected = torch.softmax(logits / 0.8, dim=-1).tolist()
    answers = model.complete([ask(n=4000, max_tokens=1, temperature=0.8)])
    texts = [c.text for c in answers[0]]
    for token, letter in enumerate("abcdefgh", start=4):
        assert texts.count(letter) / 4000 == pytest.approx(expected[token], abs=0.035)


def test_greedy_takes_the_likeliest_and_padding_changes_nothing(model):
    import torch

    for prompt in ("a", "abcdefg"):
        ids = [1, *(WORDS.index(x) for x in prompt)]
        drawn = []
        for _ in range(12):
            token = int(model._checkpoint.model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == 2:
                break
            ids.append(token)
            drawn.append(WORDS[token] if token > 3 else "")
        together = model.complete(
            [ask("hgfedcbahgfedcba", temperature=0), ask(prompt, temperature=0, max_tokens=12)]
        )
        assert together[1][0].text == "".join(drawn)


def test_top_p_and_top_k_of_almost_nothing_are_greedy(model):
    greedy = only(model, ask(temperature=0)).text
    assert only(model, ask(top_p=1e-6)).text == greedy
    assert only(model, ask(top_k=1)).text == greedy
    assert only(model, ask(seed=2)).text != greedy


def test_a_frequency_penalty_takes_variety_over_repetition(model):
    plain, varied = (
        model.complete([ask(n=50, max_tokens=40, frequency_penalty=p)])[0] for p in (0, 2)
    )
    most = [
        sum(max(map(c.text.count, c.text), default=0) for c in texts)
        / sum(len(c.text) for c in texts)
        for texts in (plain, varied)
    ]
    assert most[1] < most[0] - 0.05


def test_completions_of_one_request_differ_and_do_not_depend_on_n(model):
    two, four = (model.complete([ask(n=n)])[0] for n in (2, 4))
    assert four[:2] == two
    assert len({c.text for c in four}) == 4


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(model):
    answers = model.complete([ask(max_tokens=40, seed=3, n=20)])[0]
    index, free = max(enumerate(answers), key=lambda pair: len(pair[1].text))
    stop = free.text[20:23]
    place = free.text.index(stop)
    cut = model.complete([ask(max_tokens=40, seed=3, n=20, stop=(stop, "never written"))])[0][index]
    assert cut.text == free.text[:place]
    assert cut.finish_reason == "stop"
    assert place + 3 <= cut.completion_tokens < free.completion_tokens


def test_tokens_are_counted_and_the_end_has_a_reason(model):
    short = only(model, ask(max_tokens=3, seed=4))
    assert (short.finish_reason, short.completion_tokens, short.prompt_tokens) == ("length", 3, 4)
    assert short.fault == "truncated"
    ended = [c for c in model.complete([ask(n=60, max_tokens=50)])[0] if c.finish_reason == "stop"]
    assert ended
    assert all("</s>" not in c.text and c.completion_tokens < 50 for c in ended)


def test_a_logprob_is_the_model_s_not_the_sampler_s(model):
    completion = only(model, ask(temperature=0, max_tokens=8, logprobs=True))
    [scored] = model.score([("abc", completion.text)])
    if completion.finish_reason == "length" and completion.completion_tokens == len(
        completion.text
    ):
        assert completion.mean_logprob == pytest.approx(scored, abs=1e-5)
    assert completion.mean_logprob < 0


def test_the_context_is_the_end(model):
    answers = model.complete(
        [ask("a" * 60, "fits", max_tokens=50, n=20), ask("a" * 64, "long"), ask("", "empty")]
    )
    assert max(c.completion_tokens for c in answers[0]) == CONTEXT - 61
    assert isinstance(answers[1], CompletionError)
    assert answers[1].kind == "context"
    assert "request long: its prompt has 65 tokens" in str(answers[1])
    assert not isinstance(answers[2], CompletionError)  # there is still the start token


def test_messages_need_a_template(model, copy):
    request = Request(request_id="m", messages=(Message(role="user", content="abc"),))
    [answer] = model.complete([request])
    assert isinstance(answer, CompletionError)
    assert "chat template" in str(answer)
    (copy / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}h{% endfor %}")
    assert LocalModel(copy).complete([request])[0][0].prompt_tokens == 4


def test_small_memory_means_small_batches_not_other_texts(folder, model):
    requests = [ask("abc"[: 1 + i % 3], f"q{i}", seed=i) for i in range(9)]
    thrifty = LocalModel(folder, cache_bytes=1)
    seen = []
    assert thrifty.complete(requests, lambda done, asked: seen.append(done)) == model.complete(
        requests
    )
    assert seen == list(range(1, 10))


def test_what_cannot_be_held_to_is_checked(model):
    fits, fails = (
        only(model, ask(constraint=Constraint.regex(p), n=1, max_tokens=50, seed=11))
        for p in (r"[\s\S]*", "z")
    )
    assert fits.text == fails.text
    assert fails.fault in {"unfit", "truncated"}


# what is refused


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(PreflightError, match=r"no config\.json"):
        LocalModel(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lost", "problem"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "only safetensors"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_a_missing_file_is_named(copy, lost, problem):
    (copy / lost).unlink()
    with pytest.raises(PreflightError, match=problem):
        LocalModel(copy)


def test_pickled_weights_are_not_weights(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(PreflightError, match="only safetensors are read"):
        LocalModel(copy)


def test_a_missing_shard_is_named(copy):
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PreflightError, match="model-00001-of-00002"):
        LocalModel(copy)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_corrupt_shard_is_one_clear_error(copy, damage):
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\x80\x02garbage" * 100)
    with pytest.raises(PreflightError, match="cannot be loaded") as caught:
        LocalModel(copy)
    assert "\n" not in str(caught.value)


def test_weights_of_another_recipe(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(PreflightError, match="another model than its config"):
        LocalModel(copy)


def test_a_tokenizer_too_large_for_the_model(tmp_path):
    folder = write_checkpoint(tmp_path / "odd", rows=9)
    with pytest.raises(PreflightError, match=r"tokenizer has 13 tokens, the\s+model 9"):
        LocalModel(folder)


def test_code_beside_the_weights_is_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    remote = {"auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Conf"}}
    (copy / "config.json").write_text(json.dumps(config | remote | {"model_type": "own"}))
    (copy / "own.py").write_text(f"open({str(copy / 'ran')!r}, 'w')")
    with pytest.raises(PreflightError, match="cannot be"):
        LocalModel(copy)
    assert not (copy / "ran").exists()


def test_weights_that_are_no_numbers(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreflightError, match="gives no numbers"):
        LocalModel(copy).complete([ask()])
