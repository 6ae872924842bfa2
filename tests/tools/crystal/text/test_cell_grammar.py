"""The grammar of crystal text: by characters, by tokens of any tokenizer, and as rules."""

import random
import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import ELEMENTS
from hullward.models.language import CompletionError, LocalModel, Request, Sampling
from hullward.tools.crystal import nearest_pairs
from hullward.tools.crystal.text import crystal_grammar, parse_cell_text, write_cell_text

COMMON = ["H", "Li", "B", "C", "N", "O", "F", "Na", "Si", "P", "S", "Cl", "Fe", "I", "Cs", "Pb"]
WISHES = [
    {},
    {"formula": "LiFePO4", "max_atoms": 14},
    {"formula": "Mg3(PO4)2", "n_atoms": 13},
    {"elements": ("Ba", "Ti", "O"), "max_atoms": 5},
    {"elements": ("Li", "O"), "only": True, "n_atoms": 3},
    {"formula": "Fe", "max_atoms": 4},
]


def walk(grammar, rng):
    """A random text, character by character, and how it looks to the grammar."""
    state, text = grammar.start(), ""
    while True:
        options = grammar.options(state)
        if grammar.may_end(state) and (not options or rng.random() < 0.3):
            return text
        assert options, f"no way on after {text!r}"
        character = rng.choice(sorted(options))
        text, state = text + character, options[character]


def accepts(grammar, text):
    state = grammar.start()
    for character in text:
        options = grammar.options(state)
        if character not in options:
            return False
        state = options[character]
    return grammar.may_end(state)


@pytest.mark.parametrize("wish", WISHES)
def test_every_text_is_a_crystal_that_obeys(wish):
    grammar, rng = crystal_grammar(**wish), random.Random(1)
    for _ in range(60):
        text = walk(grammar, rng)
        crystal = parse_cell_text(text)
        assert isinstance(crystal, Crystal), f"{text!r}: {crystal.detail}"
        assert grammar.flaw(text) is None
        if "formula" in wish:
            assert (
                crystal.formula
                == Crystal.from_arrays(
                    [[9, 0, 0], [0, 9, 0], [0, 0, 9]], *_sites(wish["formula"])
                ).formula
            )
        if "elements" in wish:
            assert set(crystal.species) <= set(wish["elements"])
            assert wish.get("only") or set(crystal.species) == set(wish["elements"])
        low = wish.get("n_atoms", 1)
        assert low <= crystal.n_atoms <= wish.get("n_atoms", wish.get("max_atoms", 20))


def _sites(formula):
    from pymatgen.core import Composition

    amounts = Composition(formula).get_el_amt_dict()
    species = [el for el, n in amounts.items() for _ in range(int(n))]
    return species, [[i / len(species), 0, 0] for i in range(len(species))]


@settings(max_examples=25)
@given(
    lengths=st.tuples(*[st.floats(1, 60)] * 3),
    angles=st.tuples(*[st.floats(61, 118)] * 3),
    sites=st.lists(
        st.tuples(st.sampled_from(COMMON), *[st.floats(0, 0.999)] * 3),
        min_size=1,
        max_size=8,
    ),
)
def test_what_the_codec_writes_is_in_the_grammar(lengths, angles, sites):
    crystal = Crystal.from_parameters(
        lengths, angles, [s for s, *_ in sites], [xyz for _, *xyz in sites]
    )
    text = write_cell_text(crystal)
    assert accepts(crystal_grammar(), text)
    assert accepts(crystal_grammar(formula=crystal.formula), text)
    assert accepts(crystal_grammar(elements=set(crystal.species)), text)
    assert not accepts(crystal_grammar(max_atoms=20, formula="Xe7Rn13"), text)
    assert not accepts(crystal_grammar(), text + "\n\n")
    assert not accepts(crystal_grammar(), text[:-1])


@pytest.mark.parametrize(
    ("wish", "text", "flaw"),
    [
        ({"formula": "NaCl"}, "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00", "is missing"),
        ({"formula": "NaCl"}, "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00\nK\n0.50 0.50 0.50", "K"),
        ({"elements": ["Na"], "n_atoms": 2}, "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00", "1 atom"),
        ({}, "5.0 5.0 5.0\n90 90 180\nNa\n0.00 0.00 0.00", "impossible_cell"),
        ({"min_distance_a": 1}, "5.0 0.9 5.0\n90 90 90\nNa\n0.00 0.00 0.00", "0.90 Å apart"),
    ],
)
def test_a_flaw_is_named(wish, text, flaw):
    assert flaw in crystal_grammar(**wish).flaw(text)
    assert not accepts(crystal_grammar(**wish), text)


