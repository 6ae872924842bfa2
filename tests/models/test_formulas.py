"""Formulas: read as pymatgen reads the valid ones; all other text is refused with one message."""

import re
import time
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition

from hullward.models.errors import InputError
from hullward.models.formulas import (
    ELEMENTS,
    MAX_CHARS,
    composition_amounts,
    formula_amounts,
    reduced_spelling,
)
from hullward.tools.crystal import parse_formula

READ = {
    "NaCl": {"Na": 1, "Cl": 1},
    "Na Cl": {"Na": 1, "Cl": 1},
    " Na1\tCl1 ": {"Na": 1, "Cl": 1},
    "NaN": {"Na": 1, "N": 1},
    "CO": {"C": 1, "O": 1},
    "Co": {"Co": 1},
    "NO": {"N": 1, "O": 1},
    "No": {"No": 1},
    "SN": {"S": 1, "N": 1},
    "CoO": {"Co": 1, "O": 1},
    "COO": {"C": 1, "O": 2},
    "Fe1e-5Ni1": {"Fe": 1e-5, "Ni": 1},
    "Fe0.00009Ni0.99991": {"Fe": 9e-5, "Ni": 0.99991},
    "Fe1E-9Ni1": {"Fe": 1e-9, "Ni": 1},
    "Li0.5CoO2": {"Li": 0.5, "Co": 1, "O": 2},
    "Li1.2Mn0.6Ni0.2O2": {"Li": 1.2, "Mn": 0.6, "Ni": 0.2, "O": 2},
    "LiNi0.5Mn1.5O4": {"Li": 1, "Ni": 0.5, "Mn": 1.5, "O": 4},
    "Ca3(PO4)2": {"Ca": 3, "P": 2, "O": 8},
    "[Co(NH3)6]Cl3": {"Co": 1, "N": 6, "H": 18, "Cl": 3},
    "K4{Fe(CN)6}": {"K": 4, "Fe": 1, "C": 6, "N": 6},
    "Pb(I)2": {"Pb": 1, "I": 2},
    "Y3N@C80": {"Y": 3, "N": 1, "C": 80},
    "Fe₂O₃": {"Fe": 2, "O": 3},
    "Li₀.₅CoO₂": {"Li": 0.5, "Co": 1, "O": 2},
    "CuSO4·5H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4 • 5 H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4*5H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4(H2O)5": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CaSO4·0.5H2O": {"Ca": 1, "S": 1, "O": 4.5, "H": 1},
    "CaSO4.H2O": {"Ca": 1, "S": 1, "O": 5, "H": 2},
    "3CdSO4·8H2O": {"Cd": 3, "S": 3, "O": 20, "H": 16},
    "Mg(OH)2.MgCO3": {"Mg": 2, "O": 5, "H": 2, "C": 1},
    "(NaCl)2": {"Na": 2, "Cl": 2},
    "CH3CH3": {"C": 2, "H": 6},
}

REFUSED = {
    "": "no formula",
    " \n": "no formula",
    "nan": "cannot read",
    "None": "no element",
    "null": "cannot read",
    "cobalt": "cannot read",
    "NACL": "'A' is no element",
    "nacl": "cannot read",
    "LiD": "write H",
    "T2O": "write H",
    "D2O": "write H",
    "XO2": "'X' is no element",
    "Va": "'Va' is no element",
    "Na+": "charge",
    "SO4--": "charge",
    "SO4^2-": "charge",
    "PO4(3-)": "charge",
    "Fe³⁺": "charge",
    "Na1+": "charge",
    "Fe(II)O": "Roman",
    "Fe(III)2O3": "Roman",
    "Cu(I)Cl": "Roman",
    "Na0Cl1": "above 0",
    "Na-1Cl2": "cannot read",
    "Fe1e400": "above 0",
    "Fe99999999999": "above 0",
    "Fe1e-14Ni": "leave it out",
    "Li1-xCoO2": "cannot read",
    "FeOx": "'Ox' is no element",
    "Fe3-δO4": "cannot read",
    "(Fe,Mn)2O4": "comma",
    "Li0,5CoO2": "comma",
    "α-Fe2O3": "cannot read",
    "CuSO4.5H2O": "write ·",
    "MgCl2.6NH3": "write ·",
    "Al2O3.2SiO2.2H2O": "write ·",
    "NaCl.2H2O": "write ·",
    "Li.5CoO2": "write ·",
    "CaSO4.0.5H2O": "write ·",
    "ZnCO3.2Zn(OH)2.H2O": "write ·",
    "2CaCO3.3MgCO3": "write ·",
    "CuSO4 5H2O": "follows no element",
    "CuSO4·xH2O": "cannot read",
    "CuSO4·": "holds no element",
    "CuSO4·0H2O": "zero times",
    "2NaCl": "follows no element",
    "12": "follows no element",
    "()": "closed",
    "NaCl)": "closed",
    "(NaCl": "not closed",
    "Fe$_2$O$_3$": "cannot read",
    "=NaCl": "cannot read",
    "Li2O-P2O5": "cannot read",
    "１２": "cannot read",
    "NaCl\x00": "cannot read",
    "Fe2O3" * 400: f"limit {MAX_CHARS}",
}


