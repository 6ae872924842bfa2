"""The two rules that keep crystals for judging generators."""

import hashlib

import pytest

from hullward.models.crystal import Crystal
from hullward.training.crystals import in_quarantine, is_quarantined
from hullward.training.crystals.quarantine import quarantined_formula, quarantined_systems


def test_a_formula_in_five_is_held_back():
    names = [f"Li{n}O{m}" for n in range(1, 60) for m in range(1, 60)]
    share = sum(map(quarantined_formula, names)) / len(names)
    assert share == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("formula", ["NaCl", "SrTiO3", "LiFePO4", "Ca3(PO4)2", "Fe2O3"])
def test_the_last_digit_of_the_hash_decides(formula):
    last = str(int(hashlib.sha256(formula.encode()).hexdigest(), 16))[-1]
    assert quarantined_formula(formula) == (last in "01")


def test_there_are_enough_listed_systems_in_the_spelling_of_crystals():
    systems = quarantined_systems()
    assert len(systems) >= 20
    assert all(name == "-".join(sorted(name.split("-"))) for name in systems)


def test_a_listed_system_is_held_back_whole_but_not_its_neighbours():
    assert in_quarantine("TiO2", "O-Ti")
    assert not quarantined_formula("SrTiO3")
    assert not in_quarantine("SrTiO3", "O-Sr-Ti")


def test_a_crystal_is_judged_by_its_own_formula_and_system():
    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystal = Crystal.from_parameters((4.0,) * 3, (90,) * 3, ["O", "Mn"], half)
    assert is_quarantined(crystal)
    crystal = Crystal.from_parameters((4.0,) * 3, (90,) * 3, ["Cl", "Na"], half)
    assert not is_quarantined(crystal)


def test_the_list_follows_its_rule(shared_data):
    import pandas as pd
    import yaml

    table = pd.read_parquet(shared_data / "hull" / "chemsys_index.parquet")
    least = table.nelements.map({2: 4, 3: 3, 4: 3})
    chosen = table[table.mp2020_complete & (table.n_stable_2024 >= least)]
    expected = dict(zip(chosen.chemsys, chosen.n_stable_2024, strict=True))
    from importlib.resources import files

    listed = yaml.safe_load((files("hullward.data") / "quarantine.yaml").read_text())["systems"]
    assert listed == expected
    assert sum(listed.values()) >= 100