def test_the_distance_mask_keeps_atoms_and_images_apart():
    grammar, rng = (
        crystal_grammar(formula="NaCl", max_atoms=4, min_distance_a=1.0),
        random.Random(2),
    )
    texts = [walk(grammar, rng) for _ in range(25)]
    closest = [float(nearest_pairs(parse_cell_text(t), 3.0)[2].min()) for t in texts]
    assert min(closest) >= 1.0
    assert [t for t in texts if grammar.flaw(t)] == []
    assert "distance mask 1 Å" in grammar.name
    free = crystal_grammar(formula="NaCl", max_atoms=4)
    assert any(grammar.flaw(walk(free, rng)) for _ in range(25))


def test_the_mask_refuses_one_point_too_close_and_takes_its_neighbour():
    """Atoms on a line of 5 Å: 0.80 is 1.00 Å from the next cell's atom at 0, and 0.81 closer."""
    grammar = crystal_grammar(elements=["Na"], n_atoms=2, min_distance_a=1.0)
    text = "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00\nNa\n0.00 0.00 "
    state = grammar.start()
    for character in text:
        state = grammar.options(state)[character]
    allowed = grammar.words(state[0])
    assert tuple(allowed) == tuple(
        f"0.{n}" for n in range(21, 80)
    )  # wider than the limit by a rounding


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"formula": "NaCl", "n_atoms": 3}, "no multiple of NaCl"),
        ({"formula": "Li0.5O"}, "whole numbers"),
        ({"formula": "Xx2"}, "no formula|no element"),
        ({"elements": ["Qq"]}, "'Qq' is no element"),
        ({"elements": ["Li", "O"], "n_atoms": 1}, "1 atoms: crystal text"),
        ({"n_atoms": 501}, "501 atoms"),
        ({"formula": "NaCl", "elements": ["Na"]}, "contradict each other"),
        ({"min_distance_a": -1}, "distance mask"),
        ({"max_atoms": 0}, "0 atoms"),
    ],
)
def test_wishes_that_cannot_be_fulfilled(wish, says):
    with pytest.raises(InputError, match=says):
        crystal_grammar(**wish)


# as rules


def matcher(gbnf):
    """A matcher of the GBNF we write: strings, classes, sequences, alternatives, brackets."""
    rules = dict(line.split(" ::= ", 1) for line in gbnf.strip().split("\n"))
    token = re.compile(r'\s*("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[()|]|\w+)')
    plain = {"n": "\n"}

    def letters(text):
        return re.sub(r"\\(.)", lambda m: plain.get(m[1], m[1]), text)

    @cache
    def alternatives(name):
        tokens = token.findall(rules[name])

        def choice(at):
            options = []
            sequence, at = parts(at)
            options.append(sequence)
            while at < len(tokens) and tokens[at] == "|":
                sequence, at = parts(at + 1)
                options.append(sequence)
            return tuple(options), at

        def parts(at):
            sequence = []
            while at < len(tokens) and tokens[at] not in "|)":
                if tokens[at] == "(":
                    inner, at = choice(at + 1)
                    sequence.append(("any", inner))
                elif tokens[at][0] == '"':
                    sequence.append(("text", letters(tokens[at][1:-1])))
                elif tokens[at][0] == "[":
                    sequence.append(("one", letters(tokens[at][1:-1])))
                else:
                    sequence.append(("rule", tokens[at]))
                at += 1
            return tuple(sequence), at

        return choice(0)[0]

    def run(options, text, at):
        for sequence in options:
            ends = {at}
            for kind, what in sequence:
                reached = set()
                for place in ends:
                    if kind == "text":
                        reached |= {place + len(what)} if text.startswith(what, place) else set()
                    elif kind == "one":
                        reached |= {place + 1} if text[place : place + 1] in set(what) else set()
                    else:
                        inner = what if kind == "any" else alternatives(what)
                        reached |= set(run(inner, text, place))
                ends = reached
            yield from ends

    return lambda text: len(text) in set(run(alternatives("root"), text, 0))


@pytest.mark.parametrize("wish", WISHES)
def test_the_rules_allow_the_same_texts(wish):
    grammar, rng = crystal_grammar(**wish), random.Random(3)
    matches = matcher(grammar.gbnf())
    for _ in range(25):
        text = walk(grammar, rng)
        assert matches(text)
        at = rng.randrange(len(text))
        spoilt = text[:at] + rng.choice("0159. \nLiO") + text[at + 1 :]
        if spoilt.split("\n")[:2] == text.split("\n")[:2]:  # the cell's closing is not in the rules
            assert matches(spoilt) == accepts(grammar, spoilt)
        assert not matches(text[:at]) or accepts(grammar, text[:at])


