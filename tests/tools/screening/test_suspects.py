"""Suspects with their reasons, and the audit against what a model has learnt from."""

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.records import (
    Basis,
    CampaignRecord,
    Candidate,
    Explanation,
    Proposal,
    Protocol,
    Reason,
    Relaxation,
    Suspect,
    Suspicion,
    TrainingOverlap,
    Verdict,
)
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor
from hullward.tools.screening import (
    FORMULAS,
    IDS,
    Limits,
    Screen,
    audit,
    digest,
    judge_proposals,
    judge_union,
    store_suspects,
    suspects,
)
from hullward.tools.store import Store

PROTOCOL = Protocol()


def salt(a=2.6):
    return Crystal.from_parameters((a,) * 3, (90,) * 3, ["Li", "O"], [[0] * 3, [0.5] * 3])


def candidate(n, crystal):
    return Candidate(
        proposal_id=f"q-{n}", candidate_id=f"c-{n}", crystal=crystal, formula=crystal.formula,
        chemsys=crystal.chemsys, n_atoms=2, volume_per_atom_a3=crystal.volume_per_atom_a3,
        min_distance_a=2.0, space_group=221, charge_balanced=None, charge_note="",
    )  # fmt: skip


def proposal(n, model=None):
    return Proposal(
        proposal_id=f"q-{n}", request_id="r", campaign_id="k", cycle=0, index=n, seed=0,
        operator="external", model=model, raw="", format="crystal_text",
    )  # fmt: skip


def relaxation(n, crystal, start, end, *, converged, protocol=PROTOCOL, failure=None):
    card = potential_card("toy")
    return Relaxation(
        relaxation_id=Relaxation.make_id(f"c-{n}", card.weights_sha256, protocol),
        candidate_id=f"c-{n}", potential="toy", potential_sha256=card.weights_sha256,
        energy_scheme="toy", protocol=protocol, converged=converged, failure=failure,
        energy_ev_per_atom=end, initial_energy_ev_per_atom=start, residual_force_ev_per_a=0.4,
        residual_stress_gpa=0.1, steps=500, force_calls=500, cpu_s=0.0, crystal=crystal,
        volume_per_atom_a3=crystal.volume_per_atom_a3, volume_ratio=1.0, space_group_loose=221,
        space_group_tight=221,
    )  # fmt: skip


@pytest.fixture
def screen(tmp_path, toy_reference):
    reference = load_reference(f"file:{toy_reference}")
    basis = Basis(
        campaign_id="k", potential="toy", potential_sha256=potential_card("toy").weights_sha256,
        energy_scheme="toy", protocol=PROTOCOL, reference_spec="", metastable_ev_per_atom=0.1,
        reference_id=reference.reference_id, reference_version=reference.version,
        reference_kind="file", reference_statement="",
    )  # fmt: skip
    with Store.open(tmp_path / "s", command="test", create=True) as opened:
        record = {"campaign_id": "k", "kind": "screen", "name": "s", "seed": 0}
        opened.add([CampaignRecord(**record, settings={}, versions={}), basis])
        yield Screen(
            store=opened,
            basis=basis,
            card=potential_card("toy"),
            reference=reference,
            limits=Limits(),
        )


def fill(opened, rows):
    for n, (crystal, done, model) in enumerate(rows):
        opened.add([proposal(n, model), candidate(n, crystal)])
        if done is not None:
            opened.add([done])


def test_what_fell_without_converging_is_relaxed_again_and_stored(screen, monkeypatch):
    opened, reference = screen.store, screen.reference
    hull = reference.hull("Li-O").distance({"Li": 1.0, "O": 1.0}, 0.0)
    there = -hull.e_above_hull_ev_per_atom  # the hull's energy
    known = reference.library_entries("Li-O")[-1][1].volume_per_atom_a3
    good, broad = salt((2 * known) ** (1 / 3)), salt((2 * known * 4) ** (1 / 3))
    stalled = {"failure": Reason.STALLED}
    fill(opened, [
        (good, relaxation(0, good, there + 0.5, there + 0.2, converged=False, **stalled), None),
        (good, relaxation(1, good, there + 0.25, there + 0.2, converged=False), None),  # a little
        (good, relaxation(2, good, there + 0.5, there - 0.3, converged=True), None),  # far below
        (broad, relaxation(3, broad, there + 0.5, there + 0.2, converged=True), None),  # odd volume
        (good, relaxation(4, good, there + 0.5, there + 0.2, converged=True), None),  # nothing odd
        (good, relaxation(5, good, there + 9, there, converged=False, failure=Reason.CLASH), None),
    ])  # fmt: skip
    asked = []

    def relax(self, jobs, potential, protocol, stopping):
        assert protocol == suspects.rattled_protocol(PROTOCOL)
        for candidate_id, crystal in jobs:
            asked.append(candidate_id)
            n = int(candidate_id[2:])
            yield relaxation(n, crystal, 0.0, there + 0.2, converged=True, protocol=protocol)

    monkeypatch.setattr(Executor, "relax", relax)
    store_suspects(screen)
    found = {d.candidate_id: d for d in opened.load(Suspect)}
    assert set(found) == {"c-0", "c-2", "c-3"}
    assert asked == ["c-0"]  # verdicts see to those that converged
    assert found["c-0"].suspicions == (Suspicion.DROP_WITHOUT_CONVERGENCE,)
    assert found["c-0"].second_look == "reproduced"
    assert found["c-0"].reasons == (
        "fell by 0.30 eV/atom (over 0.1) in 500 steps and did not converge, "
        "forces up to 0.40 eV/Å left",
    )
    assert found["c-2"].reasons[0].startswith("−0.300 eV/atom from the hull, below −0.15")
    assert "4.00 times that of the phases it would decompose into" in found["c-3"].reasons[0]
    monkeypatch.setattr(Executor, "relax", lambda *_: pytest.fail("again"))
    store_suspects(screen)
    assert {d.candidate_id: d for d in opened.load(Suspect)} == found
    (row,) = opened.rows(
        "SELECT state, suspect, suspect_because FROM results WHERE candidate_id = 'c-0'"
    )
    assert (row["state"], row["suspect"]) == ("unconverged", True)
    assert row["suspect_because"] == list(found["c-0"].reasons)
    opened.publish()


