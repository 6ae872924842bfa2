"""The second file of written types: each says what it is, and is."""

from importlib.resources import files

import numpy as np
import pytest
import yaml

from hullward.tools.crystal import space_group
from hullward.tools.prototypes import element_structures
from hullward.tools.prototypes.library import textbook

pytestmark = pytest.mark.filterwarnings("ignore:.*monty.*:DeprecationWarning", "ignore:.*Omitted.*")

TEXT = (files("hullward.data") / "prototypes_more.yaml").read_text(encoding="utf-8")
ENTRIES = yaml.safe_load(TEXT)
CLOSEST_A = {"H2": 0.7}  # others: 1.0 Å, less than a B-H bond


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_each_type_is_what_it_says(entry):
    crystal = textbook()[entry["id"]]
    assert crystal.formula == entry["formula"]
    assert crystal.n_atoms == entry["atoms"]
    assert space_group(crystal, 1e-3) == entry["spacegroup"]
    closest = crystal.to_structure().get_neighbor_list(4.0)[3].min()
    assert closest > CLOSEST_A.get(entry["formula"], 1.0)
    assert 5 < crystal.volume_per_atom_a3 < 60
    assert entry["source"]


def test_no_two_types_share_a_name():
    names = [entry["id"] for entry in ENTRIES]
    assert len(names) == len(set(names))


def test_written_elements_are_offered_for_their_element():
    for entry in ENTRIES:
        if entry["id"].startswith("element-"):
            (symbol,) = {site[0] for site in entry["sites"]}
            offered = dict(element_structures(symbol))
            found = offered[f"own:{entry['id']}"]
            assert set(found.species) == {symbol}
            assert np.isclose(found.volume_per_atom_a3, textbook()[entry["id"]].volume_per_atom_a3)