@pytest.mark.parametrize("text", READ)
def test_a_formula_gives_its_amounts(text: str) -> None:
    assert formula_amounts(text) == pytest.approx(READ[text], rel=1e-12)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
def test_other_text_is_refused_with_its_remedy(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(REFUSED[text])):
        formula_amounts(text)


@pytest.mark.parametrize("value", [None, float("nan"), 5, True, [], b"NaCl"])
def test_a_value_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="no formula: found"):
        formula_amounts(value)


@pytest.mark.parametrize(
    ("given_amounts", "expected"),
    [
        ({"Na+": 1.0, "Cl-": 1.0}, {"Na": 1, "Cl": 1}),
        ({"Fe3+": 2, "Fe2+": 1, "O2-": 4}, {"Fe": 3, "O": 4}),
        ({"Na1+": 1, "Cl1-": 1}, {"Na": 1, "Cl": 1}),
        ({"Fe2.5+": 1, "O0+": 1}, {"Fe": 1, "O": 1}),
        ({"Mn3+,spin=5": 1, "O2-": 2}, {"Mn": 1, "O": 2}),
        ({"Li": 1, "Mn": 1, "O": 2, "Fe": 0}, {"Li": 1, "Mn": 1, "O": 2}),
        ({"Na": 1.0, "Cl": None}, {"Na": 1}),
        ({"Ni": 1, "Fe": 1e-9}, {"Ni": 1, "Fe": 1e-9}),
        ("LiMnO2", {"Li": 1, "Mn": 1, "O": 2}),
    ],
)
def test_a_composition_may_name_ions_and_absent_elements(
    given_amounts: object, expected: dict[str, float]
) -> None:
    assert composition_amounts(given_amounts) == expected


@pytest.mark.parametrize(
    ("given_amounts", "says"),
    [
        ({}, "holds no element"),
        ({"Fe": 0}, "holds no element"),
        ({"X0+": 1}, "'X' is no element"),
        ({"D": 2}, "write H"),
        ({"D+": 1, "O2-": 1}, "write H"),
        ({"26": 1}, "'26' is no element"),
        ({"Na": -1}, "above 0"),
        ({"Na": float("nan")}, "above 0"),
        ({"Na": float("inf")}, "above 0"),
        ({"Na": 10**5000}, "above 0"),
        ({"Na": True}, "not a number"),
        ({"Na": "1"}, "not a number"),
        ({"Na": [1]}, "not a number"),
        (None, "no formula"),
        ([["Na", 1]], "no formula"),
    ],
)
def test_another_composition_is_refused(given_amounts: object, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        composition_amounts(given_amounts)


def test_a_trace_keeps_its_place_in_the_spelling() -> None:
    assert reduced_spelling({"Fe": 1e-9, "Ni": 1.0}) == "Fe1e-09Ni1"
    assert reduced_spelling({"Na": 2.0, "Cl": 2.0}) == "NaCl"
    assert reduced_spelling({"He": 1.0}) == "He"


symbols = st.sampled_from(sorted(ELEMENTS))
whole = st.dictionaries(symbols, st.integers(1, 10**6), min_size=1, max_size=8)
shares = st.dictionaries(symbols, st.floats(1e-3, 1e3), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(whole)
def test_whole_amounts_come_back_from_their_spelling(amounts: dict[str, int]) -> None:
    text = "".join(f"{el}{n}" for el, n in amounts.items())
    assert formula_amounts(text) == amounts
    assert composition_amounts(dict(amounts)) == amounts


@settings(max_examples=200, deadline=None)
@given(shares)
def test_any_amounts_are_read_as_by_pymatgen(amounts: dict[str, float]) -> None:
    text = "".join(f"{el}{n!r}" for el, n in amounts.items())
    found = formula_amounts(text)
    assert found == pytest.approx(amounts, rel=1e-15)
    assert found == pytest.approx(dict(Composition(text).get_el_amt_dict()), rel=1e-12)


pieces = st.lists(
    st.one_of(
        symbols,
        st.sampled_from([*"()[].·*+-eD ₂x", "²⁻"]),
        st.integers(0, 10**9).map(str),
        st.floats(0, 1e12).map(repr),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), pieces))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (formula_amounts, parse_formula):
        found, said = _outcome(read, text)
        assert said.isprintable()
        assert len(said) < 1200
        assert bool(found) != bool(said)
        assert found.keys() <= ELEMENTS
        assert all(n > 0 for n in found.values())


def _outcome(
    read: Callable[[str], Mapping[str, float]], text: str
) -> tuple[Mapping[str, float], str]:
    try:
        return read(text), ""
    except InputError as error:
        return {}, str(error)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "Na" + ")" * 499,
        "Na1.1" * 200,
        "9" * 1000,
        "Na" + "(" * 300,
        "." * 999,
        "A" * 10**7,
    ],
    ids=range(6),
)
def test_hostile_text_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError):
        formula_amounts(text)
    assert time.perf_counter() - start < 0.5
