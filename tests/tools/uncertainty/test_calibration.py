"""Probabilities: the fit, its scores, what it is asked about and what it says nothing of."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.agents.planning import read_outcomes
from hullward.agents.planning.ledger import LAG_CYCLES
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import PotentialCard
from hullward.tools.records import (
    Basis,
    Check,
    Protocol,
    Relaxation,
    SecondEnergy,
    StabilityProbability,
)
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor
from hullward.tools.report.figures import reliability_figure
from hullward.tools.report.figures.reliability import wilson
from hullward.tools.report.uncertainty import Trust, trust_words
from hullward.tools.store import Store, open_snapshot, sealed
from hullward.tools.uncertainty import (
    CalibrationCase,
    Calibrator,
    calibrators_folder,
    checks_of,
    fit,
    fitting_calibrator,
    known_calibrators,
    learning_curves,
    left_out_fits,
    model,
    outcomes,
    own_calibrators,
    read_dft_table,
    shipped,
    updated,
)
from hullward.tools.uncertainty.calibrator import read_calibrator
from hullward.tools.uncertainty.features import STATE, share_roots
from hullward.tools.uncertainty.fitting import Outcome, rows_of
from hullward.tools.uncertainty.folds import choose_widths, fit_rows, left_out_folds
from hullward.tools.uncertainty.learning_curve import after
from hullward.tools.uncertainty.model import Widths
from hullward.tools.uncertainty.scores import (
    bins_of,
    calibration_error,
    calibration_floor,
    isotonic,
    log_losses,
)
from hullward.tools.uncertainty.second_energies import SECOND, SECOND_ENERGY_STATE, not_computed

RNG = np.random.default_rng


def made_up(
    n: int, seed: int = 0, shift: float = 0.1, names: Sequence[str] = STATE
) -> list[Outcome]:
    """Outcomes of a world where DFT lies `shift` higher, 0.05 eV/atom wide, oxides half of it."""
    rng = RNG(seed)
    found = []
    for i in range(n):
        oxide = bool(rng.random() < 0.5)
        amounts = {"Li": 1.0, "O" if oxide else "S": 1.0 + i}
        height = float(rng.uniform(-0.1, 0.4))
        state = {name: float(rng.normal()) for name in names}
        state["e_above_hull_ev_per_atom"] = height
        state["oxygen"] = float(oxide)
        dft = height + (shift / 2 if oxide else shift) + 0.05 * float(rng.standard_t(4))
        case = CalibrationCase(state, amounts, height)
        found.append(Outcome(case, f"maker {i % 3}", f"formula {i % (n // 2)}", dft))
    return found


def quick(found: list[Outcome], reading: str = ""):
    return fit(
        found,
        reading=reading,
        name="t",
        potential="toy",
        protocol=Protocol(),
        widths=Widths(),
        shift_sd_ev_per_atom=0.0,
    )


def test_the_fit_finds_how_far_dft_lies_above() -> None:
    fitted = quick(made_up(600))
    ask = [o.case for o in made_up(400, seed=1)]
    centre, _ = fitted.design(ask)
    off = centre @ np.array(fitted.mean)[: centre.shape[1]]
    oxide = np.array([c.state["oxygen"] > 0 for c in ask])
    assert off[oxide].mean() == pytest.approx(0.05, abs=0.01)
    assert off[~oxide].mean() == pytest.approx(0.1, abs=0.01)


def test_probabilities_come_true_in_the_world_they_were_fitted_in() -> None:
    fitted, new = quick(made_up(800)), made_up(800, seed=2)
    for threshold in (0.05, 0.1):
        said, low, high = fitted.probabilities([o.case for o in new], threshold)
        found = np.array([o.dft_ev_per_atom <= threshold for o in new])
        assert calibration_error(said, found) < calibration_floor(said).mean() + 0.02
        assert (low <= said + 1e-9).mean() > 0.95
        assert ((low <= high) & (low >= 0) & (high <= 1)).all()


def test_two_updates_end_where_one_does() -> None:
    found = made_up(400)
    base = quick(found[:200])
    cases = [o.case for o in found[200:]]
    dft = np.array([o.dft_ev_per_atom for o in found[200:]])
    at_once = updated(base, cases, dft)
    in_turns = updated(updated(base, cases[:100], dft[:100]), cases[100:], dft[100:])
    assert at_once.rows == in_turns.rows == 400
    ask = [o.case for o in made_up(100, seed=6)]
    once, turns, before = (c.probabilities(ask, 0.1)[0] for c in (at_once, in_turns, base))
    assert np.abs(once - turns).max() < 0.1  # Laplace's approximation, twice
    assert np.abs(once - turns).mean() < np.abs(once - before).mean()
    assert at_once.calibrator_id != base.calibrator_id
    kept = np.array_equal(at_once.posterior.covariance, base.posterior.covariance)
    assert not kept  # nothing cached is


def test_dft_results_narrow_the_posterior_and_move_the_probability() -> None:
    base, news = quick(made_up(200)), made_up(600, seed=3, shift=0.2)
    ask = [o.case for o in made_up(50, seed=4)]
    after = updated(base, [o.case for o in news], np.array([o.dft_ev_per_atom for o in news]))
    before_p = base.probabilities(ask, 0.1)[0]
    after_p = after.probabilities(ask, 0.1)[0]
    assert after_p.mean() < before_p.mean()
    assert (np.diag(after.posterior.covariance) <= np.diag(base.posterior.covariance)).all()


@settings(max_examples=25)
@given(height=st.floats(-0.2, 0.8), seed=st.integers(0, 5))
def test_a_wider_margin_is_likelier(height: float, seed: int) -> None:
    one = made_up(2, seed, names=STATE + SECOND_ENERGY_STATE)
    case = CalibrationCase(
        one[0].case.state | {"e_above_hull_ev_per_atom": height}, {"Li": 1.0}, height
    )
    calibrator = shipped()
    assert calibrator is not None
    p = [calibrator.probabilities([case], t)[0][0] for t in (0.0, 0.05, 0.1, 0.5)]
    assert (np.diff(p) >= -1e-6).all()  # the quadrature's last digits, where features are absurd
    assert p[0] >= 0
    assert p[-1] <= 1


def test_folds_leave_out_a_generator_and_every_formula_of_it() -> None:
    found = made_up(60)
    seen: list[int] = []
    for training, left_out in rows_of(found).folds(np.arange(60)):
        assert not {found[i].formula for i in training} & {found[i].formula for i in left_out}
        assert not {found[i].generator for i in training} & {found[i].generator for i in left_out}
        seen += left_out.tolist()
    assert sorted(seen) == list(range(60))


FEW = {"element_ev_per_atom": (0.1, 0.2)}


def test_what_is_left_out_has_no_say_in_its_fold() -> None:
    rows = rows_of(made_up(90))
    first = rows.generators == "maker 0"
    other = replace(rows, dft=np.where(first, rows.dft + 0.3, rows.dft))
    here, there = (left_out_folds(r, (0.05, 0.1), FEW)[0] for r in (rows, other))
    assert set(rows.generators[here.left_out]) == {"maker 0"}
    assert here.fitted.widths == there.fitted.widths
    assert here.fitted.posterior.mean.tolist() == there.fitted.posterior.mean.tolist()
    assert here.fitted.shift_sd == there.fitted.shift_sd


def test_widths_are_chosen_by_the_loss_on_generators_left_out_in_turn() -> None:
    rows, every = rows_of(made_up(90)), np.arange(90)
    chosen = choose_widths(rows, every, (0.05, 0.1), FEW)
    losses = {}
    for value in FEW["element_ev_per_atom"]:
        widths, lost = Widths(element_ev_per_atom=value), []
        for training, left_out in rows.folds(every):
            fitted = fit_rows(rows, training, widths)
            for t in (0.05, 0.1):
                said = fitted.probabilities(rows, left_out, t)
                lost.append(log_losses(said, rows.dft[left_out] <= t))
        losses[value] = np.concatenate(lost).mean()
    best = min(losses, key=lambda value: losses[value])
    assert chosen.element_ev_per_atom in (best, Widths().element_ev_per_atom)
    alone = every[rows.generators == "maker 1"]
    assert choose_widths(rows, alone, (0.05, 0.1), FEW) == Widths()  # it cannot choose


def test_how_far_generators_lie_off_is_found_and_widens_what_is_said_of_a_new_one() -> None:
    rng = RNG(3)
    n, groups, true = 1200, 30, 0.06
    of = np.arange(n) % groups
    gap = 0.1 + rng.normal(0, true, groups)[of] + 0.03 * rng.standard_t(4, n)
    one = np.ones((n, 1))
    before = model.Posterior(np.array([0.0, np.log(0.1)]), np.eye(2) / 100)
    after, shift_sd = model.update_grouped(before, one, one, gap, of)
    assert shift_sd == pytest.approx(true, rel=0.3)
    assert np.exp(after.mean[1]) == pytest.approx(0.03, rel=0.1)
    # Thirty shifts say where the mean is less surely than 1,200 rows would.
    assert after.covariance[0, 0] == pytest.approx(shift_sd**2 / groups, rel=0.1)
    ask = (one[:1], one[:1], np.zeros(1), 0.15)
    known, new = (model.probabilities(after, *ask, sd)[0][0] for sd in (0.0, shift_sd))
    assert 0.5 < new < known
    single, none = model.update_grouped(before, one, one, gap, np.zeros(n))
    assert none == 0.0  # a single group cannot say
    assert single.covariance[0, 0] < after.covariance[0, 0]


def test_scores_of_a_generator_show_what_could_be_hoped_for() -> None:
    rows = rows_of(made_up(90))
    for c in checks_of(*left_out_fits(made_up(90), FEW)):
        assert set(c.by_generator) == set(rows.generators)
        for part in c.by_generator.values():
            low, high = part.calibration_error_interval
            assert 0 <= low <= high <= 1
            assert part.floor <= part.floor_95
            assert part.shifted_floor <= part.shifted_floor_95
            assert part.shifted_floor_95 <= 1
        assert c.worst.calibration_error == max(
            part.calibration_error for part in c.by_generator.values()
        )
        assert list(c.worst.shifted) == sorted(c.worst.shifted)
        assert 0 <= c.worst.shifted_as_bad <= 1


def test_what_results_of_a_left_out_generator_do_is_what_the_update_does() -> None:
    found, news = made_up(600), made_up(40, seed=7, shift=0.15)
    every = rows_of([*found, *news])
    fitted = fit_rows(every, np.arange(600), Widths(), 0.0)
    learnt = after(fitted, every, np.arange(600, 640)).posterior
    dft = np.array([o.dft_ev_per_atom for o in news])
    told = updated(quick(found), [o.case for o in news], dft)
    assert learnt.mean == pytest.approx(np.array(told.mean), abs=1e-3)
    assert after(fitted, every, np.arange(0)) is fitted


def test_results_of_a_generator_that_lies_off_bring_its_calibration_error_down() -> None:
    rows = rows_of(made_up(300))
    first = rows.generators == "maker 0"
    formulas = np.arange(300).astype(str)
    off = replace(rows, dft=rows.dft - np.where(first, 0.12, 0.0), formulas=formulas)
    folds = left_out_folds(off, (0.05, 0.1), {"element_ev_per_atom": (0.2,)})
    points = learning_curves(off, folds, sizes=(0, 40, 80), draws=3)
    assert {p.generator for p in points} == {"maker 0", "maker 1", "maker 2"}
    assert {p.results for p in points} == {0, 40}  # of 100 rows each, 80 would leave too few
    own = [p for p in points if p.generator == "maker 0" and p.threshold_ev_per_atom == 0.1]
    before, later = own
    assert later.mean < 0.9 * before.mean
    assert before.sd == 0.0


def test_a_calibrator_of_before_is_still_read() -> None:
    calibrator = shipped()
    assert calibrator is not None
    old = json.loads(calibrator.model_dump_json())
    del old["freedom"]
    for one in old["checks"]:
        del one["worst"]
        one["by_generator"] = {"a": [5, 0.2, 0.1, 0.05], "b": [7, 0.3, 0.2, 0.04]}
    read = Calibrator.model_validate(old)
    assert read.freedom == 4.0
    assert read.checks[0].worst.generator == "b"
    assert read.checks[0].by_generator["b"].floor == 0.04
    assert read.checks[0].by_generator["b"].calibration_error_interval is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=2, max_size=60))
def test_isotonic_falls_and_keeps_the_mean(rows: list[tuple[float, bool]]) -> None:
    heights, found = np.array([h for h, _ in rows]), np.array([f for _, f in rows])
    knots, shares = isotonic(heights, found)
    assert (np.diff(knots) >= 0).all()
    assert (np.diff(shares) <= 1e-12).all()
    assert shares.mean() == pytest.approx(found.mean())


def test_scores_of_what_is_known() -> None:
    said = np.repeat([0.1, 0.9], 50)
    right = np.concatenate([np.arange(50) < 5, np.arange(50) < 45])
    assert sum(map(len, bins_of(said))) == 100
    assert log_losses(np.array([0.5]), np.array([True]))[0] == pytest.approx(np.log(2))
    assert calibration_error(np.full(100, 0.5), np.arange(100) % 2 == 0) == pytest.approx(0.0)
    assert calibration_error(said, ~right) > 0.5
    assert 0.0 < calibration_floor(said).mean() < 0.2
    low, high = wilson(0.0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-3)  # Wilson 1927, z = 1.96


def test_share_roots_refuse_what_they_do_not_know() -> None:
    assert share_roots({"Li": 1, "O": 3}, ("Li", "O")) == pytest.approx([0.5, 0.75**0.5])
    with pytest.raises(KeyError):
        share_roots({"Po": 1}, ("Li", "O"))


def bounds(checks: Sequence[Check]) -> None:
    """What was asked of left-out generators, that neither a fit nor the choice of its prior saw."""
    for c in checks:
        assert c.brier_skill >= 0.30
        assert c.log_loss_gain[0] > 0
        assert c.calibration_error <= 0.06
        for part in c.by_generator.values():
            assert part.calibration_error <= 0.12
    assert checks[0].precision_top_tenth >= 0.60


def test_the_shipped_calibrator_did_what_was_asked() -> None:
    """Figures of the fit as shipped, on left-out generators (RESULTS.md has the command)."""
    calibrator = shipped()
    assert calibrator is not None
    assert {c.threshold_ev_per_atom for c in calibrator.checks} == {0.05, 0.1}
    bounds(calibrator.checks)
    figure = reliability_figure(calibrator.checks)
    assert figure.count("<circle") == 22
    assert "within 50 meV/atom" in figure


def test_precision_is_positive_definite_after_rounding() -> None:
    calibrator = shipped()
    assert calibrator is not None
    assert np.linalg.eigvalsh(calibrator.posterior.precision).min() > 0


def test_where_no_calibrator_fits_the_reason_is_told() -> None:
    calibrator = shipped()
    assert calibrator is not None
    fits = Basis(
        campaign_id="k",
        potential=calibrator.potential,
        potential_sha256=calibrator.potential_sha256,
        energy_scheme=calibrator.energy_scheme,
        protocol=Protocol(),
        reference_spec="mp",
        reference_id="mp",
        reference_version="1",
        reference_kind="materials_project",
        reference_statement="",
        metastable_ev_per_atom=0.1,
    )
    assert fitting_calibrator(fits, [calibrator]) == (calibrator, "")
    for change, told in (
        ({"potential": "other", "potential_sha256": "0"}, "it is for chgnet-0.3.0, not other"),
        ({"protocol": Protocol(fmax_ev_per_a=0.2)}, "it is for the default protocol"),
        ({"reference_kind": "embedded"}, "Materials Project references, not to embedded ones"),
    ):
        found, why = fitting_calibrator(fits.model_copy(update=change), [calibrator])
        assert found is None
        assert told in why
    assert fitting_calibrator(fits, []) == (None, "there is no calibrator")


def test_the_users_own_calibrators_are_asked_first(tmp_path: Path) -> None:
    there = shipped()
    assert there is not None
    folder = calibrators_folder(tmp_path)
    folder.mkdir()
    for name, reading in (("b", there.reading), ("a", "")):
        (folder / f"{name}.json").write_text(
            there.changed(name=name, reading=reading).model_dump_json()
        )
    assert [c.name for c in known_calibrators(tmp_path)] == ["a", "b", there.name]


def test_a_fit_to_readings_looks_at_them_and_one_without_does_not() -> None:
    read = made_up(120, names=STATE + SECOND_ENERGY_STATE)
    fitted = quick(read, reading="toy")
    assert fitted.state == STATE + SECOND_ENERGY_STATE
    assert fitted.reading == "toy"
    assert quick(made_up(120)).state == STATE
    far = [replace(o.case, state=o.case.state | {SECOND_ENERGY_STATE[0]: 3.0}) for o in read]
    before, after_ = (fitted.probabilities(c, 0.1)[0] for c in ([o.case for o in read], far))
    assert not np.allclose(before, after_)


ENERGIES = "formula,formation_energy_per_atom\nLi2O,-2.07\nLi2O2,-1.66\nLiF,-3.18\n"


def screen_two_salts(tmp_path: Path) -> None:
    """Screen two cells over a small hull, into tmp_path / 's'; done again, it goes on."""
    (tmp_path / "hull.csv").write_text(ENERGIES)
    cells = [
        {"lattice": [[a, 0, 0], [0, a, 0], [0, 0, a]], "species": list(pair),
         "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}
        for a, pair in ((2.6, ("Li", "O")), (2.5, ("Li", "F")))
    ]  # fmt: skip
    source = tmp_path / "two.jsonl"
    source.write_text("".join(json.dumps({"structure": c}) + "\n" for c in cells))
    asked = ["screen", str(source), "--dir", str(tmp_path / "s"), "--workers", "0", "--json"]
    answer = CliRunner().invoke(app, [*asked, "--reference", f"file:{tmp_path / 'hull.csv'}"])
    assert answer.exit_code == 0, answer.output


SAID = """SELECT p_below_50mev, probability_note, second_energy_by FROM results
          WHERE state = 'judged'"""


def said_in(directory: Path) -> list[tuple[float | None, str | None, str | None]]:
    with open_snapshot(directory) as connection:
        return connection.execute(SAID).fetchall()


def absent(name: str) -> PotentialCard:
    raise PreflightError(f"potential {name!r} needs the package sevenn")


def passing(
    relaxations: Sequence[Relaxation], potential: str, *_: object
) -> Iterator[SecondEnergy]:
    yield from not_computed(relaxations, potential, "out of memory")


@pytest.mark.parametrize(
    ("patched", "by", "told"),
    [
        ("potential_card", absent, "potential 'sevennet-l3i5' needs the package sevenn"),
        ("second_energies_of", passing, "out of memory"),
    ],
)
def test_a_second_network_that_cannot_be_asked_costs_the_probability_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patched: str, by: object, told: str
) -> None:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    with monkeypatch.context() as patch:
        patch.setattr(f"hullward.tools.uncertainty.probabilities.{patched}", by)
        screen_two_salts(tmp_path)
    assert said_in(tmp_path / "s") == [(None, f"no second energy by {SECOND}: {told}", None)] * 2
    with Store.open(tmp_path / "s", command="test") as store:
        assert store.load(SecondEnergy) == []  # a failure that passes is not kept
    screen_two_salts(tmp_path)  # asked again, it answers
    assert all(p is not None and note is None for p, note, _ in said_in(tmp_path / "s"))


def test_a_report_says_how_many_of_the_likely_may_be_known() -> None:
    trust = Trust(
        judged=9,
        with_probability=9,
        expected_below_50mev=3.2,
        short_list_with_probability=5,
        short_list_may_be_known=2,
    )
    assert "2 of them may be known" in trust_words(trust)
    none = trust.model_copy(update={"short_list_may_be_known": 0})
    assert "may be known" not in trust_words(none)


def test_what_is_read_already_needs_the_second_network_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    screen_two_salts(tmp_path)
    before = said_in(tmp_path / "s")
    assert [name for _, _, name in before] == [SECOND, SECOND]
    monkeypatch.setattr("hullward.tools.uncertainty.probabilities.potential_card", absent)
    screen_two_salts(tmp_path)
    assert said_in(tmp_path / "s") == before
    with open_snapshot(tmp_path / "s") as connection:
        ids = connection.execute("SELECT candidate_id FROM results").fetchall()
    results = tmp_path / "dft.csv"
    results.write_text(f"candidate_id,dft_e_above_hull_ev_per_atom\n{ids[0][0]},2.0\n")
    learnt = CliRunner().invoke(app, ["calibrate", str(results), "--dir", str(tmp_path / "s")])
    assert learnt.exit_code == 0, learnt.output
    assert [name for _, _, name in said_in(tmp_path / "s")] == [SECOND, SECOND]


def test_an_earlier_probability_stands_until_there_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    before, now = shipped().changed(name="before", reading="", state=STATE), shipped()
    size = len(STATE)
    before = before.changed(centres=now.centres[:size], scales=now.scales[:size])
    kept = [*range(1 + size), *range(3 + size, len(now.mean) - 2)]
    precision = now.posterior.precision[np.ix_(kept, kept)]
    before = before.changed(
        mean=tuple(now.mean[k] for k in kept),
        precision=tuple(tuple(row[: k + 1]) for k, row in enumerate(precision)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            "hullward.tools.uncertainty.probabilities.known_calibrators", lambda home: [before]
        )
        screen_two_salts(tmp_path)
    first = said_in(tmp_path / "s")
    assert all(p is not None and by is None for p, _, by in first)
    with monkeypatch.context() as patch:
        patch.setattr("hullward.tools.uncertainty.probabilities.potential_card", absent)
        screen_two_salts(tmp_path)
    assert said_in(tmp_path / "s") == first
    screen_two_salts(tmp_path)
    assert [by for _, _, by in said_in(tmp_path / "s")] == [SECOND, SECOND]


def test_results_handed_in_again_bring_an_interrupted_report_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    screen_two_salts(tmp_path)
    with open_snapshot(tmp_path / "s") as connection:
        ids = connection.execute("SELECT candidate_id FROM results").fetchall()
    results = tmp_path / "dft.csv"
    results.write_text(f"candidate_id,dft_e_above_hull_ev_per_atom\n{ids[0][0]},2.0\n")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    asked = ["calibrate", str(results), "--dir", str(tmp_path / "s")]
    before = said_in(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr("hullward.agents.followup.dft_results.store_probabilities", interrupted)
        assert CliRunner().invoke(app, asked).exit_code != 0
    assert said_in(tmp_path / "s") == before
    again = CliRunner().invoke(app, asked)
    assert "seen already" in str(again.exception)
    assert said_in(tmp_path / "s") != before


def calibrate(*arguments: str | Path) -> dict[str, Any]:
    """What `hullward calibrate … --json` printed."""
    answer = CliRunner().invoke(app, ["calibrate", *map(str, arguments), "--json"])
    assert answer.exit_code == 0, answer.exception
    return json.loads(answer.stdout)


def _correct_and_forget(folder: Path, ids: list[str]) -> None:
    """With results 2.0 and 1.8 learnt: a later value replaces one, and both can be taken back."""
    where, table = folder / "s", folder / "later.csv"
    now = "SELECT DISTINCT calibrator_id FROM results WHERE state = 'judged'"

    def used() -> str:
        with open_snapshot(where) as connection:
            [(calibrator_id,)] = connection.execute(now).fetchall()
        return calibrator_id

    first = used()
    table.write_text(f"candidate_id,dft_e_above_hull_ev_per_atom\n{ids[1]},0.3\n")
    trial = calibrate(table, "--dir", where, "--dry-run")
    assert (trial["calibrator"], trial["replaced"]) == ("", {ids[1]: 1.8})
    assert used() == first
    corrected = calibrate(table, "--dir", where)
    assert corrected["calibrator_id"] == trial["calibrator_id"] == used() != first
    assert corrected["rows"] == shipped().rows + 2
    kept = {r["candidate_id"]: r["dft_ev_per_atom"] for r in calibrate("--show")["results"]}
    assert kept == {ids[0]: 2.0, ids[1]: 0.3}
    with pytest.raises(InputError, match="no DFT result of c-none is kept"):
        CliRunner().invoke(app, ["calibrate", "--forget", "c-none"], catch_exceptions=False)
    calibrate("--forget", ids[1], "--dir", where)
    [(path, own)] = own_calibrators(folder / "home").items()
    assert own.calibrator_id == used()
    assert own.posterior.mean == pytest.approx(
        updated(shipped(), [own.results[0].case], np.array([2.0])).posterior.mean, abs=1e-6
    )
    path.write_text(path.read_text().replace('"rows"', '"rowz"'))
    assert "was deleted" in calibrate("--forget", "all", "--dir", where)["done"][0]
    assert used() == shipped().calibrator_id  # the campaign went back too


def test_a_screen_says_probabilities_and_learns_from_dft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HULLWARD_HOME", str(tmp_path / "home"))
    screen_two_salts(tmp_path)
    cli, where = CliRunner(), str(tmp_path / "s")
    with open_snapshot(tmp_path / "s") as connection:
        rows = connection.execute(
            """SELECT candidate_id, p_below_50mev, p_below_50mev_low, p_below_50mev_high,
               p_below_100mev, calibrator_id FROM results WHERE state = 'judged'"""
        ).fetchall()
        read = connection.execute(
            """SELECT second_energy_by, second_energy_higher_ev_per_atom FROM results
               WHERE state = 'judged'"""
        ).fetchall()
        maybe = connection.execute(
            "SELECT formula, bare_namesakes > 0, standing FROM results ORDER BY formula DESC"
        ).fetchall()
    assert maybe == [  # both are lines of the hull, without structures; the index has these
        ("LiF", False, "known structure"),
        ("Li2O2", False, "known structure"),
    ]
    assert len(rows) == 2
    assert [name for name, _ in read] == [SECOND, SECOND]
    assert all(abs(higher) < 0.5 for _, higher in read)
    for _, p50, low, high, p100, calibrator_id in rows:
        assert 0 <= low <= p50 <= high <= 1
        assert p50 <= p100 <= 1
        assert calibrator_id == shipped().calibrator_id
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "Probability that DFT agrees" in page
    assert "predicted 0." in page  # the curve

    results = tmp_path / "dft.csv"
    ids = [row[0] for row in rows]
    pd.DataFrame(
        {"candidate_id": [*ids, "c-none"], "dft_e_above_hull_ev_per_atom": [2.0, 1.8, 0.0]}
    ).to_csv(results, index=False)
    learnt = cli.invoke(app, ["calibrate", str(results), "--dir", where, "--json"])
    assert learnt.exit_code == 0, learnt.output
    document = json.loads(learnt.stdout)
    assert document["used"] == 2
    assert list(document["left_out"]) == ["c-none"]
    own = read_calibrator(Path(document["calibrator"]))
    assert own.rows == shipped().rows + 2
    with open_snapshot(tmp_path / "s") as connection:
        now = connection.execute(
            "SELECT DISTINCT calibrator_id FROM results WHERE state = 'judged'"
        ).fetchall()
    assert now == [(own.calibrator_id,)]
    again = cli.invoke(app, ["calibrate", str(results), "--dir", where])
    assert isinstance(again.exception, InputError)
    assert "seen already" in str(again.exception)  # nothing counts twice
    _correct_and_forget(tmp_path, ids)
    with Store.open(tmp_path / "s", command="test") as store:
        (basis,) = store.load(Basis)
        lowest_first = store.rows(
            """SELECT candidate_id, relaxation_id FROM results
               WHERE state = 'judged' AND NOT suspect
               ORDER BY e_above_reference_ev_per_atom"""
        )
        assert len(lowest_first) == 2
        store.add(
            StabilityProbability(
                relaxation_id=row["relaxation_id"],
                reference_id=basis.reference_id,
                reference_version=basis.reference_version,
                calibrator_id="cal-0",
                p_below_50mev=(0.3, 0.7)[place],
            )
            for place, row in enumerate(lowest_first)
        )
        parents = read_outcomes(store, LAG_CYCLES).parents
    # The planner's parents: the likelier one first, though it lies higher.
    assert [p.candidate_id for p in parents] == [r["candidate_id"] for r in lowest_first[::-1]]


def test_a_table_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"cif": ["x"], "generator": ["a"]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="DFT height above the hull"):
        read_dft_table(path)
    pd.DataFrame({"cif": ["x"], "e_above_hull_dft": [0.1]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="the generator of each row"):
        read_dft_table(path)
    with pytest.raises(InputError, match="no table"):
        read_dft_table(tmp_path / "t.txt")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="is no calibrator"):
        read_calibrator(tmp_path / "bad.json")


def test_a_damaged_calibrator_is_refused(tmp_path: Path) -> None:
    whole = sealed(shipped().model_dump_json()).encode()
    path = tmp_path / "own.json"
    path.write_bytes(whole)
    assert read_calibrator(path) == shipped()
    for place in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"is damaged|is no calibrator"):
            read_calibrator(path)


def test_evaluate_calibration_shows_what_is_shipped(tmp_path: Path) -> None:
    figure = tmp_path / "curve.svg"
    answer = CliRunner().invoke(app, ["evaluate", "calibration", "--figure", str(figure)])
    assert answer.exit_code == 0, answer.output
    assert "Brier skill" in answer.stdout
    assert "without Ion-Exchange" in answer.stdout
    assert figure.read_text().startswith("<svg")


@pytest.mark.slow
def test_the_targets_hold_on_the_real_data(shared_data: Path) -> None:
    rows = read_dft_table(shared_data / "known" / "generated_dft_decomposition.parquet")
    hull = shared_data / "hull" / "mp2020_whole_database_hull.parquet"
    reference = load_reference(f"file:{hull}", None)
    found, lost = outcomes(rows, "chgnet-0.3.0", Protocol(), reference, Executor(), reading=SECOND)
    assert len(found) + sum(lost.values()) == len(rows)
    bounds(checks_of(*left_out_fits(found)))


def test_the_chance_of_a_t_is_the_cdf_where_parameters_are_certain() -> None:
    from scipy.stats import t

    mean = np.array([0.1, np.log(0.05)])
    certain = model.Posterior(mean, np.eye(2) * 1e30)
    one = np.ones((1, 1))
    p, low, high = model.probabilities(certain, one, one, np.array([0.02]), 0.1)
    assert p[0] == pytest.approx(t.cdf((0.1 - 0.12) / 0.05, 4))
    assert low[0] == pytest.approx(p[0])
    assert high[0] == pytest.approx(p[0])
