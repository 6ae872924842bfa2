"""The ruler for crystal generators: small sets whose every count can be checked by hand."""

import json

import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.language import CompletionError, Sampling, crystal_prompt
from hullward.models.language.doubles import ScriptedModel
from hullward.tools.crystal import StructureLibrary
from hullward.tools.crystal.text import parse_cell_text
from hullward.tools.evaluation import (
    Rate,
    evaluate,
    read_attempts,
    read_formulas,
    sample_crystals,
)
from hullward.tools.evaluation.metrics import density_g_per_cm3
from hullward.tools.evaluation.smact import random_amounts, smact_valid
from hullward.tools.records import Wish

NACL = "4.0 4.0 4.0\n60 60 60\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50"
SHIFTED = "4.0 4.0 4.0\n60 60 60\nCl\n0.75 0.75 0.75\nNa\n0.25 0.25 0.25"
CSCL = "4.1 4.1 4.1\n90 90 90\nCs\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50"
CROWDED = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.00 0.00 0.20"  # 0.8 Å
TOUCHING = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.00 0.00 0.10"  # 0.4 Å
ODD = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nNa\n0.50 0.50 0.50\nCl\n0.50 0.00 0.50"


def saved(tmp_path, rows):
    path = tmp_path / "outputs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("amounts", "valid"),
    [
        ({"Na": 1, "Cl": 1}, True),
        ({"Na": 1, "Cl": 2}, False),
        ({"Fe": 3, "O": 4}, False),  # no mixed valence in these rules
        ({"Fe": 2, "O": 3}, True),
        ({"Li": 1, "Fe": 1, "P": 1, "O": 4}, True),
        ({"Cu": 3, "Au": 1}, True),  # an alloy
        ({"Ar": 4}, True),  # an element
        ({"Ar": 1, "O": 1}, False),  # no states
        ({"Ge": 3, "Sb": 1}, True),  # metals, by that list
        ({"O": 2, "F": 4}, True),
    ],
)
def test_smact_rules(amounts, valid):
    assert smact_valid(amounts) is valid
    assert smact_valid({el: 3 * n for el, n in amounts.items()}) is valid


def test_the_control_keeps_elements_and_shuffles_amounts():
    compositions = [{"Na": 1, "Cl": 1}, {"Li": 2, "O": 1}, {"Fe": 2, "O": 3}, {"Cu": 1}]
    drawn = random_amounts(compositions, seed=1)
    assert [set(d) for d in drawn] == [set(c) for c in compositions]
    pool = {tuple(sorted(c.values())) for c in compositions if len(c) == 2}
    assert all(tuple(sorted(d.values())) in pool for d in drawn if len(d) == 2)
    assert random_amounts(compositions, seed=1) == drawn
    assert any(random_amounts(compositions, seed=s) != drawn for s in range(2, 6))


def test_every_rate_divides_by_all_attempts(tmp_path):
    texts = [NACL, SHIFTED, CSCL, CROWDED, TOUCHING, ODD, "nonsense", ""]
    found = evaluate(read_attempts(saved(tmp_path, [{"text": t} for t in texts])))
    assert found["attempts"] == 8
    counts = {name: share.count for name, share in found["rates"].items()}
    assert counts == {
        "parsed": 6,
        "structurally_valid": 5,
        "no_pair_below_1_a": 4,
        "compositionally_valid": 5,
        "valid": 4,  # the touching one and the odd one are out
        "valid_and_unique": 3,  # the shifted one is the first one
    }
    assert {share.of for share in found["rates"].values()} == {8}
    assert {s.of for n, s in found["of_those_that_parsed"].items() if "random" not in n} == {6}
    assert sum(found["parse_failures"].values()) == 2
    assert found["adherence"] == {}


def test_novelty_and_distances_need_something_to_compare_with(tmp_path):
    attempts = read_attempts(saved(tmp_path, [{"text": t} for t in (NACL, SHIFTED, CSCL, "?")]))
    known = parse_cell_text(NACL)
    found = evaluate(attempts, known=StructureLibrary([("k", known)]), like=[known])
    assert found["rates"]["valid_unique_and_novel"] == Rate(1, 4)
    assert found["of_the_valid"]["novel"] == Rate(1, 3)
    expected = abs(density_g_per_cm3(parse_cell_text(CSCL)) - density_g_per_cm3(known)) / 3
    assert found["wasserstein"]["density_g_per_cm3"] == pytest.approx(expected)
    assert found["wasserstein"]["n_elements"] == 0
    assert "wasserstein" not in evaluate(attempts)


def test_density_is_pymatgen_s():
    crystal = parse_cell_text(CSCL)
    assert density_g_per_cm3(crystal) == pytest.approx(float(crystal.to_structure().density), 1e-4)


def test_cells_beyond_all_reason_are_counted_not_raised(tmp_path):
    flat = "0.1 9.0 9.0\n1 90 90\nNa\n0.00 0.00 0.00"
    needle = "900.0 900.0 0.1\n1 1 1\nNa\n0.00 0.00 0.00"
    found = evaluate(read_attempts(saved(tmp_path, [{"text": flat}, {"text": needle}])))
    assert found["rates"]["parsed"].count == 2
    assert found["rates"]["structurally_valid"].count == 0


