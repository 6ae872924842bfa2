"""A wish in a stored request: what the prompt names, as old journals have it."""

import pytest

from hullward.tools.records import ModelRequest, Wish

FIELDS = {
    "request_id": "q-1",
    "campaign_id": "k-1",
    "cycle": 0,
    "position": 10,
    "purpose": "formula",
    "backend": "crystal",
    "model": "m",
    "prompt": "p",
    "form": "plain",
    "seed": 1,
}


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"elements": ["Li", "O"]},
        {"formula": "Li2O"},
        {"formula": "Li2O", "e_above_hull_ev_per_atom": 0.0},
        {"formula": "Li2O", "space_group": 225},
        {"masked": "Li"},
    ],
)
def test_stored_wishes_are_read_and_written_the_same(stored: dict[str, object]) -> None:
    request = ModelRequest.model_validate({**FIELDS, "wish": stored})
    assert request.model_dump(mode="json")["wish"] == stored


def test_limits_of_a_grammar_are_not_stored() -> None:
    request = ModelRequest.model_validate({**FIELDS, "wish": Wish(allowed=("Li",), max_atoms=8)})
    assert request.wish.max_atoms == 8
    assert request.model_dump(mode="json")["wish"] == {}
