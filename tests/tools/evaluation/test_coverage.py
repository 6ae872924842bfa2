"""Coverage of generators: fingerprints against pymatgen's own, and counts made by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.text import parse_cell_text, write_cell_text
from hullward.tools.evaluation import Rate, fingerprints, measure_coverage
from hullward.tools.evaluation.attempts import Attempt
from hullward.tools.evaluation.coverage import Fingerprints, coverage_rates, sample_indices
from hullward.tools.evaluation.coverage import fingerprints as prints_of
from hullward.tools.evaluation.fingerprints import composition_fingerprint, structure_fingerprint
from hullward.tools.records import Flaw, Reason, Wish

NACL = parse_cell_text("4.0 4.0 4.0\n60 60 60\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50")
KBR = parse_cell_text("4.6 4.6 4.6\n60 60 60\nK\n0.00 0.00 0.00\nBr\n0.50 0.50 0.50")
CSCL = parse_cell_text("4.1 4.1 4.1\n90 90 90\nCs\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50")
ODD = parse_cell_text(  # no two atoms alike
    "5.1 5.9 6.7\n85 96 101\nTi\n0.03 0.02 0.01\nO\n0.31 0.12 0.22\nO\n0.70 0.55 0.81\n"
    "Na\n0.52 0.49 0.43\nSe\n0.18 0.77 0.64"
)
FLAT = Crystal.from_parameters((3.0, 3.0, 1e-6), (90, 90, 90), ["Na"], [[0, 0, 0]])
FLAW = Flaw(reason=Reason.EMPTY, detail="no text")


def attempts(*found):
    return [Attempt("", one, Wish()) for one in found]


def crystal_nn(crystal):
    """The fingerprint by pymatgen's own CrystalNN, atom by atom."""
    from pymatgen.core.local_env import CN_OPT_PARAMS, CrystalNN, LocalStructOrderParams

    structure, features = crystal.to_structure(), []
    for i, site in enumerate(structure):
        data = CrystalNN().get_nn_data(structure, i)
        row = []
        for number in range(1, 25):
            row.append(weight := data.cn_weights.get(number, 0))
            shapes = [*CN_OPT_PARAMS.get(number, {}).values()]
            shapes += [["sgl_bd"]] if number == 1 else []
            shapes += [["q2"], ["q4"], ["q6"]] if 9 <= number <= 12 else []
            for name, *given in shapes:
                fit = 0.0
                if weight:
                    sites = [site, *(near["site"] for near in data.cn_nninfo[number])]
                    shape = LocalStructOrderParams([name], parameters=given or None)
                    [fit] = shape.get_order_parameters(sites, 0, [*range(1, len(sites))])
                row.append(weight * (fit or 0.0))
        features.append(row)
    return np.mean(features, axis=0)


@pytest.mark.filterwarnings("ignore:No oxidation states:UserWarning")
@pytest.mark.filterwarnings("ignore:CrystalNN:UserWarning")
@pytest.mark.parametrize("crystal", [NACL, CSCL, ODD], ids=["rock salt", "CsCl", "odd"])
def test_structures_have_the_fingerprint_that_pymatgen_s_neighbours_give(crystal):
    found = structure_fingerprint(crystal)
    assert found.shape == (fingerprints.N_FEATURES,)
    np.testing.assert_allclose(found, crystal_nn(crystal), atol=1e-5)


def test_the_cell_does_not_matter():
    doubled = Crystal.from_structure(ODD.to_structure() * (1, 2, 1))
    shifted = Crystal.from_arrays(
        ODD.lattice, ODD.species[::-1], np.add(ODD.frac_coords, (0.3, 0.6, 0.9))[::-1]
    )
    for same in (doubled, shifted):
        np.testing.assert_allclose(
            structure_fingerprint(same), structure_fingerprint(ODD), atol=1e-5
        )


def test_a_squeezed_crystal_keeps_its_fingerprint():
    squeezed = Crystal.from_arrays(np.array(NACL.lattice) * 0.8, NACL.species, NACL.frac_coords)
    np.testing.assert_allclose(
        structure_fingerprint(squeezed), structure_fingerprint(NACL), atol=1e-5
    )


