"""A model's own answers enter a corpus only where they are sound, new and not in quarantine."""

import dataclasses

import pytest

from hullward.models.language import CompletionError
from hullward.models.language.doubles import ScriptedModel
from hullward.tools.crystal.text import parse_asymmetric_text
from hullward.training.crystals import own_answers
from hullward.training.crystals.corpus import may_be_learnt

pytestmark = [
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def rows(rock_salt):
    return [
        rock_salt(metal, anion, a + b)
        for metal, a in (("Na", 3.0), ("K", 3.6), ("Rb", 3.9))
        for anion, b in (("F", 1.5), ("Cl", 2.5), ("Br", 2.9), ("I", 3.5))
        if metal + anion not in ("KCl", "KF", "NaI")
    ]


def cell(first, second, length=4.6, at="0.50 0.50 0.50"):
    lengths = f"{length} {length} {length}"
    return f"{lengths}\n60 60 60\n{first}\n0.00 0.00 0.00\n{second}\n{at}"


FREE = {
    cell("K", "Cl"): "kept",
    cell("K", "Cl", 4.7): "known formula",  # it is now
    cell("Na", "F", 3.3): "known formula",
    cell("K", "Cl", at="0.05 0.05 0.05"): "atoms too close",
    cell("K", "Cl", 9.9): "too dense or too thin",
    cell("U", "Cl"): "U not in the corpus",
    "a crystal": "does not parse",
}


def test_answers_to_open_requests_are_kept_where_they_are_sound_and_new(rows):
    assert may_be_learnt("KCl")  # its hash happens to allow it
    model = ScriptedModel(FREE)
    kept, fate = own_answers.sound_answers(model, rows, free=len(FREE), asked=0)
    assert [row.formula for row in kept] == ["KCl"]
    assert parse_asymmetric_text(kept[0].unit_text).formula == "KCl"
    assert kept[0].e_above_hull_ev_per_atom is None
    wanted = dict.fromkeys(FREE.values(), 0)
    for reason in FREE.values():
        wanted[reason] += 1
    assert fate == wanted


def test_crystals_in_quarantine_are_not_kept(rows, monkeypatch):
    monkeypatch.setattr(own_answers, "may_be_learnt", lambda formula: False)
    kept, fate = own_answers.sound_answers(ScriptedModel([cell("K", "Cl")]), rows, free=1, asked=0)
    assert not kept
    assert fate == {"held back": 1}


def test_requested_formulas_are_new_and_answers_must_have_them(rows):
    class Obliging:
        name = "obliging"

        def complete(self, requests):
            assert all("The chemical formula is " in request.prompt for request in requests)
            wrong = ScriptedModel(["225\nNa 4 4a\nF 4 4b\n4.6"] * len(requests))
            answers = wrong.complete(requests)
            return [*answers[:-1], CompletionError("late", retry=True, kind="timeout")]

    kept, fate = own_answers.sound_answers(Obliging(), rows, free=0, asked=2)
    assert not kept
    assert set(fate) <= {"another formula", "timeout"}
    assert fate["timeout"] == 1


def test_the_same_seed_asks_the_same(rows):
    def asked(seed):
        model = ScriptedModel(["nothing"] * 8)
        own_answers.sound_answers(model, rows, free=4, asked=1, seed=seed)
        return model.history

    assert asked(1) == asked(1)
    assert [dataclasses.asdict(r) for r in asked(1)] != [dataclasses.asdict(r) for r in asked(2)]
