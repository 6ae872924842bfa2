"""The first formulas of a system are those that a chemist would name, each with its reason."""

import pytest

from hullward.models.errors import InputError
from hullward.tools.crystal import charge_balance, parse_formula
from hullward.tools.crystal.oxidation_states import known_states, usual_states
from hullward.tools.crystal.stoichiometry import likely_formulas

# A known stoichiometry that every textbook has, among the first so many.
FIRST = {
    "Na-Fe-P-O": ("NaFePO4", 3),
    "Cs-Sn-I": ("CsSnI3", 2),
    "Mg-Sb": ("Mg3Sb2", 2),
    "Al-Ni-Ti": ("TiAlNi2", 2),
    "Li-Mn-O": ("LiMnO2", 10),
    "Cu-Zn-Sn-S": ("ZnCu2SnS4", 2),
    "La-Fe-As-O": ("LaFeAsO", 10),
    "Li-Zr-N": ("Li2ZrN2", 3),
    "Ti-N": ("TiN", 10),
    "Cs-Br": ("CsBr", 1),
}


@pytest.mark.parametrize("system", FIRST)
def test_a_textbook_stoichiometry_comes_first(system: str) -> None:
    formula, most = FIRST[system]
    first = likely_formulas(system.split("-"), 40)[:most]
    wanted = sorted(parse_formula(formula).items())
    assert wanted in [sorted(parse_formula(one.formula).items()) for one in first]
    assert all(one.reason for one in first)


def test_only_balanced_formulas_where_that_is_asked_for() -> None:
    listed = likely_formulas(["Na", "Fe", "P", "O"], 40, balanced_only=True)
    assert 20 < len(listed) <= 500
    assert all(charge_balance(parse_formula(one.formula)).balanced for one in listed)


def test_given_states_replace_the_usual_ones() -> None:
    allowed = {"Na": (1,), "Fe": (2,), "P": (5,), "O": (-2,)}
    for one in likely_formulas(["Na", "Fe", "P", "O"], 40, allowed):
        assert charge_balance(parse_formula(one.formula), allowed).balanced, one


def test_a_known_neighbour_raises_a_formula_and_is_named() -> None:
    def place(known: str) -> tuple[int, str]:
        wanted = sorted(parse_formula("CsSnBr3").items())
        listed = likely_formulas(["Cs", "Sn", "Br"], 40, known=lambda formula: formula == known)
        (found,) = (
            (i, one.reason)
            for i, one in enumerate(listed)
            if sorted(parse_formula(one.formula).items()) == wanted
        )
        return found

    assert place("CsSnI3")[0] <= place("NaCl")[0]
    assert "as CsSnI3 (known)" in place("CsSnI3")[1]


def test_formulas_keep_to_the_largest_cell() -> None:
    for one in likely_formulas(["Li", "Mn", "O"], 8):
        assert sum(parse_formula(one.formula).values()) <= 8


def test_one_element_is_no_compound() -> None:
    with pytest.raises(InputError, match="at least two elements, not Li"):
        likely_formulas(["Li", "Li"], 8)


def test_usual_states_are_known_ones() -> None:
    assert usual_states("Mn") == (2, 3, 4)
    assert known_states("Mn")[:3] == usual_states("Mn")
    assert usual_states("He") == known_states("Xx") == ()
