"""Structure types: what the written ones are, and what decorating them promises."""

import time

import numpy as np
import pytest

from hullward.models.errors import InputError
from hullward.tools.crystal import bond_length, space_group
from hullward.tools.prototypes import (
    PARENTS,
    best_orderings,
    decorate,
    element_structures,
    prototype_library,
)
from hullward.tools.prototypes.library import textbook

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")


@pytest.fixture(scope="module")
def types():
    return prototype_library()


SPACE_GROUPS = {
    "LiCoO2-layered": (166, 4),
    "LiFeO2-gamma": (141, 8),
    "LiMnO2-orthorhombic": (59, 8),
    "LiMnO2-monoclinic": (12, 4),
    "Li2MnO3": (12, 12),
    "In2O3-bixbyite": (206, 40),
    "Li2O2": (194, 8),
    "MgAl2O4-spinel": (227, 14),
    "MgAl2O4-inverse": (74, 14),
    "Mn3O4-hausmannite": (141, 14),
    "MnO2-hollandite": (87, 12),
    "MnO2-ramsdellite": (62, 12),
}


def test_written_types_have_their_space_group_their_atoms_and_sound_bonds():
    for name in SPACE_GROUPS:  # test_textbook.py looks at every one
        crystal = textbook()[name]
        assert (space_group(crystal, 1e-3), crystal.n_atoms) == SPACE_GROUPS[name], name
        bonds = crystal.to_structure().get_neighbor_list(2.5)[3]
        assert bonds.min() > (1.4 if name == "Li2O2" else 1.8), name


def test_the_library_holds_aflow_and_ours_under_distinct_names(types):
    names = [t.prototype_id for t in types]
    assert len(names) == len(set(names)) == 288 + len(textbook())


def test_decorations_use_every_element_within_the_limit_and_repeat_in_order(types):
    once = list(decorate(["Li", "Mn", "O"], max_atoms=8))
    assert once
    for d in once:
        assert set(d.crystal.species) == {"Li", "Mn", "O"}
        assert d.crystal.n_atoms <= 8
        assert {element for _, element in d.assignment} == {"Li", "Mn", "O"}
    assert once == list(decorate(["Li", "Mn", "O"], max_atoms=8))


def test_formulas_choose_the_decorations(types):
    found = {d.crystal.formula for d in decorate(["Li", "Mn", "O"], ["LiMnO2", "Li2Mn2O4"])}
    assert found == {"LiMnO2"}
    assert {d.crystal.formula for d in decorate(["Li", "O"], ["Li2O2"])} == {"Li2O2"}
    with pytest.raises(InputError, match="no formula"):
        list(decorate(["Li", "O"], ["LiQq"]))


def test_splitting_orbits_lets_binary_types_serve_ternaries(types):
    binary = {t.prototype_id for t in types if len(set(t.species)) == 2}
    serving = {d.prototype_id for d in decorate(["Li", "Fe", "O"])}
    assert binary & serving


def test_ions_in_decorations_stand_beside_their_counterparts(types):
    for d in decorate(["Li", "O"], ["Li2O"], max_atoms=12):
        matrix = np.where(
            (m := d.crystal.to_structure().distance_matrix) < 0.01, np.inf, m
        )  # other atoms of the cell only
        anion = np.array(d.crystal.species) == "O"
        assert matrix[np.ix_(anion, ~anion)].min() <= 1.06 * matrix[np.ix_(anion, anion)].min()


@pytest.mark.parametrize(("metal", "formula"), [("Ca", "CaC2"), ("Ce", "CeC2"), ("Li", "LiC")])
def test_acetylides_may_bond_carbon_to_carbon(types, metal, formula):
    """Bound to itself, carbon is nobody's nearest neighbour of the other sign."""
    bonded = [
        d.prototype_id
        for d in decorate([metal, "C"], [formula], max_atoms=6)
        if carbon_pair_a(d.crystal) < 1.8
    ]
    assert bonded


def carbon_pair_a(crystal):
    first, second, _, distances = crystal.to_structure().get_neighbor_list(2.5)
    return min(
        (d for i, j, d in zip(first, second, distances, strict=True)
         if crystal.species[i] == crystal.species[j] == "C"),
        default=np.inf,
    )  # fmt: skip


def test_volumes_are_those_of_solids(types):
    for elements in (["Li", "O"], ["Fe", "O"], ["Li", "Fe"]):
        volumes = [d.crystal.volume_per_atom_a3 for d in decorate(elements, max_atoms=6)]
        assert min(volumes) > 5
        assert np.median(volumes) < 35  # alloys start open


def test_all_ternary_decorations_of_a_system_take_seconds(types):
    start = time.process_time()
    assert len(list(decorate(["Li", "Mn", "O"]))) > 500
    assert time.process_time() - start < 20


def test_oxygen_is_a_molecule_and_lithium_has_its_metals():
    for _, crystal in element_structures("O"):
        bonds = crystal.to_structure().get_neighbor_list(1.5)[3]
        assert bonds.min() == pytest.approx(1.2, abs=0.15)
    names = [name for name, _ in element_structures("Li")]
    assert "dcdft:Li" in names
    assert len(names) > 10


@pytest.mark.parametrize(
    ("parent", "cations", "anions", "formula"),
    [
        ("antifluorite", {"Fe": (1, 3.0), "Li": (5, 1.0)}, 4, "Li5FeO4"),
        ("antifluorite", {"Mn": (2, 2.0), "Li": (12, 1.0)}, 8, "Li6MnO4"),
        ("rocksalt", {"Mn": (2, 4.0), "Li": (4, 1.0)}, 6, "Li2MnO3"),
    ],
)
def test_orderings_have_the_formula_asked_for_and_repeat(parent, cations, anions, formula):
    def ask():
        return list(best_orderings(PARENTS[parent], cations, "O", -2.0, anions, 2.0))

    found = ask()
    assert {crystal.formula for _, crystal in found} == {formula}
    assert found == ask()
    for _, crystal in found:
        shortest = crystal.to_structure().get_neighbor_list(2.5)[3].min()
        assert shortest == pytest.approx(2.0, abs=1e-4)


def test_point_charges_prefer_the_low_temperature_ordering_of_lithium_ferrite():
    found = best_orderings(PARENTS["rocksalt"], {"Fe": (4, 3.0), "Li": (4, 1.0)}, "O", -2.0, 8, 2.1)
    assert space_group(next(found)[1], 1e-3) == 141  # the γ type


def test_bond_lengths_are_sums_of_ionic_radii():
    assert bond_length("Li", "O") == pytest.approx(2.1, abs=0.2)


def test_a_type_of_many_orbits_keeps_each_species_together(types):
    """Mg2P4O12 has ten orbits: three choices for its three species, not 3 to the tenth."""
    own = [t for t in types if t.prototype_id == "own:Mg2P4O12"]
    assert len(own[0].labels) == 10
    found = list(decorate(["Fe", "P", "O"], ["Fe(PO3)2"], 80, prototypes=own))
    assert [d.crystal.formula for d in found] == ["Fe(PO3)2"]
    by_kind = {(label.split("-")[0], element) for label, element in found[0].assignment}
    assert by_kind == {("Mg", "Fe"), ("P", "P"), ("O", "O")}
    assert space_group(found[0].crystal, 1e-2) == 15


def test_aflows_types_of_many_orbits_stay_out():
    assert not list(decorate(["K", "As", "Se"], ["AsKSe2"], 20, prototypes=[
        t for t in prototype_library() if t.prototype_id == "ABC2_aP16_1_4a_4a_8a"
    ]))  # fmt: skip
