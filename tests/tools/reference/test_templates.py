"""Structures fetched from the Materials Project as templates of substitution."""

import json
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.agents.settings import Campaign, parse_settings
from hullward.agents.workspace import Workspace
from hullward.models.crystal import Crystal
from hullward.tools.hull import low_structures
from hullward.tools.reference import load_reference
from hullward.tools.reference.materials_project import Access, fetch_systems
from hullward.tools.reference.materials_project.server_double import (
    KEY,
    MaterialsProjectDouble,
    thermo_document,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")

HALF = [[0, 0, 0], [0.5, 0.5, 0.5]]


def cell(*species: str, a: float = 3.0) -> Crystal:
    return Crystal.from_parameters((a,) * 3, (90,) * 3, list(species), HALF[: len(species)])


def doubled(crystal: Crystal) -> Crystal:
    return Crystal.from_structure(crystal.to_structure().make_supercell(2, in_place=False))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What a user with a key has fetched."""
    documents = [
        thermo_document("mp-1", cell("Li", "Li"), -1.9, is_stable=True),
        thermo_document("mp-2", cell("O", "O"), -4.95, is_stable=True),
        thermo_document("mp-4", cell("Li", "O"), -5.0, is_stable=True, correction_ev=-0.687),
        thermo_document("mp-5", cell("Li", "O", a=3.4), -4.8, correction_ev=-0.687),
        thermo_document("mp-6", doubled(cell("Li", "O")), -4.99, correction_ev=-8 * 0.687),
    ]
    with MaterialsProjectDouble(documents) as server:
        found = tmp_path_factory.mktemp("home")
        fetch_systems(["Li-O"], Access(key=SecretStr(KEY), home=found, endpoint=server.endpoint))
    return found


def test_templates_are_compounds_near_the_hull_that_fit_the_cell(home):
    found = low_structures(load_reference("mp", home), max_atoms=8)
    assert [(name, c.formula) for name, c in found] == [("mp-4-GGA", "Li2O2")]
    assert [name for name, _ in low_structures(load_reference("mp", home), 16)] == [
        "mp-4-GGA",
        "mp-6-GGA",
    ]


def test_where_nothing_was_fetched_there_are_none(tmp_path):
    assert low_structures(load_reference("mp", tmp_path / "empty"), 100) == []


def made_by(reference, second=None):
    settings = {"name": "n", "systems": ["Cl-Na"], "max_atoms": 8}
    bench = Workspace(
        campaign=parse_settings(Campaign, settings, "test"),
        store=None,
        screen=SimpleNamespace(reference=reference, second=second),
        machine=None,
        spending=None,
        publisher=None,
    )
    return [m for m in bench.substitution.propose(["NaCl"]) if m.parents == ("mp-4-GGA",)]


def test_a_campaign_on_the_materials_project_starts_from_what_was_fetched(home):
    fetched, embedded = load_reference("mp", home), load_reference("embedded")
    made = made_by(fetched)
    assert {m.crystal.formula for m in made} == {"NaCl"}
    assert made[0].note == "Li to Na, O to Cl"  # the other way round is less likely
    beside = made_by(embedded, SimpleNamespace(reference=fetched))
    assert [m.note for m in beside] == [m.note for m in made]
    assert made_by(embedded) == []


def test_propose_starts_from_what_was_fetched(home, monkeypatch):
    monkeypatch.setenv("HULLWARD_HOME", str(home))
    wish = ["propose", "--operator", "substitution", "--formula", "NaCl", "-n", "500", "--json"]
    answer = CliRunner().invoke(app, wish)
    assert answer.exit_code == 0, answer.stderr
    parents = [row["parents"] for row in json.loads(answer.stdout)["proposals"]]
    assert ["mp-4-GGA"] in parents
    assert any(p[0].startswith("prototype:") for p in parents)
