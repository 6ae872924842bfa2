"""Building references: what is tried, what is kept, and that nothing is computed twice."""

import json
import os
import random
import signal

import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError, RunInterruptedError
from hullward.models.potential import load_potential, potential_card
from hullward.tools.crystal import is_alloy
from hullward.tools.crystal.text import parse_asymmetric_text
from hullward.tools.hull import check_compatible
from hullward.tools.prototypes import encyclopedia
from hullward.tools.prototypes.library import make_prototype
from hullward.tools.records import Protocol
from hullward.tools.reference.recipe import build as build_reference
from hullward.tools.reference.recipe import expected_formulas
from hullward.tools.reference.recipe import low_phases as recipe
from hullward.tools.reference.recipe.__main__ import main as build_command
from hullward.tools.reference.recipe.system_results import SystemResult, lowest, results_of_build
from hullward.tools.reference.recipe.trials import all_trials
from hullward.tools.reference.sources import read_built, untried_subsystems
from hullward.tools.relax import Executor
from hullward.tools.store import unsealed

CARD = potential_card("toy")
HERE = Executor(workers=0)


def forbid(name: str) -> None:
    raise AssertionError(f"{name} was loaded: something was computed again")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Na-Cl in the toy potential's world, and where it was built."""
    out = tmp_path_factory.mktemp("build") / "na-cl"
    build_reference.build_systems(["Na-Cl"], out, "toy", executor=HERE)
    return out


@pytest.mark.parametrize(
    ("system", "formulas"),
    [
        ("Na-Cl", {"NaCl"}),
        ("Mn-O", {"MnO", "MnO2", "Mn2O3", "Mn3O4", "Mn3O5"}),
        ("Ca-Ti-O", {"CaTiO3", "Ca2TiO4", "CaTi2O5"}),
        ("Li-P-O", {"Li3PO4"}),  # no condensed phosphates
        ("P-O", set()),  # molecules
    ],
)
def test_expected_formulas_follow_from_oxidation_states(system, formulas):
    assert set(expected_formulas(system.split("-"))) == formulas


def test_metals_are_expected_in_the_common_types_both_ways_round():
    found = expected_formulas(["Al", "Ni"])
    assert {"AlNi", "AlNi3", "Al3Ni", "Al2Ni", "AlNi2", "AlNi5", "Al3Ni5"} <= set(found)


def test_trials_repeat_in_order_with_our_own_types_first():
    first = all_trials(["Fe", "O"], ["FeO3"])
    again = all_trials(["Fe", "O"], ["FeO3"])
    assert [(t.prototype, t.crystal.content_id) for t in first] == [
        (t.prototype, t.crystal.content_id) for t in again
    ]
    assert {"FeO", "Fe2O3", "Fe3O4", "FeO3"} <= {t.crystal.formula for t in first}
    oxides = [t for t in first if t.crystal.formula == "Fe2O3"]
    owns = [t.own for t in oxides]
    assert owns == sorted(owns, reverse=True)
    assert any(owns)
    assert all(set(t.crystal.species) == {"Fe", "O"} for t in first)


def test_types_of_the_encyclopedia_add_to_the_library_and_repeat_none():
    ids = [p.prototype_id for p in encyclopedia.encyclopedia_types()]
    assert len(ids) > 500
    assert len(set(ids)) == len(ids)
    assert all(p.n_atoms <= encyclopedia.MAX_ATOMS for p in encyclopedia.encyclopedia_types())


def test_a_missing_package_of_types_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(encyclopedia, "PACKAGE", "no-such-package")
    with pytest.raises(PreflightError, match=r"no-such-package is not installed.*pip install"):
        build_reference.build_systems(["Na-Cl"], tmp_path / "x", "toy", executor=HERE)