def test_the_rules_are_part_of_a_constraint_and_may_be_too_many(monkeypatch):
    constraint = crystal_grammar(formula="NaCl").constraint()
    assert constraint.value.startswith("root ::= ")
    assert constraint.flaw("5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00") == "Cl is missing"
    monkeypatch.setattr("hullward.tools.crystal.text.word_grammar.MAX_RULES", 100)
    large = crystal_grammar(formula="Li6PS5ClBrI", max_atoms=30)
    with pytest.raises(InputError, match="rules"):
        large.constraint()
    assert large.constraint(server=False).automaton is large


# by tokens


@pytest.fixture(scope="module", params=["compact", "bpe", "spaces"])
def model(request, tmp_path_factory):
    """A Llama with random weights behind three kinds of tokenizer."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / request.param
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    numbers = [f"{n / 100:.2f}" for n in range(100)]
    lengths = [f"{n / 10:.1f}" for n in range(15, 200)]
    if request.param == "compact":  # a token a number, separators of their own
        words = [
            *special,
            *numbers,
            *lengths,
            *map(str, range(30, 150)),
            *sorted(ELEMENTS),
            " ",
            "\n",
            "make:",
        ]
        tokenizer = Tokenizer(
            models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, "<unk>")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[ \n]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    elif request.param == "bpe":  # merges across numbers, spaces and lines, as a byte-level BPE may
        rng = random.Random(4)
        texts = [walk(crystal_grammar(max_atoms=6), rng) for _ in range(300)]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    else:  # SentencePiece's way: spaces belong to the words behind them
        words = [
            *special,
            *numbers,
            *("▁" + n for n in numbers),
            *lengths,
            *("▁" + x for x in lengths),
            *map(str, range(30, 150)),
            *("▁" + str(n) for n in range(30, 150)),
            *sorted(ELEMENTS),
            "\n",
            "▁",
            "m",
        ]
        tokenizer = Tokenizer(
            models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, "<unk>")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split("m", "isolated")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(wrapped) + 3,  # a model may have rows to spare
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return LocalModel(folder, batch=128)


def sampled(model, grammar, n, seed=0, max_tokens=480):
    constraint = grammar.constraint(server=False)
    request = Request(
        request_id="g",
        prompt="m",
        sampling=Sampling(n=n, seed=seed, max_tokens=max_tokens),
        constraint=constraint,
    )
    [answer] = model.complete([request])
    assert not isinstance(answer, CompletionError), answer
    return answer


def test_of_a_thousand_samples_of_three_tokenizers_all_obey(model):
    grammars = [
        (crystal_grammar(formula="CaTiO3", max_atoms=5), 170),
        (crystal_grammar(elements=["Na", "Cl"], max_atoms=3), 170),
    ]
    for grammar, n in grammars:
        completions = sampled(model, grammar, n)
        texts = [c.text for c in completions]
        assert Counter(c.finish_reason for c in completions) == {"stop": n}
        assert [c.fault for c in completions] == [None] * n
        crystals = [parse_cell_text(text) for text in texts]
        assert all(isinstance(c, Crystal) for c in crystals)
        if grammar.formula:
            assert {c.formula for c in crystals} == {"CaTiO3"}
        assert all(set(c.species) == set(grammar.required) for c in crystals)
        assert len(set(texts)) > n / 2


def test_the_mask_holds_by_tokens_too(model):
    grammar = crystal_grammar(formula="NaCl", max_atoms=2, min_distance_a=1.0)
    completions = sampled(model, grammar, 6)
    assert [c.fault for c in completions] == [None] * 6


def test_a_constrained_row_is_the_same_in_any_company(model):
    grammars = [crystal_grammar(formula=f, max_atoms=4) for f in ("NaCl", "Li2O", "Fe")]
    requests = [
        Request(
            request_id=str(i),
            prompt="m" * (1 + i % 2),
            sampling=Sampling(seed=i, max_tokens=300, temperature=0.5 + i % 3, top_p=0.9),
            constraint=grammars[i % 3].constraint(server=False),
        )
        for i in range(9)
    ]
    assert model.complete(requests) == [model.complete([r])[0] for r in requests]


def test_a_text_cut_short_is_truncated_not_bent(model):
    [completion] = sampled(model, crystal_grammar(formula="NaCl"), 1, max_tokens=5)
    assert (completion.finish_reason, completion.fault) == ("length", "truncated")
