"""The shipped structure types that nano wrote, and who uses them."""

from collections import Counter

import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal import anonymous_amounts, space_group
from hullward.tools.crystal.text import parse_asymmetric_text
from hullward.tools.prototypes import (
    Substitution,
    TypeLibrary,
    decorate,
    nano_table,
    nano_types,
    nano_types_for,
    prototype_library,
)
from hullward.tools.prototypes.nano_types import nano_prototype
from hullward.tools.reference.recipe.trials import all_trials
from hullward.training.crystals import in_quarantine, is_quarantined
from hullward.training.structure_types.build import anonymous_of
from hullward.training.structure_types.search import known_types, read_typed

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")

SAMPLE = 7  # every seventh row where all would take long


@pytest.fixture(scope="module")
def rows():
    return nano_table().rows


def test_every_type_reads_back_with_the_symmetry_and_amounts_it_names(rows):
    assert len({row["prototype_id"] for row in rows}) == len(rows)
    for row in rows:
        crystal = parse_asymmetric_text(row["text"])
        assert isinstance(crystal, Crystal), row["prototype_id"]
        assert space_group(crystal, 0.01) == row["space_group"] >= 2, row["prototype_id"]
        amounts = "-".join(map(str, anonymous_amounts(crystal)))
        assert (amounts, crystal.n_atoms, crystal.formula) == (
            row["anonymous"],
            row["n_atoms"],
            row["formula"],
        )


def test_nothing_quarantined_was_asked_for_or_kept(rows):
    from pymatgen.core import Composition

    for row in rows:
        assert not is_quarantined(parse_asymmetric_text(row["text"])), row["prototype_id"]
        if row["asked_formula"] is not None:
            asked = Composition(row["asked_formula"])
            assert not in_quarantine(asked.reduced_formula, asked.chemical_system)


def test_no_type_is_there_twice(rows):
    """Every type of the classes that hold several."""
    units = [(row["prototype_id"], read_typed(row["text"])) for row in rows]
    several = Counter(unit.of_class for _, unit in units)
    types = TypeLibrary()
    for name, unit in units:
        if several[unit.of_class] > 1:
            assert types.find(unit.crystal, unit.of_class) is None, name
            types.add(name, unit.crystal, unit.of_class)


def test_none_of_a_sample_is_one_of_aflows_or_ours(rows):
    sample = [read_typed(row["text"]) for row in rows[::SAMPLE]]
    kinds = {unit.of_class.anonymous for unit in sample}
    known = known_types([p for p in prototype_library() if anonymous_of(p) in kinds], 24)
    assert len(known) > 20
    for unit in sample:
        assert known.find(unit.crystal, unit.of_class) is None, unit.text


def test_the_table_says_where_it_is_from(rows):
    said = nano_table().about
    assert said["model"].startswith("nano_cif@")
    assert said["protocol"]["fmax_ev_per_a"] == 0.05
    counts = said["counts"]
    assert counts["types"] == len(rows)
    assert counts["formula learnt"] == sum(row["formula_learnt"] for row in rows)
    assert counts["typed"] == counts["typed, known"] + counts["typed, new"]
    lows = [row["e_above_hull_ev_per_atom"] for row in rows]
    assert max(low for low in lows if low is not None) <= said["highest_ev_per_atom"]


def test_only_types_of_a_formulas_kind_are_built(monkeypatch):
    built = []
    monkeypatch.setattr(nano_types, "make_prototype", lambda name, crystal: built.append(name))
    nano_types._nano_prototype.cache_clear()
    try:
        found = nano_types_for(["SrTiO3", "BaTiO3"])
        assert len(found) == len(built) == len(nano_table().by_anonymous[(1, 1, 3)])
        assert nano_types_for(["LiF"]) is not None
        assert len(built) < len(nano_table().rows)
    finally:
        nano_types._nano_prototype.cache_clear()


def test_an_element_stays_whole_in_a_type_that_nano_wrote():
    """Its orbits are not shared out: one element for each of the type's, no more."""
    types = nano_types_for(["SrTiO3"])
    made = list(decorate(["Sr", "Ti", "O"], ["SrTiO3"], 40, prototypes=types))
    assert made
    for d in made:
        old_of = {}
        for label, new in d.assignment:
            assert old_of.setdefault(label.split("-")[0], new) == new


def test_substitution_tries_them_beside_the_library():
    made = list(Substitution([], max_atoms=24).propose(["SrTiO3"]))
    parents = [p.split(":")[1] for m in made for p in m.parents]
    assert {"nano", "own"} < set(parents)
    for m in made:
        assert m.crystal.formula == "SrTiO3"
    written = [m for m in made if m.parents[0].startswith("prototype:nano:")]
    types = {nano_prototype(m.parents[0].removeprefix("prototype:")).n_atoms for m in written}
    assert types <= set(range(25))


def test_a_reference_build_tries_them_and_none_takes_anothers_place(monkeypatch):
    with_them = all_trials(["Ba", "Ti", "O"])
    monkeypatch.setattr(
        "hullward.tools.reference.recipe.trials.nano_types_for", lambda formulas: []
    )
    without = all_trials(["Ba", "Ti", "O"])
    written = [t for t in with_them if t.prototype.startswith("nano:")]
    assert written
    assert [t for t in with_them if not t.prototype.startswith("nano:")] == without
    assert max(t.crystal.n_atoms for t in written) <= 24
    assert not any(t.own for t in written)