def test_second_relaxations_that_fail_in_a_row_stop_nothing(screen, monkeypatch):
    """Only first relaxations trip the breaker: suspects that never converged often fail again."""
    known = screen.reference.library_entries("Li-O")[-1][1].volume_per_atom_a3
    crystal = salt((2 * known) ** (1 / 3))
    most = screen.breaker_failures
    stalled = {"converged": False, "failure": Reason.STALLED}
    fill(screen.store, [
        (crystal, relaxation(n, crystal, 9.0, 8.0, **stalled), None) for n in range(most + 2)
    ])  # fmt: skip

    def relax(self, jobs, potential, protocol, stopping):
        for candidate_id, structure in jobs:
            n = int(candidate_id[2:])
            yield relaxation(n, structure, 9.0, 8.0, protocol=protocol, **stalled)

    monkeypatch.setattr(Executor, "relax", relax)
    store_suspects(screen)
    assert len(screen.store.load(Suspect)) == most + 2


def test_the_unconverged_neither_support_the_hull_nor_get_a_verdict(screen):
    opened, reference = screen.store, screen.reference
    hull = reference.hull("Li-O").distance({"Li": 1.0, "O": 1.0}, 0.0)
    there = -hull.e_above_hull_ev_per_atom  # the hull's energy
    good = salt((2 * reference.library_entries("Li-O")[-1][1].volume_per_atom_a3) ** (1 / 3))
    above = relaxation(1, good, there + 0.01, there + 0.01, converged=True)
    fill(opened, [
        (good, relaxation(0, good, there, there - 0.1, converged=False), None),
        (good, above, None),
    ])  # fmt: skip
    judge_proposals(screen, opened.load(Proposal))
    judge_union(screen)
    verdicts = opened.load(Verdict)
    assert {v.relaxation_id for v in verdicts} == {above.relaxation_id}
    heights = {v.height: v.e_above_hull_ev_per_atom for v in verdicts}
    assert heights == {"reference": pytest.approx(0.01), "union": pytest.approx(0.01)}


def learnt(folder, ids, formulas):
    folder.mkdir()
    for name, words in ((IDS, ids), (FORMULAS, formulas)):
        np.save(folder / name, np.array(sorted(map(digest, words)), dtype=np.uint64))
    return folder


def explanation(n, kind, match):
    return Explanation(
        candidate_id=f"c-{n}", moment="before", kind=kind, match_id=match, match_formula="NaCl",
        exchanged=(), inverse=False, rms_a=None, against="", against_id="", words="", disorder="",
    )  # fmt: skip


def test_the_audit_asks_for_the_formula_and_for_the_parent(screen, tmp_path):
    opened = screen.store
    nano = learnt(tmp_path / "nano", ["mp-1", "mp-2"], ["Li2O2"])
    models = [str(nano), str(nano), str(nano), "llamat-2-cif", None]
    fill(opened, [(salt(2.6 + n / 10), None, model) for n, model in enumerate(models)])
    other = Crystal.from_parameters((3,) * 3, (90,) * 3, ["Na", "O"], [[0] * 3, [0.5] * 3])
    opened.add([proposal(9, str(nano)), candidate(9, other)])
    opened.add([explanation(0, "substitution", "mp-1#7"), explanation(1, "new_prototype", None)])
    opened.add([explanation(9, "substitution", "mp-9"), explanation(2, "duplicate", "c-0")])
    audit(opened, lambda name: nano if name == str(nano) else None)
    found = {o.candidate_id: o for o in opened.load(TrainingOverlap)}
    assert set(found) == {"c-0", "c-1", "c-2", "c-3", "c-9"}  # nobody says what proposed c-4
    assert (found["c-0"].formula_seen, found["c-0"].match_seen) == (True, True)
    assert found["c-0"].words == (
        "its formula and its parent mp-1 were in the training data of nano"
    )
    assert (found["c-1"].formula_seen, found["c-1"].match_seen) == (True, None)
    assert found["c-2"].match_id is None  # an earlier candidate is no material
    assert (found["c-9"].formula_seen, found["c-9"].match_seen) == (False, False)
    assert found["c-9"].words == (
        "neither its formula nor its parent mp-9 was in the training data of nano"
    )
    assert found["c-3"].formula_seen is None
    assert found["c-3"].words == ("unknown training data: those of llamat-2-cif are not listed")
    audit(opened, lambda name: None, "some-file-model")
    assert opened.load(TrainingOverlap, ["c-4"])[0].words.startswith("unknown training data")
    opened.publish()
    row = opened.rows("SELECT training, formula_seen FROM results WHERE candidate_id = 'c-4'")
    assert row == [
        {"training": opened.load(TrainingOverlap, ["c-4"])[0].words, "formula_seen": None}
    ]


def test_the_audit_command_says_when_no_model_is_named(screen, tmp_path):
    from typer.testing import CliRunner

    from hullward.agents.cli.app import app

    done = CliRunner().invoke(app, ["audit", str(tmp_path / "nowhere"), "--json"])
    assert done.exit_code != 0
    help_text = CliRunner().invoke(app, ["audit", "--help"]).stdout
    assert "training data" in help_text