def test_a_build_is_a_reference_that_covers_what_was_tried(built):
    reference = read_built(built.parent, built.name)
    assert reference.elements == {"Na", "Cl"}
    assert reference.coverage({"Na": 1, "Cl": 1}).covered
    assert not reference.coverage({"Na": 1, "Cl": 3}).covered
    check_compatible(reference, CARD, Protocol())
    hull = reference.hull("Na-Cl")
    heights = [
        hull.distance(p.composition, p.energy_ev_per_atom)[0] for p in reference.phases("Na-Cl")
    ]
    assert min(heights) >= -1e-9
    assert max(heights) <= 0.1 + 1e-9
    assert untried_subsystems(reference.source.manifest, [frozenset({"Na", "Cl"})]) == {}


def test_its_energies_are_the_potentials_at_its_structures(built):
    reference = read_built(built.parent, built.name)
    phases = reference.phases("Na-Cl")
    answers = load_potential("toy").evaluate([p.crystal for p in phases])
    for phase, answer in zip(phases, answers, strict=True):
        assert answer.energy_ev_per_atom == pytest.approx(phase.energy_ev_per_atom, abs=1e-4)


def test_a_second_build_computes_nothing(built, monkeypatch):
    before = built.with_suffix(".parquet").read_bytes()
    monkeypatch.setattr(recipe, "load_potential", forbid)
    build_reference.build_systems(["Na-Cl"], built, "toy", executor=HERE)
    assert built.with_suffix(".parquet").read_bytes() == before


def test_a_build_that_was_killed_goes_on_where_it_was(built, tmp_path, monkeypatch):
    """Its computations are on file; the line the kill cut short counts for nothing."""
    out = tmp_path / "again"
    work = out.with_suffix(".work")
    work.mkdir()
    for name in ("Na.jsonl", "Cl.jsonl", "Cl-Na.jsonl"):
        (work / name).write_bytes((built.with_suffix(".work") / name).read_bytes())
    with (work / "Cl-Na.jsonl").open("a") as file:
        file.write('{"key": "point:c-cut sho')
    monkeypatch.setattr(recipe, "load_potential", forbid)
    build_reference.build_systems(["Na-Cl"], out, "toy", executor=HERE)
    assert out.with_suffix(".parquet").read_bytes() == built.with_suffix(".parquet").read_bytes()


