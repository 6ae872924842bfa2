"""Form B of crystal text: what is written is read back, and every deformity has its reason."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullward.models import wyckoff
from hullward.models.crystal import Crystal
from hullward.tools.crystal import space_group
from hullward.tools.crystal.text import (
    AsymmetricUnit,
    asymmetric_unit,
    parse_asymmetric_text,
    parse_unit,
    write_asymmetric_text,
)
from hullward.tools.crystal.text.asymmetric import Orbit, orbit_points
from hullward.tools.records import Flaw, Reason

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning")

SALT = "225\nNa 4 4a\nCl 4 4b\n5.6"
OLIVINE = (
    "62\nLi 4 4a\nFe 4 4c 0.28 0.97\nP 4 4c 0.09 0.42\n"
    "O 16 4c 0.10 0.74 4c 0.46 0.21 8d 0.17 0.05 0.28\n10.3 6.0 4.7"
)


def test_the_table_has_the_positions_of_all_groups():
    groups = [wyckoff.positions(number) for number in range(1, 231)]
    assert sum(map(len, groups)) == 1731
    for number, group in enumerate(groups, start=1):
        rotations, _ = wyckoff.operations(number)
        assert max(p.multiplicity for p in group.values()) == len(rotations)


@given(st.integers(1, 230), st.data())
def test_every_position_has_its_multiplicity(number, data):
    name = data.draw(st.sampled_from(sorted(wyckoff.positions(number))))
    position = wyckoff.positions(number)[name]
    # primes: no special position lies there
    free = tuple((7, 19, 29)[: len(position.free)])
    assert len(orbit_points(number, Orbit("Na", name, free))) == position.multiplicity


@pytest.mark.parametrize("number", range(1, 231))
def test_the_primitive_cell_holds_the_atoms_of_one_lattice_point(number):
    basis = wyckoff.primitive_basis(number)
    general = max(wyckoff.positions(number).values(), key=lambda p: p.multiplicity)
    free = (7.0, 19.0, 29.0)[: len(general.free)]
    names = wyckoff.CELL_PARAMETERS[wyckoff.cell_system(number)]
    lengths = {"a": 7.0, "b": 8.0, "c": 9.0, "alpha": 80.0, "beta": 95.0, "gamma": 100.0}
    unit = AsymmetricUnit(
        number,
        (Orbit("Na", general.name, tuple(map(int, free))),),
        tuple(lengths[name] for name in names),
    )
    crystal = unit.to_crystal()
    share = abs(np.linalg.det(basis))
    assert crystal.n_atoms == pytest.approx(general.multiplicity * share)


def test_salt_and_olivine_are_what_they_are():
    salt = parse_asymmetric_text(SALT)
    assert (salt.n_atoms, salt.formula, space_group(salt, 0.01)) == (2, "NaCl", 225)
    assert salt.volume_a3 == pytest.approx(5.6**3 / 4)
    olivine = parse_asymmetric_text(OLIVINE)
    assert (olivine.n_atoms, olivine.formula, space_group(olivine, 0.01)) == (28, "LiFePO4", 62)


@pytest.mark.parametrize("text", [SALT, OLIVINE])
def test_reading_and_writing_are_each_others_inverse(text):
    assert write_asymmetric_text(parse_unit(text)) == text


@pytest.mark.parametrize("text", [SALT, OLIVINE])
def test_another_cell_of_the_same_crystal_has_the_same_unit(text):
    crystal = parse_asymmetric_text(text)
    once = write_asymmetric_text(asymmetric_unit(crystal))
    moved = np.array(crystal.frac_coords) + np.array([0.13, 0.27, 0.41])
    basis = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    other = Crystal.from_arrays(
        basis @ np.array(crystal.lattice), crystal.species, moved @ np.linalg.inv(basis)
    )
    assert write_asymmetric_text(asymmetric_unit(other)) == once


FLAWS = [
    ("", Reason.EMPTY, "no text"),
    ("231" + SALT[3:], Reason.BAD_SPACE_GROUP, "1 to 230"),
    ("Fm-3m" + SALT[3:], Reason.BAD_SPACE_GROUP, "Fm-3m"),
    ("225\n5.6", Reason.NO_SITES, "no site line"),
    (SALT.replace("Na", "Xx"), Reason.UNKNOWN_ELEMENT, "an element"),
    (SALT.replace("4 4a", "8 4a"), Reason.BAD_ELEMENT_LINE, "these make 4"),
    (SALT.replace("4a", "4c"), Reason.BAD_ELEMENT_LINE, "Wyckoff position of space group 225"),
    (SALT.replace("Cl 4 4b", "Na 4 4b"), Reason.BAD_ELEMENT_LINE, "not named before"),
    (SALT.replace("4b", "4a"), Reason.BAD_ELEMENT_LINE, "taken twice"),
    (SALT.replace("4b", "4b 0.25"), Reason.BAD_ELEMENT_LINE, "0.25"),
    ("225\nNa 24 24e\n5.6", Reason.BAD_COORDINATE_LINE, "1 fractions after 24e"),
    ("225\nNa 24 24e 1.00\n5.6", Reason.BAD_COORDINATE_LINE, "1 fractions"),
    ("225\nNa 24 24e 0.50\n5.6", Reason.IMPOSSIBLE_CELL, "higher symmetry"),
    (SALT[:-4], Reason.TRUNCATED, "before the cell's parameters"),
    (SALT + " 5.6", Reason.TRUNCATED, "a of the cell"),
    (SALT + "\nTitle", Reason.TRAILING_TEXT, "Title"),
    (SALT.replace("5.6", "0.0"), Reason.IMPOSSIBLE_CELL, "positive"),
    ("x" * 40_000, Reason.TOO_LARGE, "characters"),
    (
        "225\nNa 576 " + " ".join(f"192l 0.1{n} 0.22 0.37" for n in "123") + "\n30.0",
        Reason.TOO_LARGE,
        "576 sites",
    ),
]


@pytest.mark.parametrize(("text", "reason", "words"), FLAWS)
def test_one_flaw_one_reason(text, reason, words):
    found = parse_asymmetric_text(text)
    assert isinstance(found, Flaw)
    assert found.reason == reason
    assert words in found.detail


@given(st.text(alphabet="0123456789. \nabcdNaCl", max_size=60))
def test_reading_never_raises(text):
    assert isinstance(parse_asymmetric_text(text), Crystal | Flaw)


def test_writing_refuses_what_rounding_merges():
    unit = AsymmetricUnit(225, (Orbit("Na", "24e", (0,)),), (5.6,))
    with pytest.raises(ValueError, match="form B cannot represent"):
        write_asymmetric_text(unit)


def test_known_crystals_come_back(shared_data):
    """Nearly all do; the others sit within the rounding of another symmetry."""
    import pandas as pd
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    table = pd.read_parquet(shared_data / "structures" / "mp_structures.parquet")
    table = table[table.nsites <= 20].sample(40, random_state=5)
    matcher, same = StructureMatcher(), 0
    for cif in table.cif:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truth = Structure.from_str(cif, fmt="cif")
        try:
            text = write_asymmetric_text(asymmetric_unit(Crystal.from_structure(truth)))
        except ValueError:
            continue
        same += matcher.fit(truth, parse_asymmetric_text(text).to_structure())
    assert same >= 38