def test_compositions_are_told_by_their_elements_statistics():
    table = fingerprints._magpie()
    raw = composition_fingerprint({"Na": 1, "Cl": 1}) * table["deviations"] + table["means"]
    number, melting = table["properties"].index("Number"), table["properties"].index("MeltingT")
    assert raw[6 * number :][:6] == pytest.approx([11, 17, 6, 14, 3, 11])  # Na and Cl as often
    assert raw[6 * melting + 3] == pytest.approx((370.87 + 171.6) / 2)
    assert np.array_equal(
        composition_fingerprint({"Na": 2, "Cl": 2}), composition_fingerprint({"Cl": 1, "Na": 1})
    )
    helium = composition_fingerprint({"He": 1})  # no melting point: counts as the average one
    assert helium[6 * melting] == 0
    assert composition_fingerprint({"Rf": 1, "O": 2}) is None


@pytest.mark.parametrize(
    "crystal", [FLAT, Crystal.from_arrays(np.eye(3) * 1e-3, ["Na"], [[0] * 3])]
)
def test_what_no_neighbours_can_be_told_of_has_no_fingerprint(crystal):
    assert structure_fingerprint(crystal) is None


def test_failures_stay_in_the_denominator():
    found = measure_coverage(attempts(NACL, FLAW, FLAT, NACL), [NACL, CSCL])
    assert found["sample"] == {"attempts": 4, "like": 2}
    assert found["without_fingerprint"] == {"attempts": 2, "like": 0}
    assert found["of_all"]["recall"] == Rate(1, 2)
    assert found["of_all"]["precision"] == Rate(2, 4)
    assert found["of_the_valid"]["precision"] == Rate(2, 2)


def test_one_crystal_must_be_alike_in_both():
    far = np.full((1, 132), 100.0)
    near = np.zeros((1, 132))
    made = Fingerprints(np.array([[0.0] * 61, [1.0] * 61]), np.vstack([far, near]))
    there = Fingerprints(np.zeros((1, 61)), near)
    shares = coverage_rates(made, there)
    assert shares["recall"] == Rate(0, 1)  # one has the structure, another the composition
    assert shares["recall_separately"] == Rate(1, 1)
    assert shares["precision"] == shares["precision_separately"] == Rate(0, 2)


def test_compositions_of_others_are_seen_by_one_way_of_counting_alone():
    real = prints_of([NACL, KBR, CSCL])
    real.compositions[:] = np.arange(3)[:, None] * 10.0  # all far from each other
    real.structures[:] = np.arange(3)[:, None]
    shares = coverage_rates(real.with_others_compositions(), real)
    assert shares["precision"] == Rate(0, 3)
    assert shares["precision_separately"] == Rate(3, 3)


def test_samples_are_drawn_once_and_for_all():
    assert sorted(sample_indices(9, 100)) == list(range(9))
    assert sample_indices(1000, 10) == sample_indices(1000, 20)[:10]
    assert sample_indices(1000, 1000) != list(range(1000))


def test_nothing_made_covers_nothing():
    shares = measure_coverage(attempts(FLAW), [NACL])["of_the_valid"]
    assert shares["recall"] == Rate(0, 1)
    assert shares["precision"].value is None


@pytest.mark.slow
def test_processes_find_the_same(monkeypatch):
    monkeypatch.setattr("hullward.tools.evaluation.coverage.PARALLEL_FROM", 1)
    crystals = [NACL, None, ODD]
    alone, together = prints_of(crystals), prints_of(crystals, workers=2)
    np.testing.assert_array_equal(alone.structures, together.structures)


def test_the_command_tells_coverage_when_asked(tmp_path):
    path = tmp_path / "made.jsonl"
    rows = [{"text": write_cell_text(c)} for c in (NACL, CSCL)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["evaluate", "crystals", str(path), "--like", str(path)]
    shown = CliRunner().invoke(app, [*arguments, "--coverage", "--json"])
    document = json.loads(shown.stdout)
    assert document["coverage"]["of_all"]["recall"] == {"count": 2, "of": 2, "share": 1.0}
    told = CliRunner().invoke(app, [*arguments, "--coverage", "--coverage-sample", "2"]).stdout
    assert "precision_separately" in told
    assert "coverage" not in json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    alone = CliRunner().invoke(app, [*arguments[:3], "--coverage"])
    assert isinstance(alone.exception, InputError)
    assert "--like" in str(alone.exception)
