import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal import (
    PrototypeLibrary,
    anonymous_amounts,
    merge_lanthanides,
    shared_sites,
)
from hullward.tools.crystal.disorder import similar
from hullward.tools.crystal.files import KnownPhases, known_phases, read_known
from hullward.tools.crystal.files.known_phases import plain_cif
from hullward.tools.records import Candidate, Explanation
from hullward.tools.screening import explain_all
from hullward.tools.screening.explain import Explainer, explainer_of


def halite(a, c, edge=5.0):
    half = edge / 2
    lattice = [[0, half, half], [half, 0, half], [half, half, 0]]
    return Crystal.from_arrays(lattice, [a, c], [[0, 0, 0], [0.5, 0.5, 0.5]])


def odd(a, b, seed=7):
    """A prototype that nobody wrote down: seven sites anywhere."""
    spots = np.random.default_rng(seed).random((7, 3))
    return Crystal.from_parameters((5.1, 6.3, 7.4), (81, 77, 69), [a] * 4 + [b] * 3, spots)


def said(explainer, crystal, families=None, **more):
    return explainer.explain("c-1", crystal, "after", families or PrototypeLibrary(), **more)


def test_the_parent_is_the_one_with_fewest_exchanges_then_the_nearest():
    known = [("mp-1", halite("Mg", "O")), ("mp-2", halite("Na", "F")), ("mp-3", halite("K", "Cl"))]
    assert PrototypeLibrary(known).nearest(halite("Na", "Cl")).match_id == "mp-3"
    assert PrototypeLibrary(known).nearest(halite("Ca", "O")).exchanged == (("Mg", "Ca"),)
    assert PrototypeLibrary(known).nearest(halite("Rb", "I")).match_id == "mp-3"
    assert PrototypeLibrary([]).nearest(halite("Na", "Cl")) is None


def test_formulas_without_elements():
    assert anonymous_amounts(halite("Na", "Cl")) == (1, 1)
    assert anonymous_amounts(odd("Ti", "O")) == (3, 4)
    assert merge_lanthanides(halite("Na", "Cl")) is None
    assert merge_lanthanides(halite("Lu", "N")).species == ("La", "N")


def test_exact_matches_are_taken_as_they_are_stored():
    explainer = Explainer([("mp-1", halite("Na", "Cl"))])
    assert said(explainer, halite("Na", "Cl"), exact=("duplicate", "c-0")).words == (
        "the same as earlier candidate c-0"
    )
    known = said(explainer, halite("Na", "Cl"), exact=("known", "mp-1"))
    assert known.words == "known: NaCl (mp-1)"


def test_phases_without_structures_make_a_candidate_of_their_formula_perhaps_known():
    explainer = Explainer([("mp-1", halite("Na", "Cl"))], bare={"KCl": 1, "NaCl": 2})
    maybe = said(explainer, halite("K", "Cl"))
    assert maybe.kind == "substitution"
    assert maybe.bare_namesakes == 1
    assert maybe.words.endswith("; known compound whose structure is not at hand")
    assert maybe.standing == "novelty not judged"
    known = said(explainer, halite("Na", "Cl"))
    assert known.bare_namesakes == 0  # it is known which one it is
    assert "not at hand" not in known.words
    assert said(explainer, halite("Rb", "Cl")).bare_namesakes == 0
    assert Explainer(explainer.known).against_id != explainer.against_id


def test_a_structure_type_stands_in_where_no_known_phase_has_the_arrangement():
    found = said(Explainer([]), halite("Na", "Cl"))
    assert found.kind == "structure_type"
    assert found.words.startswith("structure type of no known phase here, but in the library")
    assert found.against.startswith("no known structures and the structure types")


def test_new_prototypes_are_families():
    explainer, families = Explainer([("mp-1", halite("Na", "Cl"))]), PrototypeLibrary()
    first = explainer.explain("c-1", odd("Ti", "O"), "before", families)
    second = explainer.explain("c-2", odd("Zr", "S"), "before", families)
    other = explainer.explain("c-3", odd("Zr", "S", seed=8), "before", families)
    assert {e.kind for e in (first, second, other)} == {"new_prototype"}
    assert (first.match_id, second.match_id, other.match_id) == (None, "c-1", None)
    assert second.words.endswith("earlier candidate c-1 (Ti4O3) has it too with O→S, Ti→Zr")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_be_reduced_is_said_not_to_be_compared():
    needle = Crystal.from_arrays(np.diag([1e5, 5, 5]), ["Ti", "O", "O"], np.eye(3) / 3)
    found = said(Explainer([("mp-1", halite("Na", "Cl"))]), needle)
    assert (found.kind, found.match_id) == ("not_compared", None)


# Which species are similar, and whether they stand on alike sites.


