"""From what a model writes to a table of structure types: what is dropped, kept and remembered."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.language import NANO_SAMPLING, Sampling, nano_folder
from hullward.models.language.doubles import ScriptedModel
from hullward.tools.crystal.text import parse_asymmetric_text
from hullward.tools.prototypes import (
    TypeLibrary,
    anonymous_formula,
    anonymous_letters,
    nano_types,
    typed_crystal,
)
from hullward.tools.prototypes.library import make_prototype
from hullward.tools.reference import load_reference
from hullward.training.crystals import in_quarantine
from hullward.training.structure_types import search as prototype_search
from hullward.training.structure_types.build import make_table
from hullward.training.structure_types.questions import (
    formula_questions,
    free_questions,
    suggested_formulas,
    wide_systems,
)
from hullward.training.structure_types.table import write_table

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")

KNOWN = "225\nLi 4 4a\nO 4 4b\n4.6"  # rock salt
OTHER = "221\nLi 1 1a\nO 1 1b\n2.7"  # caesium chloride
NEW = "221\nLi 1 1a\nMn 1 1b\nO 3 3c\n3.4"  # perovskite
AGAIN = "221\nMn 1 1a\nNa 1 1b\nO 3 3c\n3.6"
ALONE = "229\nMn 2 2a\n2.9"
NO_SYMMETRY = (
    "1\nLi 1 1a 0.00 0.00 0.00\nMn 1 1a 0.31 0.22 0.40\nO 1 1a 0.71 0.62 0.67\n3.4 3.6 3.9 88 93 95"
)


def rock_salt(a="Na", b="Cl", edge=5.6):
    return parse_asymmetric_text(f"225\n{a} 4 4a\n{b} 4 4b\n{edge}")


def test_a_type_is_known_whatever_its_elements_cell_and_origin():
    found = typed_crystal(rock_salt())
    types = TypeLibrary([("halite", found.crystal, found.of_class)])
    other = rock_salt("Mg", "O", 4.2)
    shifted = np.add(other.frac_coords, (0.13, 0.31, 0.57))
    doubled = other.to_structure().make_supercell([2, 1, 1], in_place=False)
    for crystal in (
        other,
        Crystal.from_arrays(other.lattice, other.species, shifted),
        Crystal.from_structure(doubled),
    ):
        seen = typed_crystal(crystal)
        assert types.find(seen.crystal, seen.of_class) == "halite"


def test_equal_amounts_in_another_arrangement_are_another_type():
    halite, cesium = typed_crystal(rock_salt()), typed_crystal(parse_asymmetric_text(OTHER))
    types = TypeLibrary([("halite", halite.crystal, halite.of_class)])
    assert types.find(cesium.crystal, cesium.of_class) is None
    assert halite.of_class.anonymous == cesium.of_class.anonymous == (1, 1)


def test_one_class_may_hold_two_types_that_only_superposing_tells_apart():
    """Rutile's class with the anions far from where rutile has them."""
    rutile = typed_crystal(parse_asymmetric_text("136\nTi 2 2a\nO 4 4f 0.31\n4.6 3.0"))
    other = typed_crystal(parse_asymmetric_text("136\nTi 2 2a\nO 4 4f 0.10\n7.5 1.9"))
    assert rutile.of_class == other.of_class
    types = TypeLibrary([("rutile", rutile.crystal, rutile.of_class)])
    assert types.find(other.crystal, other.of_class) is None


def test_what_is_written_down_has_the_symmetry_it_names():
    olivine = (
        "62\nLi 4 4a\nFe 4 4c 0.28 0.97\nP 4 4c 0.09 0.42\n"
        "O 16 4c 0.10 0.74 4c 0.46 0.21 8d 0.17 0.05 0.28\n10.4 6.0 4.7"
    )
    found = typed_crystal(parse_asymmetric_text(olivine))
    assert found.of_class.space_group == 62
    assert anonymous_letters(found.of_class.anonymous) == "ABCD4"
    assert found.of_class.words == "4.4.4.4+4+8"


def test_no_question_names_what_is_quarantined_and_the_worst_served_come_first():
    systems = ["Fe-P", "Li-Mn-O", "Na", *wide_systems(12, ["Ca", "Ti", "Na", "Cu"], 3)]
    served = Counter({(1, 2, 4): 30, (1, 1, 2): 90})
    formulas = suggested_formulas(systems, served, 50)
    assert "LiMn2O4" in formulas
    assert "LiMnO2" not in formulas  # its kind has ninety
    assert not any(in_quarantine(f, "-".join(sorted(_symbols(f)))) for f in formulas)
    assert wide_systems(12, ["Ca", "Ti", "Na", "Cu"], 3) == systems[3:]
    amounts = [served.get(anonymous_formula(f), 0) for f in formulas]
    assert amounts == sorted(amounts)
    assert {0, 30} == set(amounts)


def _symbols(formula):
    from pymatgen.core import Composition

    return [str(el) for el in Composition(formula)]


