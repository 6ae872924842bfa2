"""The grammar of form B: symmetric by construction, and as asked for."""

import random

import pytest

from hullward.models import wyckoff
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.language import LocalModel, Request, Sampling, crystal_prompt
from hullward.tools.crystal import space_group
from hullward.tools.crystal.text import (
    can_hold,
    crystal_grammar,
    parse_asymmetric_text,
    unit_grammar,
)
from hullward.tools.crystal.text.wyckoff_slots import centring, placeable

WISHES = [
    ({}, None),
    ({"formula": "LiFePO4", "max_atoms": 28}, None),
    ({"formula": "NaCl", "max_atoms": 4}, 225),
    ({"formula": "CaTiO3", "n_atoms": 10}, None),
    ({"elements": ("Li", "O", "Fe"), "max_atoms": 12}, None),
    ({"elements": ("Cu", "Au"), "only": True, "max_atoms": 8}, 123),
]


def walk(grammar, rng):
    """A random text; not every end is taken at once, so that longer numbers occur."""
    state, text = grammar.start(), ""
    while not grammar.may_end(state):
        options = grammar.options(state)
        assert options, f"no way on after {text!r}"
        character = rng.choice(sorted(options))
        text, state = text + character, options[character]
    return text


def accepts(grammar, text):
    state = grammar.start()
    for character in text:
        options = grammar.options(state)
        if character not in options:
            return False
        state = options[character]
    return grammar.may_end(state)


@pytest.mark.parametrize(("wish", "group"), WISHES)
def test_every_text_is_a_crystal_that_obeys(wish, group):
    grammar, rng = unit_grammar(crystal_grammar(**wish), group), random.Random(1)
    for _ in range(30):
        text = walk(grammar, rng)
        crystal = parse_asymmetric_text(text)
        assert isinstance(crystal, Crystal), f"{text!r}: {crystal.detail}"
        assert grammar.flaw(text) is None, text
        assert crystal.n_atoms <= wish.get("n_atoms", wish.get("max_atoms", 20))
        assert group is None or text.startswith(f"{group}\n")


@pytest.mark.parametrize(
    "text",
    [
        "225\nNa 4 4a\nCl 4 4b\n5.6",
        "221\nCa 1 1a\nTi 1 1b\nO 3 3c\n3.9",
        "62\nLi 4 4a\nFe 4 4c 0.28 0.97\nP 4 4c 0.09 0.42\n"
        "O 16 4c 0.10 0.74 4c 0.46 0.21 8d 0.17 0.05 0.28\n10.4 6.0 4.7",
    ],
)
def test_known_crystals_are_in_the_grammar(text):
    crystal = parse_asymmetric_text(text)
    assert accepts(unit_grammar(crystal_grammar(formula=crystal.formula, max_atoms=28)), text)
    assert accepts(unit_grammar(crystal_grammar(max_atoms=28), int(text.split("\n")[0])), text)
    assert not accepts(unit_grammar(crystal_grammar(max_atoms=28), 1), text)
    assert not accepts(unit_grammar(crystal_grammar(formula="LiF", max_atoms=28)), text)
    assert space_group(crystal, 0.01) == int(text.split("\n")[0])


@pytest.mark.parametrize(
    "spoilt",
    [
        "225\nNa 4 4a\nCl 4 4a\n5.6",  # a point taken twice
        "225\nNa 5 4a\nCl 4 4b\n5.6",  # no positions make five
        "99\nNa 2 1a 0.10 1a 0.10\n4.0 4.0",  # one orbit twice
        "10\nNa 2 2n 0.00 0.00\n4.0 4.0 4.0 90",  # higher symmetry than the position has
        "225\nNa 4 4a\nCl 4 4b",
    ],
)
def test_what_the_reader_refuses_is_not_in_the_grammar(spoilt):
    assert not accepts(unit_grammar(crystal_grammar(max_atoms=28)), spoilt)


def test_elements_make_up_the_number_of_atoms_asked_for():
    """An element too few is not noticed at the end, when nothing can be mended."""
    for wish in ({"elements": ("Li", "O"), "n_atoms": 7}, {"elements": ("Cu",), "n_atoms": 5}):
        grammar, rng = unit_grammar(crystal_grammar(**wish)), random.Random(2)
        for _ in range(30):
            assert grammar.flaw(walk(grammar, rng)) is None


def found_by_trying(free, stock, needs):
    """The same by every placement there is."""
    if not any(needs):
        return True
    first, rest = next((n, [*needs[:i], *needs[i + 1 :]]) for i, n in enumerate(needs) if n)
    if any(m <= first and found_by_trying(free, stock, [first - m, *rest]) for m in free):
        return True
    return any(
        found_by_trying(free, [*stock[:i], *stock[i + 1 :]], [first - m, *rest])
        for i, m in enumerate(stock)
        if m <= first
    )


@pytest.mark.parametrize("group", [2, 12, 47, 99, 123, 166, 194, 221, 225, 227, 230])
def test_what_can_be_placed_is_what_trying_finds(group):
    table, rng = wyckoff.positions(group).values(), random.Random(group)
    free = sorted({p.multiplicity for p in table if p.free})
    fixed = [p.multiplicity for p in table if not p.free]
    answers = set()
    for _ in range(40):
        stock = rng.sample(fixed, min(len(fixed), 4))
        counted = tuple(sorted((m, stock.count(m)) for m in set(stock)))
        step = min(free + fixed)
        needs = tuple(step * rng.randint(1, 6) for _ in range(rng.randint(1, 3)))
        answers.add(placeable(group, counted, needs))
        assert placeable(group, counted, needs) == found_by_trying(free, stock, needs), needs
    assert answers in ({True, False}, {True})


def test_a_group_that_cannot_hold_a_formula_is_known():
    assert can_hold(225, "NaCl", 2)
    assert not can_hold(225, "NaCl", 1)
    assert not can_hold(225, "Al2O3", 5)  # 8 and 12 atoms of a position each: 20 of a cell of 4
    assert can_hold(167, "Al2O3", 10)


def test_positions_without_freedom_hold_once():
    assert placeable(225, ((4, 2),), (4, 4))
    assert not placeable(225, ((4, 2),), (4, 4, 4))
    assert placeable(99, (), (7, 3))  # positions with freedom as often as one likes
    assert [centring(g) for g in (1, 5, 23, 225, 166, 38)] == [1, 2, 2, 4, 3, 2]


@pytest.mark.parametrize(
    ("wish", "group", "says"),
    [
        ({"formula": "NaCl", "n_atoms": 4}, 231, "from 1 to 230"),
        ({"formula": "Al2O3", "max_atoms": 6}, 225, "no sites of space group 225"),
        ({"min_distance_a": 1.0}, None, "distance mask"),
    ],
)
def test_wishes_that_cannot_be_fulfilled(wish, group, says):
    with pytest.raises(InputError, match=says):
        unit_grammar(crystal_grammar(**wish), group)


@pytest.mark.slow
def test_it_holds_for_nano_s_tokenizer(tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hullward.training.crystals import nano_tokenizer

    tokenizer = nano_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = LocalModel(tmp_path)
    wishes = crystal_grammar(formula="SrTiO3", max_atoms=10)
    for constraint in (unit_grammar(wishes).constraint(), wishes.constraint(server=False)):
        request = Request(
            request_id="g",
            prompt=crystal_prompt(formula="SrTiO3"),
            sampling=Sampling(n=40, max_tokens=400),
            constraint=constraint,
        )
        [answer] = model.complete([request])
        assert [c.fault for c in answer] == [None] * 40
