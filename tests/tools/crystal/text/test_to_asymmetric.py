"""The canonical asymmetric unit: one description a crystal, whatever frame it came in."""

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal.text import (
    asymmetric_unit,
    parse_asymmetric_text,
    write_asymmetric_text,
)
from hullward.tools.crystal.text.to_asymmetric import electropositive_first

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning")

# one of each kind of freedom: origin shifts of order 2, 3 and 4, polar axes, none
TEXTS = {
    "rock salt": "225\nNa 4 4a\nCl 4 4b\n5.6",
    "zinc blende": "216\nZn 4 4a\nS 4 4c\n5.4",
    "half-Heusler": "216\nTi 4 4a\nNi 4 4c\nSn 4 4b\n5.9",
    "WC": "187\nW 1 1a\nC 1 1d\n2.9 2.8",
    "wurtzite": "186\nZn 2 2b 0.00\nO 2 2b 0.38\n3.2 5.2",
    "tilted perovskite": "62\nCa 4 4c 0.04 0.51\nTi 4 4a\nO 12 4c 0.03 0.93 8d 0.21 0.04 0.29\n"
    "5.4 7.6 5.4",
    "polar, two free axes": "8\nNa 2 2a 0.00 0.00\nCl 2 2a 0.31 0.44\n7.0 4.0 6.0 101",
    "nothing but translations": "1\nNa 1 1a 0.00 0.00 0.00\n"
    "Cl 1 1a 0.37 0.45 0.56\n3.9 4.3 4.8 84 78 81",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_one_description_whatever_the_frame(text):
    crystal = parse_asymmetric_text(text)
    rng = np.random.default_rng(1)
    once = write_asymmetric_text(asymmetric_unit(crystal))
    for basis in ([[1, 0, 0], [1, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]):
        order = rng.permutation(crystal.n_atoms)
        coords = (np.array(crystal.frac_coords) + rng.random(3)) @ np.linalg.inv(basis)
        other = Crystal.from_arrays(
            np.array(basis) @ np.array(crystal.lattice),
            [crystal.species[i] for i in order],
            coords[order],
        )
        assert write_asymmetric_text(asymmetric_unit(other)) == once


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_what_comes_back_is_the_same_crystal(text):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    crystal = parse_asymmetric_text(text)
    back = parse_asymmetric_text(write_asymmetric_text(asymmetric_unit(crystal)))
    assert StructureMatcher().fit(crystal.to_structure(), back.to_structure())


def test_elements_stand_as_in_formulas():
    assert electropositive_first(["O", "P", "Li", "O", "He"]) == ["He", "Li", "P", "O"]