def flipped(path, seed):
    content = bytearray(path.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1
    return bytes(content)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_computations_are_made_again(built, tmp_path, seed, caplog):
    out = tmp_path / "again"
    work = out.with_suffix(".work")
    work.mkdir()
    for name in ("Na.jsonl", "Na.result.json", "Cl.jsonl", "Cl-Na.jsonl"):
        damaged = flipped(built.with_suffix(".work") / name, seed)
        (work / name).write_bytes(damaged if seed else damaged[:-1])
    build_reference.build_systems(["Na-Cl"], out, "toy", executor=HERE)
    assert "without a right checksum are computed again" in caplog.text
    assert "Na.result.json is not used" in caplog.text
    first, second = (read_built(path.parent, path.name) for path in (built, out))
    assert [p.energy_ev_per_atom for p in first.phases("Na-Cl")] == [
        p.energy_ev_per_atom for p in second.phases("Na-Cl")
    ]
    caplog.clear()
    (work / "Cl-Na.result.json").unlink()
    build_reference.build_systems(["Na-Cl"], out, "toy", executor=HERE)
    assert "Cl-Na.jsonl: 1 lines" in caplog.text  # what was cut short ends its own line


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_damaged_build_is_refused(built, tmp_path, suffix, seed):
    for each in (".json", ".parquet"):
        content = built.with_suffix(each).read_bytes()
        (tmp_path / f"b{each}").write_bytes(content)
    (tmp_path / f"b{suffix}").write_bytes(flipped(built.with_suffix(suffix), seed))
    with pytest.raises(InputError, match=r"is damaged|is no manifest"):
        read_built(tmp_path, "b")


def test_an_extension_keeps_what_it_extends(built, tmp_path, monkeypatch):
    results = results_of_build(built, CARD)
    assert set(results) == {("Na",), ("Cl",), ("Cl", "Na")}
    monkeypatch.setattr(recipe, "load_potential", forbid)
    out = tmp_path / "more"
    build_reference.build_systems(["Na-Cl"], out, "toy", executor=HERE, extend=built)
    first, second = (read_built(path.parent, path.name) for path in (built, out))
    assert second.phases("Na-Cl") == first.phases("Na-Cl")
    assert second.source.manifest.deep == first.source.manifest.deep


def test_a_system_named_to_be_redone_is_computed_again(built, tmp_path):
    out = tmp_path / "redone"
    build_reference.build_systems([], out, "toy", executor=HERE, extend=built, redo=["Cl-Na"])
    assert (out.with_suffix(".work") / "Cl-Na.result.json").is_file()
    assert not (out.with_suffix(".work") / "Na.result.json").is_file()  # taken over
    first, second = (read_built(path.parent, path.name) for path in (built, out))
    before, after = (
        {
            k: tried.model_copy(update={"cpu_s": 0})
            for k, tried in one.source.manifest.systems.items()
        }
        for one in (first, second)
    )
    assert after == before


def test_what_a_system_held_stays_when_it_is_computed_again(built, tmp_path, monkeypatch):
    monkeypatch.setattr("hullward.tools.reference.recipe.system_results.low_phases", lambda *_: [])
    out = tmp_path / "redone"
    for _ in range(2):  # computed, then put together from what is stored
        build_reference.build_systems([], out, "toy", executor=HERE, extend=built, redo=["Cl-Na"])
        first, second = (read_built(path.parent, path.name) for path in (built, out))
        assert first.phases("Na-Cl")
        assert [p.phase_id for p in second.phases("Na-Cl")] == [
            p.phase_id for p in first.phases("Na-Cl")
        ]
    again = build_reference.build_stored(out, "toy", extend=built)
    assert again == read_built(out.parent, out.name).source.manifest
    assert len(read_built(out.parent, out.name).phases("Na-Cl")) == len(first.phases("Na-Cl"))


def test_an_extension_by_other_weights_is_refused(built, tmp_path):
    with pytest.raises(InputError, match=r"built with toy.*uses chgnet-0\.3\.0"):
        build_reference.build_systems(
            ["Na-Cl"], tmp_path / "x", "chgnet-0.3.0", executor=HERE, extend=built
        )


def test_the_users_structures_are_relaxed_whatever_their_rank(built, tmp_path):
    cell = [[4.0, 0, 0], [0, 4.2, 0], [0, 0, 4.4]]
    own = Crystal.from_arrays(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.45]])
    out = tmp_path / "own"
    build_reference.build_systems(
        ["Na-Cl"], out, "toy", executor=HERE, structures=[("mine", own)], extend=built
    )
    rows = (out.with_suffix(".work") / "Cl-Na.jsonl").read_text().splitlines()
    relaxed = [json.loads(row) for row in rows if "relaxation" in json.loads(row)]
    assert relaxed
    path = out.with_suffix(".work") / "Cl-Na.result.json"
    result = SystemResult.model_validate_json(unsealed(path.read_bytes()))
    assert result.tried["NaCl"] == results_of_build(built, CARD)[("Cl", "Na")].tried["NaCl"] + 1


def test_structures_of_other_systems_cost_an_extension_nothing(built, tmp_path, monkeypatch):
    """Na-Cl is kept though a structure of it was given, when only Na is asked for."""
    cell = [[4.0, 0, 0], [0, 4.2, 0], [0, 0, 4.4]]
    salt = Crystal.from_arrays(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.45]])
    monkeypatch.setattr(recipe, "load_potential", forbid)
    out = tmp_path / "kept"
    build_reference.build_systems(
        ["Na"], out, "toy", HERE, structures=[("mine", salt)], extend=built
    )
    assert read_built(out.parent, out.name).phases("Na-Cl")


@pytest.fixture
def written(monkeypatch):
    """Nano's types: one of a salt, and one that is worse for any."""
    types = [
        make_prototype("nano:a", parse_asymmetric_text("194\nNi 2 2a\nAs 2 2c\n3.6 5.0")),
        make_prototype("nano:b", parse_asymmetric_text("123\nLi 1 1a\nBi 1 1d\n3.4 4.3")),
    ]
    monkeypatch.setattr(
        "hullward.tools.reference.recipe.trials.nano_types_for", lambda formulas: types
    )