def test_what_was_asked_is_read_from_columns_and_prompts(tmp_path):
    prompt = crystal_prompt(
        formula="NaCl", elements=("Na", "Cl"), space_group=225, e_above_hull_ev_per_atom=0.05
    )
    rows = [
        {"text": NACL, "prompt": prompt},
        {"text": CSCL, "target_space_group": 221, "target_elements": ["Cs", "Cl"]},
        {"text": "?", "target_formula": "NaCl", "target_space_group": 225},
        {"text": CSCL, "target_elements": "Na-Cl", "target_e_above_hull": 0.0},
    ]
    attempts = read_attempts(saved(tmp_path, rows))
    assert attempts[0].wish == Wish(
        formula="NaCl", elements=("Na", "Cl"), space_group=225, e_above_hull_ev_per_atom=0.05
    )
    assert attempts[3].wish.e_above_hull_ev_per_atom == 0.0
    found = evaluate(attempts)["adherence"]
    assert found == {
        "formula": Rate(1, 2),
        "elements_of_formula": Rate(1, 2),
        "elements": Rate(2, 3),
        "space_group_at_0.01_a": Rate(2, 3),
        "space_group_at_0.1_a": Rate(2, 3),
    }


def test_both_text_forms_are_read(tmp_path):
    asymmetric = "225\nNa 4 4a\nCl 4 4b\n5.6"
    [attempt] = read_attempts(saved(tmp_path, [{"text": asymmetric}]))
    assert isinstance(attempt.found, Crystal), attempt.found
    assert attempt.found.formula == "NaCl"


# asking a model


def test_all_that_a_model_says_is_written_down(tmp_path):
    model = ScriptedModel([["a", NACL], CompletionError("busy", retry=True)])
    out = tmp_path / "said.jsonl"
    n = sample_crystals(
        model, out, formulas=["NaCl", None], samples=2, sampling=Sampling(temperature=0.7, seed=3)
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert n == len(rows) == 4
    assert [row["text"] for row in rows] == ["a", NACL, "", ""]
    assert [row.get("target_formula") for row in rows] == ["NaCl", "NaCl", None, None]
    assert rows[2]["error"] == "busy"
    assert "NaCl" in model.history[0].prompt
    assert len({request.sampling.seed for request in model.history}) == 2
    found = evaluate(read_attempts(out))
    assert found["rates"]["parsed"] == Rate(1, 4)
    assert found["adherence"]["formula"] == Rate(1, 2)


def test_a_grammar_is_asked_for_and_named(tmp_path):
    model = ScriptedModel([NACL])
    sample_crystals(
        model,
        tmp_path / "said.jsonl",
        formulas=["NaCl"],
        samples=1,
        sampling=Sampling(),
        grammar=True,
        min_distance_a=1.0,
    )
    assert model.history[0].constraint.automaton.min_distance_a == 1.0
    assert "distance mask 1 Å" in json.loads((tmp_path / "said.jsonl").read_text())["grammar"]
    with pytest.raises(InputError, match="distance mask"):
        sample_crystals(
            model,
            tmp_path / "no.jsonl",
            formulas=["NaCl"],
            samples=1,
            sampling=Sampling(),
            grammar=True,
            min_distance_a=1.0,
            form="asymmetric",
        )


@pytest.mark.parametrize(("text", "says"), [("", "no formula"), ("NaCl\nNa0.5\n", "line 2")])
def test_formulas_that_are_none(tmp_path, text, says):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        read_formulas(tmp_path / "f.txt")


# the command


def run(*arguments):
    result = CliRunner().invoke(app, ["evaluate", "crystals", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_the_command_judges_a_file_beside_what_is_published(tmp_path):
    path = saved(tmp_path, [{"text": NACL, "target_formula": "NaCl"}, {"text": "?"}])
    document = run(path, "--known", path, "--like", path)
    assert document["rates"]["parsed"] == {"count": 1, "of": 2, "share": 0.5}
    assert document["rates"]["valid_unique_and_novel"]["count"] == 0
    assert document["adherence"]["formula"]["share"] == 1.0
    assert {"LLaMat-2-CIF, by formula", "CDVAE"} <= {
        row["model"] for row in document["published"]["rows"]
    }
    shown = CliRunner().invoke(app, ["evaluate", "crystals", str(path)]).stdout
    assert "parsed" in shown
    assert "50.0 %  (1 of 2)" in shown


def test_the_command_takes_counts_from_a_screening_of_the_same_file(tmp_path, toy_reference):
    text = "2.6 2.6 2.6\n90 90 90\nMn\n0.00 0.00 0.00\nO\n0.50 0.50 0.50"
    path = saved(tmp_path, [{"text": text, "target_e_above_hull": 0.0}, {"text": "?"}])
    screened = CliRunner().invoke(
        app,
        ["screen", str(path), "--dir", str(tmp_path / "s"), "--potential", "toy", "--workers", "0",
         "--reference", f"file:{toy_reference}", "--relax-known", "--fmax", "0.1", "--json"],
    )  # fmt: skip
    assert screened.exit_code == 0, screened.output
    document = run(path, "--screened", tmp_path / "s")
    assert document["screened"]["funnel"]["proposed"] == 2
    assert document["screened"]["funnel"]["metastable"] == 1
    near = document["screened"]["e_above_hull_adherence"]["within_0.1_ev_per_atom"]
    assert near == {"count": 1, "of": 1, "share": 1.0}
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": NACL}) + "\n")
    with pytest.raises(InputError, match="screen this file"):
        run(other, "--screened", tmp_path / "s")


def test_a_model_needs_a_place_for_what_it_says(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="--save"):
        run(tmp_path)