def b_sites(one, two, order, swap_sites=False):
    """A cubic perovskite twice as large along z, two kinds on the octahedra in turn."""
    sites = [("Sr", 0.5, 0.5, 0.25), ("Sr", 0.5, 0.5, 0.75), (one, 0, 0, 0), (two, 0, 0, 0.5)]
    oxygen = [(x, y, z) for z in (0, 0.5) for x, y in ((0.5, 0), (0, 0.5))]
    oxygen += [(0, 0, 0.25), (0, 0, 0.75)]
    species = [s[0] for s in sites] + ["O"] * 6
    return Crystal.from_arrays(np.diag([3.95, 3.95, 7.9]), species, [s[1:] for s in sites] + oxygen)


def test_similar_species_on_alike_sites_are_flagged_with_their_parent():
    found = shared_sites(b_sites("Zr", "Hf", "layers"))
    assert found.species == ("Hf", "Zr")
    assert found.occupancy == "Hf0.50Zr0.50"
    assert (found.space_group, found.ordered_space_group) == (221, 123)
    assert "may be disordered" in found.words


def test_unlike_species_or_unlike_sites_are_not():
    assert shared_sites(b_sites("Ti", "Zr", "layers")) is None  # radii 0.745 and 0.86 Å: 15.4 %
    assert shared_sites(halite("K", "Br")) is None
    # similar, but octahedral and tetrahedral: no symmetry joins the two sites of Fe and Mn
    spinel = _spinel("Mg", "Zn")
    assert shared_sites(spinel) is None


def _spinel(tetrahedral, octahedral):
    from ase.spacegroup import crystal

    atoms = crystal(
        [tetrahedral, octahedral, "Ti", "O"],
        basis=[(0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0, 0, 0), (0.263, 0.263, 0.263)],
        spacegroup=216,
        cellpar=[8.4, 8.4, 8.4, 90, 90, 90],
    )
    return Crystal.from_arrays(
        atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions()
    )


@pytest.mark.parametrize(
    ("one", "two", "states", "answer"),
    [
        ("Mg", "Zn", {"Mg": 2, "Zn": 2}, True),
        ("Nb", "Ta", {"Nb": 5, "Ta": 5}, True),
        ("Na", "K", {"Na": 1, "K": 1}, False),  # a third larger
        ("Mg", "Li", {"Mg": 2, "Li": 1}, False),  # as large, another charge
        ("S", "Se", {"S": -2, "Se": -2}, True),
        ("La", "Lu", {"La": 3, "Lu": 3}, False),
        ("La", "Nd", {"La": 3, "Nd": 3}, True),
        ("Cu", "Ni", {}, True),
        ("Cu", "Al", {}, True),
        ("Na", "Cu", {}, False),
    ],
)
def test_similarity_is_charge_and_size(one, two, states, answer):
    assert similar(one, two, states) is answer
    assert similar(two, one, states) is answer


# Known structures from a table.


def cif_of(crystal):
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(crystal.to_structure()))


def test_a_plain_cif_is_read_as_the_sandboxed_reader_reads_it():
    from hullward.tools.crystal.files.cif import read_cif

    for crystal in (halite("Na", "Cl"), odd("Ti", "O")):
        text = cif_of(crystal)
        (slowly,) = read_cif(text)
        assert plain_cif(text).content_id == slowly.content_id


@pytest.mark.parametrize(
    "change",
    [
        ("'P 1'", "'P -1'"),
        ("'x, y, z'", "'x, y, -z'"),
        ("_cell_length_a   3", "_cell_length_a   -3"),
        ("  1\n", "  0.5\n"),
        ("data_", "; evil\ndata_"),
    ],
)
def test_anything_else_is_left_to_the_other_reader(change):
    text = cif_of(halite("Na", "Cl"))
    assert change[0] in text
    assert plain_cif(text.replace(*change)) is None


def test_a_table_gives_its_own_ids(tmp_path):
    rows = [("mp-1", halite("Na", "Cl")), ("mp-2", odd("Ti", "O")), ("mp-1", halite("Na", "Cl"))]
    rows.append(("mp-2", odd("Ti", "O", seed=8)))  # the same name for something else
    table = pd.DataFrame([{"material_id": i, "cif": cif_of(c)} for i, c in rows])
    table.to_parquet(tmp_path / "known.parquet")
    table.to_csv(tmp_path / "known.csv")
    for name in ("known.parquet", "known.csv"):
        found = read_known(tmp_path / name)
        assert [i for i, _ in found] == ["mp-1", "mp-2", "mp-2#3"]
        assert [i for i, _ in found.of("Cl-Na")] == ["mp-1"]
        assert list(found.of("Li")) == []
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "salt.cif").write_text(cif_of(rows[0][1]))
    assert [i for i, _ in read_known(tmp_path / "cifs")] == ["user:salt.cif#0"]


def test_a_bad_row_or_a_missing_name_is_one_line(tmp_path):
    good, path = cif_of(halite("Na", "Cl")), tmp_path / "known.csv"
    pd.DataFrame([{"cif": good}, {"cif": "data_\nnothing"}]).to_csv(path)
    with pytest.raises(InputError, match=r"known phase known\.csv#1: bad_cif"):
        read_known(path)
    pd.DataFrame([{"id": "a", "cif": good}, {"id": None, "cif": good}]).to_csv(path)
    with pytest.raises(InputError, match="no id in this row"):
        read_known(path)


