"""Our written structure types: each builds what its entry says, with the bonds of a solid."""

import re
from functools import cache
from importlib.resources import files

import pytest
import yaml
from pymatgen.core import Composition

from hullward.tools.crystal import bond_length, space_group
from hullward.tools.prototypes.library import textbook

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")

SHORTEST_BOND = 0.75  # of the sum of the radii; hexavalent cations reach 0.8
SHORTEST_BOND_TO_HYDROGEN_A = 0.9  # no ionic radius says this
SHORTEST_OXYGEN_PAIR_A = 1.9
SHORTEST_PEROXIDE_PAIR_A = 1.4
PEROXIDES = {"Li2O2", "Na2O2", "K2O2"}
TEXT = (files("hullward.data") / "prototypes.yaml").read_text(encoding="utf-8")


@cache
def entries():
    return {entry["id"]: entry for entry in yaml.safe_load(TEXT)}


def test_every_name_is_given_once():
    assert len(re.findall(r"^- id:", TEXT, re.MULTILINE)) == len(entries())
    assert entries().keys() <= textbook().keys()


@pytest.mark.parametrize("name", entries())
def test_a_type_has_the_space_group_and_the_atoms_it_states(name):
    entry, crystal = entries()[name], textbook()[name]
    assert space_group(crystal, 1e-3) == entry["spacegroup"]
    assert entry["source"]
    if "formula" in entry:
        stated = Composition(entry["formula"])
        assert Composition(crystal.formula).reduced_composition == stated.reduced_composition
        assert crystal.n_atoms == entry["atoms"]


def test_only_the_oldest_types_state_no_formula():
    silent = [name for name, entry in entries().items() if "formula" not in entry]
    assert silent == list(entries())[: len(silent)]
    assert len(silent) == 12


@pytest.mark.parametrize("name", entries())
def test_no_two_atoms_of_a_type_are_too_close(name):
    crystal = textbook()[name]
    first, second, _, distances = crystal.to_structure().get_neighbor_list(2.6)
    for i, j, distance_a in zip(first, second, distances, strict=True):
        pair = (crystal.species[i], crystal.species[j])
        assert distance_a > shortest_a(name, pair), pair


def shortest_a(name, pair):
    if "H" in pair:
        return SHORTEST_BOND_TO_HYDROGEN_A
    if pair == ("O", "O"):
        return SHORTEST_PEROXIDE_PAIR_A if name in PEROXIDES else SHORTEST_OXYGEN_PAIR_A
    return SHORTEST_BOND * bond_length(*sorted(pair, key=lambda symbol: symbol == "O"))
