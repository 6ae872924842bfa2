"""A campaign that asks a checkpoint in this process, held to a grammar; nano is one by name."""

from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.language import backends
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import PreflightError
from hullward.models.language import flat_formula
from hullward.models.language.tiny_llama import write_tiny_llama
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.records import Flaw, ModelAnswer, ModelRequest, Proposal
from hullward.tools.store import Store, funnel, open_snapshot

SAMPLING = {"samples": 2, "max_tokens": 300, "temperature": 1.0}


OPERATORS = ["de_novo", "elements", "formula", "space_group"]
NANO = {"word": "nano", "text_form": "cell"}
FORMS = {
    "cell": ("crystal text, ", parse_cell_text),
    "asymmetric": ("asymmetric unit, ", parse_asymmetric_text),
}


def campaign(settings: dict[str, Any], crystal: dict[str, Any]) -> Campaign:
    asked = {
        "operators": OPERATORS,
        "crystal": {**SAMPLING, **crystal},
        "max_atoms": 6,
        "budget": {"cycles": 1, "proposals_per_cycle": 8},
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 40},
    }
    return parse_settings(Campaign, settings | asked, "test")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny", chat=False)


@pytest.mark.parametrize(
    ("kind", "form"),
    [("local", "cell"), ("nano", "cell"), ("local", "asymmetric"), ("nano", "asymmetric")],
)
def test_a_grammar_holds_by_construction_whatever_the_weights(
    kind: str,
    form: str,
    tiny: Path,
    toy_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """These weights are random: every text parses and obeys formula, elements, size and group."""
    monkeypatch.setattr(backends, "nano_folder", lambda: tiny)
    model = {"path": str(tiny), "text_form": form} if kind == "local" else NANO
    if (kind, form) == ("nano", "asymmetric"):  # what nano is asked in by itself
        model = {"word": "nano"}
    asked = campaign(toy_settings, model)
    name, parse = FORMS[form]
    run(tmp_path / "c", asked)
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
    assert counting.proposed == 8
    assert counting.states["rejected_parse"] == 0
    with Store.open(tmp_path / "c", command="test") as store:
        proposals, requests = store.load(Proposal), store.load(ModelRequest)
        assert len(store.load(ModelAnswer)) == 8
    for request in requests:
        assert request.constraint.startswith(name)
        assert " 1 to 6 atoms" in request.constraint
        if request.target_formula:
            assert f"formula is {flat_formula(request.target_formula)}. " in request.prompt
    assert {request.purpose for request in requests} == set(OPERATORS)
    groups = {r.request_id: r.wish.space_group for r in requests}
    for proposal in proposals:
        crystal = parse(proposal.raw)
        assert not isinstance(crystal, Flaw)
        assert crystal.n_atoms <= 6
        assert set(crystal.species) <= {"Li", "Mn", "O"}
        if proposal.target_formula:
            assert crystal.formula == proposal.target_formula
        group = groups[proposal.request_id]
        if group is not None and form == "asymmetric":
            assert proposal.raw.startswith(f"{group}\n")


def test_a_checkpoint_that_is_none_is_refused_at_the_start(
    toy_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PreflightError, match="empty"):
        run(tmp_path / "c", campaign(toy_settings, {"path": str(tmp_path / "empty")}))
