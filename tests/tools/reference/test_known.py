"""The index of known structures: what it recognises, what it refuses, and how it is made."""

import json
import zipfile
from itertools import combinations

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.reference import load_known_index
from hullward.tools.reference.known.__main__ import main
from hullward.tools.reference.known.recognition import NEAR, Sighting

HALF = [[0, 0, 0], [0.5, 0.5, 0.5]]


def cubic(a, species, sites):
    return Crystal.from_parameters((a,) * 3, (90,) * 3, species, sites)


ROCK_SALT = cubic(
    5.69,
    ["Na"] * 4 + ["Cl"] * 4,
    [
        *([0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]),
        *([0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]),
    ],
)
CAESIUM_CHLORIDE = cubic(3.4, ["Na", "Cl"], HALF)
LAYERED = Crystal.from_parameters(  # the same groups and positions as a 5 % longer relative
    (2.9, 2.9, 5.0),
    (90, 90, 120),
    ["Ni", "O", "O"],
    [[0, 0, 0], [1 / 3, 2 / 3, 0.2], [2 / 3, 1 / 3, 0.8]],
)


def entry(name, crystal):
    structure = crystal.to_structure().as_dict()
    return json.dumps(
        {
            "entry_id": name,
            "composition": crystal.amounts,
            "energy": 0.0,
            "correction": 0.0,
            "structure": json.loads(json.dumps(structure, default=str)),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    entries = folder / "entries.jsonl"
    rows = [entry("mp-1", ROCK_SALT), entry("mp-1", ROCK_SALT), entry("mp-2-GGA", LAYERED)]
    entries.write_text("\n".join(rows) + "\n")
    formulas = folder / "formulas.csv"
    formulas.write_text(
        "formula,kind\nFe2O3,exact_phase\nFe9O10,exact_hull_point\nLi4Ti5O12,exact_phase\n"
    )
    out = folder / "known.zip"
    main([str(entries), str(formulas), "--out", str(out), "--tables-only"])
    return out


@pytest.fixture(scope="module")
def index(made):
    return load_known_index(made)


def displaced(crystal, sigma_a, strain=0.0, cells=(1, 1, 1), seed=0):
    rng = np.random.default_rng(seed)
    structure = crystal.to_structure()
    structure.make_supercell(cells)
    tensor = rng.uniform(-strain, strain, (3, 3))
    lattice = structure.lattice.matrix @ (np.eye(3) + (tensor + tensor.T) / 2)
    shifts = rng.normal(0, sigma_a, (len(structure), 3)) @ np.linalg.inv(lattice)
    species = [site.specie.symbol for site in structure]
    return Crystal.from_arrays(lattice, species, structure.frac_coords + shifts + [0.1, 0.2, 0.3])


def test_an_id_counts_once_and_a_tie_line_point_not_at_all(index):
    assert index.counts.structures == 2
    assert index.counts.by_source == {"Materials Project": 2}
    assert index.counts.formulas == 4
    assert index.knows("Fe2O3")
    assert index.knows("O6Fe4")  # whatever the spelling
    assert not index.knows("Fe9O10")


@pytest.mark.parametrize(
    "change",
    [
        {"sigma_a": 0.0},
        {"sigma_a": 0.05, "strain": 0.02},
        {"sigma_a": 0.08, "cells": (2, 1, 1)},
        {"sigma_a": 0.0, "strain": 0.02, "cells": (1, 2, 1)},
    ],
    ids=["as it is", "displaced and strained", "supercell", "strained supercell"],
)
@pytest.mark.parametrize(("crystal", "name"), [(ROCK_SALT, "mp-1"), (LAYERED, "mp-2")])
def test_a_distorted_copy_is_recognised(index, crystal, name, change):
    found = index.structure(displaced(crystal, **change))
    assert (found.phase_id, found.formula, found.source) == (
        name,
        crystal.formula,
        "Materials Project",
    )
    assert not found.tried_only


def test_another_structure_of_a_known_compound_is_not(index):
    assert index.structure(CAESIUM_CHLORIDE) is None
    assert index.knows("NaCl")


def test_a_crystal_with_the_same_positions_and_other_parameters_is_not(index):
    sites = [[0, 0, 0], [1 / 3, 2 / 3, 0.38], [2 / 3, 1 / 3, 0.62]]
    flat = Crystal.from_arrays(LAYERED.lattice, LAYERED.species, sites)
    assert index.structure(flat) is None


def apart(one, two):
    return one.pattern.fit(two.pattern.plain)[0]


def test_a_copy_without_symmetry_is_recognised_where_an_exchange_would_change_it_more():
    species = ["La", "La", "Pt", *["O"] * 3]
    sites = [
        *([0.05, 0.11, 0.07], [0.52, 0.58, 0.1], [0.48, 0.09, 0.56]),
        *([0.02, 0.55, 0.61], [0.79, 0.24, 0.33], [0.27, 0.83, 0.81]),
    ]
    crystal = Crystal.from_parameters((4.6, 4.9, 5.4), (84, 95, 101), species, sites)
    entry, seen = Sighting(crystal), Sighting(displaced(crystal, 0.07, seed=1))
    assert entry.facts.exact_group == 1
    assert NEAR < apart(seen, entry) < 0.042
    assert seen.distance(entry.facts) is not None


def test_another_ordering_at_that_distance_is_not_recognised():
    anions = np.random.default_rng(0).permutation(["O"] * 5 + ["F"] * 7).tolist()
    rutile = Crystal.from_parameters(
        (4.8, 4.8, 3.3),
        (90, 90, 90),
        ["Mn"] * 2 + ["O"] * 4,
        [
            *([0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0]),
            *([0.195, 0.805, 0.5], [0.805, 0.195, 0.5]),
        ],
    )
    cell = displaced(rutile, 0.1, cells=(1, 1, 3))
    places = np.array(cell.frac_coords)
    manganese = np.array([s == "Mn" for s in cell.species])
    places = np.concatenate([places[manganese], places[~manganese]])
    one = Crystal.from_arrays(cell.lattice, ["Mn"] * 6 + anions, places)
    seen, near = Sighting(one), []
    for i, j in combinations(range(12), 2):
        if anions[i] != anions[j]:
            other = list(anions)
            other[i], other[j] = anions[j], anions[i]
            entry = Sighting(Crystal.from_arrays(cell.lattice, ["Mn"] * 6 + other, places))
            if apart(seen, entry) > NEAR:
                near.append(apart(seen, entry))
                assert seen.distance(entry.facts) is None, near[-1]
    assert min(near) < 0.042


def test_other_elements_are_not(index):
    sites = ROCK_SALT.frac_coords
    other = Crystal.from_arrays(ROCK_SALT.lattice, ["K"] * 4 + ["Cl"] * 4, sites)
    assert index.structure(other) is None
    assert not index.knows("KCl")


def test_masked_systems_are_left_out_and_their_subsystems_stay(index):
    hidden = index.masked(["Cl-Na", "Li-Ti-O-Fe"])
    assert hidden.structure(ROCK_SALT) is None
    assert not hidden.knows("NaCl")
    assert hidden.knows("Li4Ti5O12")
    assert hidden.counts.structures == 1
    assert hidden.counts.formulas == 3
    assert index.knows("NaCl")  # the index itself is as it was


def test_the_same_tables_give_the_same_bytes(made, tmp_path):
    again = tmp_path / "again.zip"
    tables = [str(made.with_name(name)) for name in ("entries.jsonl", "formulas.csv")]
    main([*tables, "--out", str(again), "--tables-only"])
    assert again.read_bytes() == made.read_bytes()


def test_a_line_that_a_kill_cut_short_is_computed_again(made, tmp_path):
    again = tmp_path / "again.zip"
    lines = made.with_suffix(".work").read_text().splitlines()
    again.with_suffix(".work").write_text("\n".join([lines[0], lines[1][:40]]))
    tables = [str(made.with_name(name)) for name in ("entries.jsonl", "formulas.csv")]
    main([*tables, "--out", str(again), "--tables-only"])
    assert again.read_bytes() == made.read_bytes()


def rewritten(path, made, name, content):
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w") as new:
        for own in old.namelist():
            new.writestr(own, content if own == name else old.read(own))


def test_an_index_of_another_format_is_refused_in_one_line(made, tmp_path):
    path = tmp_path / "later.zip"
    rewritten(path, made, "manifest.json", b'{"format": 99}')
    with pytest.raises(
        InputError, match=r"later.zip: it has format 99, and .* reads format 2; make"
    ):
        load_known_index(path)


@pytest.mark.parametrize("damage", ["cut", "changed", "no manifest", "absent"])
def test_a_damaged_index_is_refused_in_one_line(made, tmp_path, damage):
    path = tmp_path / "broken.zip"
    raw = bytearray(made.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "changed":
        raw[raw.index(b"PAR1") + 40] ^= 0xFF
    path.write_bytes(raw)
    if damage == "no manifest":
        rewritten(path, made, "manifest.json", b"[]")
    elif damage == "absent":
        path.unlink()
    with pytest.raises(InputError, match=r"broken\.zip") as caught:
        load_known_index(path)
    assert "\n" not in str(caught.value)


def test_a_table_of_neither_structures_nor_formulas_is_refused(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("name,value\na,1\n")
    with pytest.raises(
        SystemExit, match=r"t\.csv: no column cif, structure or formula; found: name"
    ):
        main([str(table), "--out", str(tmp_path / "o.zip"), "--tables-only"])


def test_the_index_that_ships_knows_textbook_phases():
    index = load_known_index()
    assert index.counts.structures > 30_000
    assert index.counts.formulas > 90_000
    tried = index.structure(CAESIUM_CHLORIDE)  # by the embedded reference, and found higher
    assert tried is not None
    assert tried.tried_only
    bromide = index.structure(cubic(4.3, ["Cs", "Br"], HALF))
    assert bromide is not None
    assert (bromide.phase_id, bromide.source) == ("CsCl type", "textbooks")
    assert not bromide.tried_only
    # a Heusler alloy, whose strongest lines are beyond one byte
    heusler = cubic(
        6.2, ["Mn", "Ga", "Pd", "Pd"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.25] * 3, [0.75] * 3]
    )
    primitive = Crystal.from_arrays(
        [[0, 3.1, 3.1], [3.1, 0, 3.1], [3.1, 3.1, 0]], heusler.species, heusler.frac_coords
    )
    assert index.structure(primitive).space_group == 225