def test_a_campaign_says_what_each_candidate_is(toy_settings, tmp_path):
    """Every candidate gets its label before, every relaxed one after; asking again adds nothing."""
    from hullward.agents.campaign import run
    from hullward.agents.settings import Campaign, read_machine
    from hullward.agents.workspace import open_workspace

    settings = Campaign.model_validate(toy_settings | {"budget": {"cycles": 1}})
    paths = run(tmp_path / "c", settings)
    workspace = open_workspace(tmp_path / "c", read_machine(), command="test")
    try:
        store = workspace.store
        labels = store.load(Explanation)
        moments = {
            m: {e.candidate_id for e in labels if e.moment == m} for m in ("before", "after")
        }
        candidates = [c.candidate_id for c in store.load(Candidate)]
        relaxed = workspace.screen.relaxed(candidates)
        assert moments["before"] == set(candidates)
        assert moments["after"] == {c.candidate_id for c, _ in relaxed}
        rows = store.rows("SELECT * FROM results WHERE candidate_id IS NOT NULL")
        assert all(row["novelty"] and row["novelty_kind"] for row in rows)
        for row in rows:
            if row["state"] == "duplicate":
                assert (row["novelty_kind"], row["novelty_match"]) == (
                    "duplicate", row["duplicate_before"],
                )  # fmt: skip
            if row["rediscovered"]:
                assert (row["novelty_kind"], row["novelty_match"]) == ("known", row["rediscovered"])
        explain_all(workspace.screen)
        assert store.load(Explanation) == labels
        mine = KnownPhases([("mine", relaxed[0][1].crystal)])
        explain_all(replace(workspace.screen, user_phases=mine))  # every label is stale
        assert {e.against_id for e in store.load(Explanation)} == {
            explainer_of(workspace.screen.reference, mine, workspace.screen.index).against_id
        }
        assert "mine" in {e.match_id for e in store.load(Explanation)}
    finally:
        workspace.close()
    report = json.loads(paths.json.read_text())
    assert sum(k["proposed"] for k in report["identities"]["kinds"]) == len(rows)
    assert report["identities"]["against"].endswith("prototype library")
    for entry in report["short_list"]["entries"]:
        assert entry["novelty"].startswith(("new ", "novelty not judged"))
        assert entry["novelty_kind"]
    assert "Comparison with known structures" in paths.html.read_text()
    assert "Comparison with known structures" in paths.markdown.read_text()


def test_thousands_of_known_structures_are_searched_by_bucket(monkeypatch):
    """Only crystals of the same formula, elements aside, are ever reduced."""
    from hullward.tools.crystal import equivalence

    asked = []
    equivalence.compared_cells.cache_clear()
    reduce = equivalence.reduced_cell
    monkeypatch.setattr(equivalence, "reduced_cell", lambda c: asked.append(c) or reduce(c))
    known = [(f"k-{n}", odd("Ti", "O", seed=n)) for n in range(2000)]
    known.append(("salt", halite("Na", "Cl")))
    assert PrototypeLibrary(known).nearest(halite("K", "Cl")).match_id == "salt"
    assert len(asked) == 2
    assert known_phases.KnownPhases(known).of("O-Ti")[1999][0] == "k-1999"


@pytest.mark.slow
def test_real_pairs_are_joined_as_the_structure_matcher_joins_them(shared_data):
    """Generated structures beside known ones of the same formula but for the elements."""
    from pymatgen.core.structure_matcher import StructureMatcher

    table = shared_data / "structures" / "mp_structures.parquet"
    buckets: dict[tuple[int, ...], list[Crystal]] = {}
    for _, crystal in read_known(table):
        if crystal.n_atoms <= 12:
            buckets.setdefault(anonymous_amounts(crystal), []).append(crystal)
    generated = pd.read_parquet(shared_data / "known" / "llamat2_generated.parquet")
    rng, answers = np.random.default_rng(1), []
    for row in generated.iloc[::60].itertuples():
        try:
            parts = [json.loads(x) for x in (row.lengths, row.angles, row.species, row.coords)]
            mine = Crystal.from_parameters(*parts)
        except (TypeError, ValueError):  # empty columns, angles that close no cell
            continue
        known = buckets.get(anonymous_amounts(mine), [])
        if mine.n_atoms > 12 or not known:
            continue
        for k in rng.choice(len(known), size=min(4, len(known)), replace=False):
            ours = PrototypeLibrary([("k", known[k])]).nearest(mine) is not None
            theirs = StructureMatcher().fit_anonymous(known[k].to_structure(), mine.to_structure())
            answers.append((ours, bool(theirs)))
    print(f"{len(answers)} pairs, {sum(t for _, t in answers)} of one prototype")
    assert len(answers) > 100
    assert all(ours == theirs for ours, theirs in answers)
