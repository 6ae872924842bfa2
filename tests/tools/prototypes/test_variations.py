"""Constructed crystals are repeatable, keep what they promise, and name their parents."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.prototypes import Substitution, perturb, seeded_rng, substitution, swap
from hullward.tools.prototypes.mutation import enlarged, exchangeable
from hullward.tools.prototypes.substitution import PER_TURN

STATES = {"Li": (1,), "Mn": (2, 3, 4), "O": (-2,)}


@pytest.fixture
def layered() -> Crystal:
    """LiMnO2 in the α-NaFeO2 type, a hexagonal cell."""
    third, z = 1 / 3, 0.24
    sites = [("Li", 0.5), ("Mn", 0.0), ("O", z), ("O", -z)]
    shifts = [(0, 0, 0), (third, 2 * third, 2 * third), (2 * third, third, third)]
    species = [s for s, _ in sites for _ in shifts]
    coords = [[x, y, (z0 + w) % 1] for _, w in sites for x, y, z0 in shifts]
    return Crystal.from_parameters((2.9, 2.9, 14.3), (90, 90, 120), species, coords)


def test_the_same_seed_gives_the_same_child(layered: Crystal) -> None:
    children = [perturb("p", layered, seeded_rng(1, 0, "x", 4)).crystal for _ in range(2)]
    assert children[0] == children[1]
    assert perturb("p", layered, seeded_rng(1, 0, "x", 5)).crystal != children[0]


def test_perturbation_keeps_the_formula(layered: Crystal) -> None:
    built = perturb("p", layered, seeded_rng(2))
    assert sorted(built.crystal.species) == sorted(layered.species)
    assert 0.7 < built.crystal.volume_a3 / layered.volume_a3 < 1.4


def test_swap_exchanges_one_cation_pair(layered: Crystal) -> None:
    built = swap("p", layered, seeded_rng(3), max_atoms=12)
    assert built is not None
    assert built.crystal.formula == layered.formula
    changed = [
        (a, b) for a, b in zip(layered.species, built.crystal.species, strict=True) if a != b
    ]
    assert sorted(changed) == [("Li", "Mn"), ("Mn", "Li")]


def test_an_element_has_nothing_to_swap() -> None:
    iron = Crystal.from_parameters((2.87,) * 3, (90,) * 3, ["Fe"], [[0, 0, 0]])
    assert swap("p", iron, seeded_rng(1), max_atoms=8) is None


def test_a_grown_cell_is_the_same_crystal(layered: Crystal) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    big = enlarged(layered, 48)
    assert big.n_atoms == 48
    assert np.isclose(big.volume_per_atom_a3, layered.volume_per_atom_a3)
    assert StructureMatcher().fit(big.to_structure(), layered.to_structure())


def test_substitution_makes_what_was_asked(layered: Crystal) -> None:
    operator = Substitution([], max_atoms=16, oxidation_states=STATES)
    made = list(itertools.islice(operator.propose(["LiMnO2", "Li2MnO3"]), 2 * PER_TURN))
    assert [m.crystal.formula for m in made] == ["LiMnO2"] * PER_TURN + ["Li2MnO3"] * PER_TURN
    assert all(m.crystal.n_atoms <= 16 for m in made)
    assert all(p.startswith("prototype:") for m in made for p in m.parents)


def test_the_likeliest_replacement_comes_first(layered: Crystal) -> None:
    """Fe3+ for Mn3+ is mined far more often than what makes LiMnO2 of an unrelated type."""
    iron = Crystal.from_arrays(
        layered.lattice, [{"Mn": "Fe"}.get(s, s) for s in layered.species], layered.frac_coords
    )
    operator = Substitution([("phase:iron", iron)], max_atoms=16, oxidation_states=STATES)
    made = list(operator.propose(["LiMnO2"]))
    (position,) = [i for i, m in enumerate(made) if m.parents == ("phase:iron",) and i < 6][:1]
    assert made[position].crystal.formula == "LiMnO2"
    assert made[position].note == "Fe to Mn"


def test_a_formula_without_any_type_is_passed_over() -> None:
    operator = Substitution([], max_atoms=4, oxidation_states=STATES)
    assert list(operator.propose(["Li5Mn7O16"])) == []


LIST_THEM = """
from hullward.tools.prototypes import Substitution
states = {"Li": (1,), "Mn": (2, 3, 4), "O": (-2,)}
operator = Substitution([], max_atoms=14, oxidation_states=states)
for made in operator.propose(["LiMn2O4", "LiMnO2", "Li2MnO3", "LiMn5O6"]):
    print(made.crystal.content_id, made.parents)
"""


def test_substitution_gives_the_same_whatever_it_keeps_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    formulas = ["LiMnO2", "Li2MnO3", "LiMn2O4"]

    def first() -> list[str]:
        operator = Substitution([], max_atoms=14, oxidation_states=STATES)
        made = itertools.islice(operator.propose(formulas), 14 * PER_TURN)
        return [built.crystal.content_id for built in made]

    usual = first()
    monkeypatch.setattr(substitution, "KEPT_FORMULAS", 1)
    monkeypatch.setattr(substitution, "KEPT_STRUCTURES", 0)
    assert first() == usual


def test_substitution_does_not_depend_on_the_process() -> None:
    """Python shuffles its sets anew in every process; likelihoods that tie must not notice."""
    answers = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LIST_THEM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0].count("prototype:") > 20
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("species", "pairs"),
    [
        (["Cs", "Br"], []),
        (["Li", "Li", "Li", "N"], []),
        (["Zr", "N"], []),
        (["Al", "Ni"], [("Al", "Ni")]),
        (["Li", "Mn", "O", "O"], [("Li", "Mn")]),
        (["Na", "Fe", "P", "O", "O", "O", "O"], [("Na", "Fe")]),
        (["Cs", "Sn", "Br", "Br", "I"], [("Br", "I"), ("Sn", "Cs")]),
    ],
)
def test_only_what_is_alike_changes_places(
    species: list[str], pairs: list[tuple[str, str]]
) -> None:
    coords = [[k / 9, k / 7, k / 5] for k in range(len(species))]
    crystal = Crystal.from_parameters((9.0,) * 3, (90,) * 3, species, coords)
    assert exchangeable(crystal) == pairs