def test_a_question_has_the_same_id_however_many_are_asked():
    few = free_questions(64, NANO_SAMPLING, [0.5])
    many = free_questions(96, NANO_SAMPLING, [0.5, 0.7])
    ids = [q.request.request_id for q in many]
    assert [q.request.request_id for q in few] == ids[:2]
    assert len(set(ids)) == len(ids) == 6
    assert sum(q.request.sampling.n for q in many) == 2 * 96
    asked = formula_questions(["LiFePO4"], 3, NANO_SAMPLING, 0.7)
    assert "LiFePO4" in asked[0].request.prompt
    assert asked[0].request.sampling.n == 3


@pytest.fixture
def toy_search(tmp_path, toy_reference, monkeypatch):
    """A function that makes a table of what a model says in the toy world."""
    monkeypatch.setattr(prototype_search, "is_quarantined", lambda c: c.formula == "LiO3")

    def search(texts, relaxations=None):
        sampling = Sampling(temperature=0.5, max_tokens=9)
        questions = [
            replace(q, request=replace(q.request, request_id=f"q{k}"))
            for k, _ in enumerate(texts)
            for q in free_questions(1, sampling, [0.5])
        ]
        model = ScriptedModel(texts)
        rows, about = make_table(
            model,
            questions,
            tmp_path / "work",
            potential="toy",
            reference=load_reference(f"file:{toy_reference}"),
            known_prototypes=[make_prototype("halite", rock_salt())],
            model_folder=nano_folder(),
            relaxations=relaxations,
        )
        return rows, about, model

    return search


def test_every_answer_has_one_fate_and_only_new_types_are_kept(toy_search, monkeypatch):
    monkeypatch.setattr("hullward.training.structure_types.table.HIGHEST_EV_PER_ATOM", 5.0)
    monkeypatch.setattr("hullward.training.structure_types.table.suspicions", lambda *a: ())
    quarantined = "221\nLi 1 1a\nO 3 3c\n3.5"
    texts = [KNOWN, NEW, AGAIN, NEW, ALONE, NO_SYMMETRY, quarantined, "I am sorry", ""]
    rows, about, _ = toy_search(texts)
    fates = about["counts"]
    assert fates["parse"] == 2
    assert fates["quarantined"] == fates["element"] == fates["no symmetry"] == 1
    assert fates["typed"] == 4 == fates["typed, known"] + fates["typed, new"]
    assert fates["typed, known"] == 1
    assert fates["relaxed"] == 2  # the two namings of the new type; said twice is relaxed once
    assert fates["types"] == len(rows) == 1
    assert (rows[0]["space_group"], rows[0]["anonymous"], rows[0]["examples"]) == (221, "1-1-3", 2)
    assert rows[0]["e_above_hull_ev_per_atom"] is not None  # that of the example with a hull


def test_suspects_and_what_lies_high_are_dropped_with_their_reason(toy_search, monkeypatch):
    monkeypatch.setattr("hullward.training.structure_types.table.suspicions", lambda *a: ("odd",))
    rows, about, _ = toy_search([NEW])
    assert rows == []
    assert about["counts"]["suspect"] == about["counts"]["relaxed"] == 1


def test_the_same_command_asks_and_relaxes_nothing_twice(toy_search, monkeypatch):
    relaxed = []
    whole = prototype_search.relax_many

    def counted(jobs, *args, **kwargs):
        relaxed.extend(name for name, _ in jobs)
        return whole(jobs, *args, **kwargs)

    monkeypatch.setattr(prototype_search, "relax_many", counted)
    _, _, model = toy_search([NEW, AGAIN, KNOWN], relaxations=1)
    assert (len(model.history), len(relaxed)) == (3, 1)
    _, _, model = toy_search([NEW, AGAIN, KNOWN])
    assert (len(model.history), len(relaxed)) == (0, 2)
    _, about, model = toy_search([NEW, AGAIN, KNOWN])
    assert (len(model.history), len(relaxed)) == (0, 2) == (0, len(set(relaxed)))
    assert about["counts"]["relaxed"] == 2


def test_what_a_stop_cut_short_is_asked_again_and_counted_once(toy_search, tmp_path):
    toy_search([KNOWN, NEW, ALONE], relaxations=0)
    path = tmp_path / "work" / prototype_search.ANSWERS
    text = path.read_text()
    path.write_text(text[: len(text) - 20])
    _, about, model = toy_search([KNOWN, NEW, ALONE], relaxations=0)
    assert [request.request_id for request in model.history] == ["q2"]
    assert about["counts"]["typed"] == 3  # two of before, and the script's first line again


def test_a_table_is_read_back_as_it_was_written(tmp_path, monkeypatch):
    found = typed_crystal(rock_salt("Ca", "S", 5.7))
    row = {
        "prototype_id": "nano:AB-225-abcdef",
        "text": found.text,
        "anonymous": "1-1",
        "formula": "CaS",
    }
    write_table([row], {"model": "m"}, tmp_path / nano_types.NANO_TYPES)
    monkeypatch.setattr(nano_types, "files", lambda package: tmp_path)
    for cached in (nano_types.nano_table, nano_types._nano_prototype):
        cached.cache_clear()
    try:
        assert nano_types.nano_table().about == {"model": "m"}
        [prototype] = nano_types.nano_types_for(["NaCl", "MgO"])
        assert prototype.species == ("Ca", "S")
        assert nano_types.nano_types_for(["SrTiO3"]) == []
    finally:
        for cached in (nano_types.nano_table, nano_types._nano_prototype):
            cached.cache_clear()
