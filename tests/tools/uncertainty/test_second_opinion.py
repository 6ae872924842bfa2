"""Second opinions: other potentials, each compared with itself alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import (
    Evaluation,
    UnsupportedElementError,
    in_batches,
    load_potential,
    potential_card,
)
from hullward.tools.hull import Reference
from hullward.tools.records import Candidate, Protocol, Relaxation
from hullward.tools.reference import load_reference
from hullward.tools.relax.stream import relax_one
from hullward.tools.screening import validate
from hullward.tools.uncertainty import SecondPotential, ask_second_potential

LJ = "ase:ase.calculators.lj:LennardJones"
EMT = "ase:ase.calculators.emt:EMT"
PROTOCOL = Protocol(fmax_ev_per_a=0.1, max_steps=300)


def cell(a: float, *pair: str) -> Crystal:
    return Crystal.from_parameters((a,) * 3, (90,) * 3, list(pair), [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def reference(toy_reference: Path) -> Reference:
    return load_reference(f"file:{toy_reference}", None)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Candidate, Relaxation]]:
    toy, found = load_potential("toy"), []
    for number, crystal in enumerate((cell(2.9, "Li", "Mn"), cell(2.6, "Mn", "O"))):
        facts = validate.check_crystal(crystal, validate.Limits(), toy.card.elements)
        candidate = validate.candidate(f"x-{number}", crystal, facts)
        found.append((candidate, relax_one(candidate.candidate_id, crystal, toy, PROTOCOL)))
    return found


def second_potential(reference: Reference, potential: str, **changes) -> SecondPotential:
    settings = {"margin_ev_per_atom": 0.05, "max_force_calls": 10_000, **changes}
    return SecondPotential(potential=potential, protocol=PROTOCOL, reference=reference, **settings)


def test_a_potential_agrees_with_itself(reference, pairs) -> None:
    for opinion in second_potential(reference, "toy").ask(pairs):
        assert opinion.kind == "decomposition"
        assert opinion.failure == ""
        assert opinion.difference_ev_per_atom == pytest.approx(0.0, abs=0.01)
        assert opinion.disputed is False
        assert opinion.same_structure
        assert opinion.volume_ratio == pytest.approx(1.0, abs=0.05)


def test_decomposition_is_taken_wholly_within_the_second(reference, pairs) -> None:
    (opinion,) = second_potential(reference, LJ).ask(pairs[:1])
    potential = load_potential(LJ)
    crystal = pairs[0][1].crystal
    phases = {p.phase_id: p.crystal for p in reference.phases("Li-Mn")}
    energies = {
        name: relax_one(name, c, potential, PROTOCOL).energy_ev_per_atom
        for name, c in (("own", crystal), *phases.items())
    }
    by_hand = energies["own"] - (energies["toy-Li"] + energies["toy-Mn"]) / 2
    assert opinion.second_ev_per_atom == pytest.approx(by_hand, abs=1e-6)
    gap = opinion.second_ev_per_atom - opinion.first_ev_per_atom
    assert opinion.difference_ev_per_atom == pytest.approx(gap)
    assert opinion.disputed == (abs(gap) > 0.05)


def test_an_element_without_parameters_is_said(reference, pairs) -> None:
    (opinion,) = second_potential(reference, EMT).ask(pairs[:1])  # it knows neither Li nor Mn
    assert opinion.disputed is None
    assert opinion.second_ev_per_atom is None
    assert "potential_error" in opinion.failure


def test_what_does_not_converge_is_said(reference, pairs) -> None:
    one = second_potential(reference, "toy")
    one.protocol = Protocol(fmax_ev_per_a=1e-6, max_steps=1)
    (opinion,) = one.ask(pairs[1:])
    assert opinion.disputed is None
    assert "did not converge" in opinion.failure


def test_a_suspect_that_never_converged_is_asked_from_the_same_start(reference, pairs) -> None:
    candidate, settled = pairs[1]
    toy, short = load_potential("toy"), Protocol(fmax_ev_per_a=1e-6, max_steps=2)
    stuck = relax_one(candidate.candidate_id, candidate.crystal, toy, short)
    assert not stuck.converged
    opinion = second_potential(reference, "toy").ask_unconverged(candidate, stuck, None)
    assert opinion.relaxation_id == stuck.relaxation_id
    assert opinion.second_ev_per_atom is not None  # the second relaxed it on its own
    assert opinion.first_ev_per_atom is None
    assert opinion.disputed is None
    assert opinion.failure == "toy did not converge: nothing to compare with"
    beside = second_potential(reference, "toy").ask_unconverged(candidate, stuck, settled)
    assert beside.first_ev_per_atom == pytest.approx(beside.second_ev_per_atom, abs=1e-6)
    assert beside.disputed is False
    hopeless = second_potential(reference, "toy")
    hopeless.protocol = short
    neither = hopeless.ask_unconverged(candidate, stuck, stuck)
    assert neither.disputed is None
    assert "toy did not converge" in neither.failure
    assert "the candidate did not converge with toy" in neither.failure


def test_a_spent_budget_is_said(reference, pairs) -> None:
    one = second_potential(reference, "toy", max_force_calls=1)
    opinions = one.ask(pairs)
    assert one.exhausted
    assert "budget of force calls ended" in opinions[-1].failure
    assert ask_second_potential(one, pairs, 2) == []


def test_disputed_entries_bring_in_the_next(reference, pairs) -> None:
    strict = second_potential(reference, LJ, margin_ev_per_atom=1e-9)
    opinions = ask_second_potential(strict, pairs, 1)
    assert len(opinions) == 1 + bool(opinions[0].disputed)
    assert len(ask_second_potential(second_potential(reference, "toy"), pairs, 1)) == 1
    assert ask_second_potential(second_potential(reference, "toy"), [], 5) == []


def test_without_structures_only_geometry_is_compared(tmp_path: Path, pairs) -> None:
    table = tmp_path / "bare.csv"
    table.write_text("formula,energy_per_atom\nLi,-1\nMn,-1\nO,-1\n")
    table.with_name("bare.reference.json").write_text(json.dumps({"energy_scheme": "toy"}))
    (opinion,) = second_potential(load_reference(f"file:{table}", None), "toy").ask(pairs[:1])
    assert opinion.kind == "geometry"
    assert opinion.second_ev_per_atom is None
    assert opinion.same_structure
    assert opinion.disputed is False
    assert "no structures" in opinion.failure


def test_other_checkpoints_say_what_their_package_says() -> None:
    from chgnet.model import CHGNet

    crystal = Crystal.from_parameters(
        (2.9, 2.9, 4.2), (90,) * 3, ["Mn", "O"], [[0, 0, 0], [0.5, 0.52, 0.5]]
    )
    for name in ("0.2.0", "r2scan"):
        ours = load_potential(f"chgnet-{name}")
        (evaluation,) = ours.evaluate([crystal])
        assert isinstance(evaluation, Evaluation)
        theirs = CHGNet.load(model_name=name, use_device="cpu", verbose=False)
        told = theirs.predict_structure(crystal.to_structure())
        assert evaluation.energy_ev_per_atom == pytest.approx(float(told["e"]), abs=2e-5)
        assert np.allclose(evaluation.forces_ev_per_a, told["f"], atol=1e-4)
        assert np.allclose(evaluation.stress_ev_per_a3 * 160.21766208, told["s"], atol=1e-2)
        assert ours.card.energy_scheme == f"own:chgnet-{name}"
        (odd,) = ours.evaluate([cell(4.0, "Po", "O")])
        assert isinstance(odd, UnsupportedElementError)
        assert in_batches(ours).card == ours.card


def test_a_run_is_named_as_before_where_no_opinion_is_asked(toy_settings) -> None:
    plain = parse_settings(Campaign, toy_settings, "test")
    asked = {"second_opinion": {"potential": "chgnet-r2scan"}}
    other = parse_settings(Campaign, toy_settings | asked, "test")
    assert other.campaign_id != plain.campaign_id
    assert other.second_opinion is not None
    assert other.second_opinion.top == 10
    wrong = {"second_opinion": {"potential": "toy", "margin": 1}}
    with pytest.raises(InputError, match="did you mean `margin_ev_per_atom`"):
        parse_settings(Campaign, toy_settings | wrong, "test")


def test_names_that_are_no_calculator_are_refused() -> None:
    with pytest.raises(InputError, match="ase:MODULE:FACTORY"):
        potential_card("ase:nonsense")
    with pytest.raises(PreflightError, match="needs the package nowhere"):
        potential_card("ase:nowhere.at:all")
    with pytest.raises(PreflightError, match="NoSuchThing"):
        load_potential("ase:ase.calculators.lj:NoSuchThing")
    with pytest.raises(InputError, match="any ASE calculator"):
        potential_card("chgnet-9")
    assert potential_card(LJ).typical_error_ev_per_atom is None
    assert potential_card(LJ).weights_sha256 != potential_card(EMT).weights_sha256


def test_opinions_are_stored_shown_and_put_what_is_disputed_last(
    toy_reference: Path, tmp_path: Path
) -> None:
    source, where = tmp_path / "some.jsonl", str(tmp_path / "s")
    rows = [cell(a, *p) for a, p in ((2.6, "MnO"), (2.7, "LiO"), (2.9, ("Li", "Mn")))
            if not isinstance(p, str)]  # fmt: skip
    rows += [Crystal.from_parameters((3.9,) * 3, (90,) * 3, ["Li", "Mn", "O", "O"],
             [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5]])]  # fmt: skip
    source.write_text("".join(
        json.dumps({"structure": json.loads(c.model_dump_json())}) + "\n" for c in rows
    ))  # fmt: skip
    cli = CliRunner()
    answer = cli.invoke(app, [
        "screen", str(source), "--dir", where, "--potential", "toy", "--workers", "0",
        "--reference", f"file:{toy_reference}", "--fmax", "0.1",
    ])  # fmt: skip
    assert answer.exit_code == 0, answer.output
    same = cli.invoke(app, ["opinion", where, "--potential", "toy"])
    assert isinstance(same.exception, InputError)
    asked = cli.invoke(app, ["opinion", where, "--potential", LJ, "--margin", "1e-6", "--json"])
    assert asked.exit_code == 0, asked.output
    told = json.loads(asked.stdout)
    report = json.loads((tmp_path / "s" / "report" / "report.json").read_text())
    if told["empty"]:
        assert "no opinion by" in cli.invoke(app, ["opinion", where, "--potential", LJ]).stdout
    else:
        assert report["opinions"]["asked"] == told["asked"] + told["asked_suspects"]
        assert report["opinions"]["disputed"] == told["disputed"]
        heights = told["heights"]
        assert len(heights) == told["asked"] + told["asked_suspects"]
        assert all(h["formula"] and "second_ev_per_atom" in h for h in heights)
        page = (tmp_path / "s" / "report" / "report.html").read_text()
        assert "Second opinions" in page
