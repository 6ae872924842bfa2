"""Textbook phases have the formula, the space group and the bonds that their type gives them."""

import itertools
from collections import defaultdict

import pytest

from hullward.models.errors import InputError
from hullward.tools.crystal import nearest_pairs, space_group
from hullward.tools.prototypes import Substitution, TextbookPhase, textbook_phases
from hullward.tools.prototypes.textbook import _replacements, nearest_types

NAMED = {  # formula: space groups of phases that everybody knows
    "CsBr": {221}, "CsI": {221}, "FeP": {62}, "Al3Ni2": {164}, "Mg3Sb2": {164}, "CsSnI3": {221, 62},
    "Fe3O4": {227}, "LiFePO4": {62}, "LaFeAsO": {129}, "ZrLi2N2": {164}, "LiCoO2": {166},
    "Cu2ZnSnS4": {121, 82}, "La2Zr2O7": {227}, "MgSiN2": {33}, "BaTiO3": {221}, "TiNi2Al": {225},
}  # fmt: skip


@pytest.fixture(scope="module")
def phases() -> dict[str, list[TextbookPhase]]:
    found = defaultdict(list)
    for phase in textbook_phases():
        found[phase.crystal.formula].append(phase)
    return found


def test_phases_that_everybody_knows_are_there_with_their_symmetry(
    phases: dict[str, list[TextbookPhase]],
) -> None:
    amounts = {frozenset(f"{e}{n}" for e, n in _terms(f)): f for f in phases}
    for formula, groups in NAMED.items():
        own = phases[amounts[frozenset(f"{e}{n}" for e, n in _terms(formula))]]
        assert {space_group(phase.crystal, 0.01) for phase in own} >= groups, formula


def test_every_phase_of_a_type_has_one_symmetry_unless_two_of_its_sites_are_alike(
    phases: dict[str, list[TextbookPhase]],
) -> None:
    of_type = defaultdict(set)
    for own in phases.values():
        for phase in own[:1]:
            key = phase.type_name, phase.crystal.n_atoms, len(set(phase.crystal.species))
            if len(of_type[key]) < 3:
                of_type[key].add((phase.crystal.formula, space_group(phase.crystal, 0.01)))
    assert len(of_type) > 100
    for key, found in of_type.items():
        assert None not in {group for _, group in found}, key


def test_atoms_keep_apart(phases: dict[str, list[TextbookPhase]]) -> None:
    for own in phases.values():
        crystal = own[0].crystal
        assert nearest_pairs(crystal, 5.0)[2].min() > 0.9, own[0].name


def test_a_phase_spelt_unlike_its_type_is_named() -> None:
    entry = {"type": "AB2_cF12_225_a_c", "as": "CaF2", "phases": "OLi2"}
    assert _replacements(entry, "SrF2") == {"Ca": "Sr", "F": "F"}
    with pytest.raises(InputError, match=r"Li2O is not spelt as CaF2 of AB2_cF12"):
        _replacements(entry, "Li2O")


def _terms(formula: str) -> list[tuple[str, int]]:
    from hullward.tools.crystal import parse_formula

    return sorted(parse_formula(formula).items())


@pytest.mark.parametrize(
    ("formula", "types"),
    [
        ("TiAlNi2", {"AlCu2Mn"}),
        ("TiNiSn", {"AsAgMg"}),
        ("CsBr", {"CsCl"}),
        ("NaBr", {"NaCl"}),
        ("ZnSe", {"ZnS"}),
        ("SrTiO3", {"CaTiO3"}),
        ("MgTiO3", {"FeTiO3"}),
        ("ZnAl2O4", {"MgAl2O4"}),
        ("CsSnI3", {"CaTiO3"}),
        ("NaFePO4", {"LiFePO4"}),
        ("NaCoO2", {"LiCoO2", "CrNaS2"}),
        ("ZrCo2", {"MgCu2"}),
        ("MgZn2", {"MgZn2"}),
        ("K2Te", {"F2Ca"}),
    ],
)
def test_the_type_of_a_family_is_among_the_first_structures(formula: str, types: set[str]) -> None:
    first = nearest_types(formula, 40, 2)
    assert types & {phase.type_name for phase in first}
    assert {phase.crystal.formula for phase in first} == {first[0].crystal.formula}
    made = list(itertools.islice(Substitution([], max_atoms=40).propose([formula]), 2))
    assert made[0].crystal == first[0].crystal