def test_types_that_nano_wrote_are_added_to_what_was_found(built, written, tmp_path, monkeypatch):
    out = tmp_path / "added"
    build_reference.build_systems([], out, "toy", executor=HERE, extend=built, add=["Na-Cl"])
    before, after = (results_of_build(stem, CARD)[("Cl", "Na")] for stem in (built, out))
    assert after.tried == {"NaCl": before.tried["NaCl"] + 3}  # the first type both ways round
    assert after.expected == before.expected
    assert before.force_calls < after.force_calls < 2 * before.force_calls
    lows = [min(f.phase.energy_ev_per_atom for f in r.phases) for r in (before, after)]
    assert lows[1] <= lows[0] + 1e-9
    if lows[1] < lows[0] - 1e-6:
        assert any(f.phase.source.startswith("nano:") for f in after.phases)

    monkeypatch.setattr(recipe, "load_potential", forbid)
    build_reference.build_systems([], out, "toy", executor=HERE, extend=built, add=["Na-Cl"])
    assert results_of_build(out, CARD)[("Cl", "Na")] == after


def test_only_what_was_built_can_be_added_to(built, tmp_path):
    with pytest.raises(InputError, match=r"Cl-K not in"):
        build_reference.build_systems(
            [], tmp_path / "x", "toy", executor=HERE, extend=built, add=["K-Cl"]
        )


def test_added_phases_keep_the_lowest_of_each_formula(built):
    found = list(results_of_build(built, CARD)[("Cl", "Na")].phases)
    up = [
        f.model_copy(update={"phase": f.phase.model_copy(update={"energy_ev_per_atom": e})})
        for f, e in zip([found[0]] * 4, (-3.0, -2.9998, -2.5, -2.0), strict=True)
    ]
    assert [f.phase.energy_ev_per_atom for f in lowest(up)] == [-3.0, -2.5]


def killed(*job: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_ends_a_build_in_one_line(built, tmp_path, monkeypatch):
    monkeypatch.setattr(build_reference, "build_system", killed)
    with pytest.raises(RunInterruptedError, match=r"a worker of the build was killed.*goes on"):
        build_reference.build_systems(
            ["Na-Cl"], tmp_path / "x", "toy", executor=Executor(workers=1)
        )


def test_alloys_inside_a_salt_are_not_built(tmp_path):
    parts = build_reference._with_subsystems(["Li-Mn-O"])
    assert ("Li", "Mn") not in parts
    assert {("Li", "O"), ("Mn", "O"), ("Li", "Mn", "O")} <= set(parts)
    assert is_alloy(("Li", "Mn"))
    assert ("Al", "Ni") in build_reference._with_subsystems(["Al-Ni"])


@pytest.mark.parametrize(
    ("systems", "formulas", "message"),
    [
        (["Na-Xx"], [], "'Na-Xx' is no chemical system"),
        (["Na-Po"], [], "toy does not support Po"),
        (["Na-Cl"], ["NaQl"], "'NaQl' is no formula"),
    ],
)
def test_what_cannot_be_built_says_why(systems, formulas, message, tmp_path):
    with pytest.raises(InputError, match=message):
        build_reference.build_systems(
            systems, tmp_path / "x", "toy", executor=HERE, formulas=formulas
        )


def test_a_build_can_be_made_again_from_its_manifest(built, tmp_path, capsys):
    out = tmp_path / "again"
    build_command(
        ["--again", str(built), "--out", str(out), "--potential", "toy", "--workers", "0"]
    )
    assert "phases of 2 elements" in capsys.readouterr().out
    assert out.with_suffix(".parquet").read_bytes() == built.with_suffix(".parquet").read_bytes()


def test_a_manifest_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"x\.json is no manifest of a built reference .recipe: Field required"
    ):
        build_command(["--again", str(tmp_path / "x"), "--out", str(tmp_path / "y")])
