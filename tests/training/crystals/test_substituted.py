"""Exchanged elements: the same structure type, volume for the new atoms, nothing in quarantine."""

import random

import pytest

from hullward.models.crystal import Crystal
from hullward.models.language import flat_formula
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.training.crystals import (
    CrystalRecipe,
    CrystalTask,
    Exchange,
    example,
    nano_tokenizer,
    substituted,
)
from hullward.training.crystals.corpus import may_be_learnt
from hullward.training.crystals.examples import Mixture

pytestmark = [
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def rows(rock_salt):
    return [
        rock_salt(metal, anion, a + b)
        for metal, a in (("Li", 2.6), ("Na", 3.0), ("K", 3.6), ("Rb", 3.9))
        for anion, b in (("F", 1.5), ("Cl", 2.5), ("Br", 2.9))
    ]


@pytest.fixture(scope="module")
def exchange(rows):
    return Exchange(rows)


@pytest.fixture(scope="module")
def exchanged(rows, exchange):
    """(row, exchanged row) for many draws, without those that changed nothing."""
    pairs = [
        (row, exchange.like(row, random.Random(f"{i}:{n}")))
        for i, row in enumerate(rows)
        for n in range(40)
    ]
    changed = [(old, new) for old, new in pairs if new is not old]
    assert len(changed) > 100
    return changed


def test_both_texts_hold_the_new_formula(exchanged):
    for _, new in exchanged:
        for parse, text in (
            (parse_asymmetric_text, new.unit_text),
            (parse_cell_text, new.cell_text),
        ):
            found = parse(text)
            assert isinstance(found, Crystal)
            assert flat_formula(found.formula) == new.formula


def test_the_type_stays_and_the_height_is_left_out(exchanged):
    for old, new in exchanged:
        assert new.space_group == old.space_group
        assert [line.split()[1:] for line in new.unit_text.split("\n")[1:-1]] == [
            line.split()[1:] for line in old.unit_text.split("\n")[1:-1]
        ]
        assert new.e_above_hull_ev_per_atom is None


def test_larger_ions_take_more_room(exchanged):
    sizes = ["Li", "Na", "K", "Rb"]
    compared = 0
    for old, new in exchanged:
        (metal, anion), (other, same) = (
            [line.split()[0] for line in row.unit_text.split("\n")[1:-1]] for row in (old, new)
        )
        if anion == same:
            a, b = (float(row.unit_text.split("\n")[-1]) for row in (old, new))
            assert (sizes.index(other) > sizes.index(metal)) == (b > a)
            compared += 1
    assert compared > 20


def test_nothing_in_quarantine_is_made(rows, exchange, monkeypatch):
    made = {exchange.like(row, random.Random(n)).formula for row in rows for n in range(40)}
    assert all(may_be_learnt(formula) for formula in made - {row.formula for row in rows})
    monkeypatch.setattr(substituted, "may_be_learnt", lambda formula: False)
    assert all(exchange.like(row, random.Random(n)) is row for row in rows for n in range(10))


def test_no_exchange_changes_the_order_of_the_elements(rock_salt):
    rows = [rock_salt("Na", "Cl", 5.6), rock_salt("Cl", "Na", 5.6)]
    exchange = Exchange(rows)
    assert all(exchange.like(rows[0], random.Random(n)) is rows[0] for n in range(20))


def examples(rows, **mixture):
    """The examples of a tiny recipe with this mixture."""
    recipe = CrystalRecipe.model_validate(
        {
            "name": "tiny",
            "shape": {"width": 32, "layers": 1, "heads": 2, "hidden": 48, "context": 128},
            "mixture": mixture,
            "max_tokens": 128,
        }
    )
    return CrystalTask(recipe, rows, [], "corpus").examples(nano_tokenizer(), print)


def test_an_epoch_draws_the_same_exchanges_again(rows):
    mixed, plain = examples(rows, asymmetric=0.5, substituted=0.7), examples(rows, asymmetric=0.5)
    assert mixed.of_epoch(3) == mixed.of_epoch(3)
    assert mixed.of_epoch(3) != mixed.of_epoch(4)
    assert mixed.of_epoch(3) != plain.of_epoch(3)


def test_a_length_without_a_token_leaves_the_crystal_as_it_was(rock_salt, rows, monkeypatch):
    long = [rock_salt(metal, "F", 59.0) for metal in ("Li", "Na", "K", "Rb", "Cs")]
    exchange = Exchange([rock_salt("Cs", "F", 6.0), *rows])
    monkeypatch.setattr("hullward.training.crystals.task.Exchange", lambda rows: exchange)
    assert len(examples(long, asymmetric=1.0, substituted=1.0).of_epoch(0)) == len(long)


def test_a_prompt_without_conditions_asks_for_the_cell_form(rows):
    mixture = Mixture(asymmetric=1.0, nothing=1.0, max_cell_sites=10)
    shown = example(rows[0], mixture, seed=1, epoch=0, index=0)
    assert shown.answer == rows[0].cell_text
    assert "formula" not in shown.prompt
