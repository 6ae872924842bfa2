"""Relaxed cells are a higher space group where it costs no energy, and are exported as it."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import spglib

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential, potential_card
from hullward.tools.crystal import space_group, symmetrised
from hullward.tools.crystal.symmetry import plain_cell
from hullward.tools.records import (
    Basis,
    CampaignRecord,
    Candidate,
    Explanation,
    Proposal,
    Protocol,
    Reason,
    Relaxation,
    SymmetrisedCell,
    Verdict,
)
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor
from hullward.tools.relax.stream import relax_one
from hullward.tools.report import export_structures, write_report
from hullward.tools.screening import Limits, Screen
from hullward.tools.screening.shortlist import MOST_EV_PER_ATOM, symmetrise_candidates
from hullward.tools.store import Store, open_snapshot

PROTOCOL = Protocol(fmax_ev_per_a=0.2)  # ends near a symmetry, not on it
TOY = load_potential("toy")
ROCKSALT = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0),
            (0.5, 0.5, 0.5), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]  # fmt: skip
LIMITS = Limits(min_distance_factor=0.2, max_packing=5, min_volume_per_atom_a3=1)


def rock_salt(metal="Mn", a=3.613):
    """The toy potential's rock salt, at its minimum for MnO."""
    return Crystal.from_parameters((a,) * 3, (90,) * 3, [metal] * 4 + ["O"] * 4, ROCKSALT)


def rattled(crystal, amplitude_a, seed=1):
    rng = np.random.default_rng(seed)
    lattice = np.array(crystal.lattice) + rng.normal(0, amplitude_a / 3, (3, 3))
    moves = rng.normal(0, amplitude_a, (crystal.n_atoms, 3)) @ np.linalg.inv(lattice)
    return Crystal.from_arrays(lattice, crystal.species, np.array(crystal.frac_coords) + moves)


def supercell(crystal, *factors):
    structure = crystal.to_structure()
    structure.make_supercell(factors)
    return Crystal.from_structure(structure)


def energy_of(crystal):
    return relax_one("e", crystal, TOY, Protocol(max_steps=0)).energy_ev_per_atom


def relaxed(crystal, lower_ev_per_atom=0.0):
    """A relaxation by the toy potential, its energy perhaps lowered."""
    found = relax_one(crystal.content_id, crystal, TOY, PROTOCOL)
    assert found.converged
    return found.model_copy(
        update={"energy_ev_per_atom": found.energy_ev_per_atom - lower_ev_per_atom}
    )


def kept(crystal, energy_ev_per_atom):
    """A relaxation that ended at a crystal, with an energy."""
    return relaxed(rock_salt()).model_copy(
        update={
            "candidate_id": crystal.content_id,
            "relaxation_id": Relaxation.make_id(
                crystal.content_id, potential_card("toy").weights_sha256, PROTOCOL
            ),
            "crystal": crystal,
            "energy_ev_per_atom": energy_ev_per_atom,
            "space_group_loose": space_group(crystal, 0.1),
            "space_group_tight": space_group(crystal, 0.01),
        }
    )


@contextmanager
def opened_screen(directory, reference_path):
    """An empty screening of the toy potential's world, relaxing in this process."""
    reference = load_reference(f"file:{reference_path}")
    basis = Basis(
        campaign_id="k", potential="toy", potential_sha256=potential_card("toy").weights_sha256,
        energy_scheme="toy", protocol=PROTOCOL, reference_spec="", metastable_ev_per_atom=0.1,
        reference_id=reference.reference_id, reference_version=reference.version,
        reference_kind="file", reference_statement="",
    )  # fmt: skip
    with Store.open(directory, command="test", create=True) as opened:
        record = {"campaign_id": "k", "kind": "screen", "name": "s", "seed": 0}
        opened.add([CampaignRecord(**record, settings={}, versions={}), basis])
        yield Screen(
            store=opened,
            basis=basis,
            card=potential_card("toy"),
            reference=reference,
            limits=LIMITS,
            executor=Executor(workers=0),
        )


@pytest.fixture
def screen(tmp_path, toy_reference):
    with opened_screen(tmp_path / "s", toy_reference) as found:
        yield found


def fill(screen, *found, height=0.02, label="metastable", **changes):
    """Store relaxations as judged candidates that are like nothing known."""
    (count,) = screen.store.rows("SELECT count(*) AS n FROM proposals")
    for n, one in enumerate(found, count["n"]):
        crystal = one.crystal
        judged = {
            "relaxation_id": one.relaxation_id, "reference_id": screen.basis.reference_id,
            "reference_version": screen.basis.reference_version, "decomposition": (),
            "e_above_hull_ev_per_atom": height, "covered": True, "coverage_note": "",
            "label": label, "typical_error_ev_per_atom": 0.06, **changes,
        }  # fmt: skip
        screen.store.add([
            Proposal(proposal_id=f"q-{n}", request_id="q", campaign_id="k", cycle=0, index=n,
                     operator="external", seed=0, raw="{}", format="crystal_json"),
            Candidate(proposal_id=f"q-{n}", candidate_id=one.candidate_id, crystal=crystal,
                      formula=crystal.formula, chemsys=crystal.chemsys, n_atoms=crystal.n_atoms,
                      volume_per_atom_a3=crystal.volume_per_atom_a3, min_distance_a=2.0,
                      space_group=1, charge_balanced=None, charge_note=""),
            one,
            *(Verdict(**judged, height=kind) for kind in ("reference", "union")),
            Explanation(candidate_id=one.candidate_id, moment="after", kind="new_prototype",
                        match_id=None, match_formula=None, exchanged=(), inverse=False, rms_a=None,
                        against="", against_id="", words="", disorder="",
                        standing="new composition"),
        ])  # fmt: skip


def stored(screen):
    return {one.candidate_id: one for one in screen.store.load(SymmetrisedCell)}


def counted(monkeypatch, change=None):
    """The jobs of every call of the executor; change: energies by job that replace its own."""
    asked, relax = [], Executor.relax

    def spy(self, jobs, potential, protocol, stopping):
        jobs = list(jobs)
        asked.append([name for name, _ in jobs])
        for one in relax(self, jobs, potential, protocol, stopping):
            yield change(one) if change else one

    monkeypatch.setattr(Executor, "relax", spy)
    return asked


def group_in_spglib(crystal):
    return spglib.get_symmetry_dataset(plain_cell(crystal), symprec=1e-3).number


# ---- cells ----


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 1, 1), ([1, 1, 0], [0, 1, 0], [0, 0, 1])])
@pytest.mark.parametrize("amplitude_a", [0.0, 0.003, 0.015])
def test_a_symmetrised_cell_keeps_lattice_and_order_and_is_exact(factors, amplitude_a):
    for start in (rock_salt(), Crystal.from_structure(rock_salt().to_structure()
                                                      .get_primitive_structure())):  # fmt: skip
        one = rattled(supercell(start, *factors), amplitude_a)
        made = symmetrised(one, 0.1)
        assert made.space_group == group_in_spglib(made.crystal) == 225
        assert made.crystal.species == one.species
        assert np.allclose(made.crystal.lattice, one.lattice, atol=0.05)
        apart = np.array(made.crystal.frac_coords) - np.array(one.frac_coords)
        apart -= np.round(apart)
        moves = np.linalg.norm(apart @ np.array(one.lattice), axis=1)
        assert moves.max() == pytest.approx(made.max_displacement_a, abs=1e-3 + amplitude_a)
        assert made.max_displacement_a <= 0.1
        # rock salt has 192 operations in a cell of eight atoms
        assert made.order == 24 * one.n_atoms


def test_a_cell_without_symmetry_is_not_symmetrised():
    assert symmetrised(rattled(rock_salt(), 0.3), 0.1) is None


# ---- acceptance ----


def test_a_rattled_cubic_cell_is_cubic_at_equal_energy(screen, monkeypatch):
    asked = counted(monkeypatch)
    cells = [relaxed(rattled(supercell(rock_salt(), *n), 0.02)) for n in ((1, 1, 1), (2, 1, 1))]
    assert {one.space_group_tight for one in cells} == {1}
    fill(screen, *cells)
    symmetrise_candidates(screen)
    assert len(asked) == 1  # the energies of all in one call
    for one in cells:
        found = stored(screen)[one.candidate_id]
        assert (found.accepted, found.space_group, found.tolerance_a) == (True, 225, 0.1)
        assert found.reason == ""
        assert found.energy_ev_per_atom == pytest.approx(energy_of(found.crystal))
        assert found.higher_ev_per_atom == pytest.approx(
            found.energy_ev_per_atom - one.energy_ev_per_atom
        )
        assert abs(found.higher_ev_per_atom) < MOST_EV_PER_ATOM
        assert 0 < found.max_displacement_a < 0.1
        assert found.force_calls >= 1
    row = screen.store.rows("SELECT * FROM results ORDER BY n_atoms")[0]
    assert (row["space_group_tight"], row["space_group"]) == (1, 225)
    assert (row["symmetrised_within_a"], row["not_symmetrised"]) == (0.1, None)


@pytest.mark.parametrize(("by", "side"), [(0.005, "above"), (-0.005, "below")])
def test_a_cell_whose_symmetrisation_changes_the_energy_stays(screen, by, side):
    one = relaxed(rattled(rock_salt(), 0.02), lower_ev_per_atom=by)
    fill(screen, one)
    symmetrise_candidates(screen)
    (found,) = stored(screen).values()
    assert not found.accepted
    assert found.reason.startswith("Fm-3m is ")
    assert found.reason.endswith(f"meV/atom {side}, more than 2")
    (row,) = screen.store.rows("SELECT * FROM results")
    assert (row["space_group"], row["symmetrised_within_a"]) == (1, None)
    assert row["not_symmetrised"] == found.reason


def tetragonal():
    """A rattled P4/mmm cell that within 0.1 Å is Fm-3m."""
    stretched = np.array(rock_salt().lattice) @ np.diag([1, 1, 1.015])
    return rattled(Crystal.from_arrays(stretched, rock_salt().species, ROCKSALT), 0.004)


def test_the_highest_group_at_equal_energy_is_taken(screen, monkeypatch):
    one = tetragonal()
    groups = {symmetrised(one, tolerance).space_group for tolerance in (0.1, 0.05, 0.02)}
    assert groups == {225, 139}
    at = energy_of(one)
    fill(screen, kept(one, at))

    def raised(done):
        cubic = space_group(done.crystal, 1e-3) == 225
        return done.model_copy(update={"energy_ev_per_atom": at + (0.0021 if cubic else 0.0019)})

    asked = counted(monkeypatch, raised)
    symmetrise_candidates(screen)
    (found,) = stored(screen).values()
    assert (found.accepted, found.space_group) == (True, 139)
    assert found.tolerance_a < 0.1
    assert found.higher_ev_per_atom == pytest.approx(0.0019)
    assert len(asked) == 1
    assert found.force_calls == 2


def test_only_what_may_be_listed_is_computed(screen, monkeypatch):
    asked = counted(monkeypatch)
    one = relaxed(rattled(rock_salt(), 0.02))
    same = relaxed(rock_salt("Li", 3.7))  # one group at either tolerance
    assert same.space_group_loose == same.space_group_tight
    fill(screen, relaxed(rattled(rock_salt(), 0.02, 2)), label="unstable", height=0.4)
    fill(screen, relaxed(rattled(rock_salt(), 0.02, 3)), covered=False, label="below_reference")
    fill(screen, relaxed(rattled(rock_salt(), 0.02, 4)), rediscovered="toy-MnO")
    suspect = relaxed(rattled(rock_salt(), 0.02, 5))  # a second opinion may confirm it
    fill(screen, suspect, suspicions=("odd_volume",), second_look="pending")
    fill(screen, same, one)
    symmetrise_candidates(screen)
    assert set(stored(screen)) == {one.candidate_id, suspect.candidate_id}
    assert len(asked[0]) == 2


def test_nothing_is_computed_twice_and_what_is_missing_is_found(screen, monkeypatch):
    """A campaign of an earlier version has no such records: the next call makes them."""
    cells = [relaxed(rattled(rock_salt(), 0.02, seed)) for seed in (1, 2)]
    fill(screen, cells[0])
    symmetrise_candidates(screen)
    first = stored(screen)
    asked = counted(monkeypatch)
    symmetrise_candidates(screen)
    assert (asked, stored(screen)) == ([], first)
    fill(screen, cells[1])
    symmetrise_candidates(screen)
    assert len(asked) == 1
    assert {name.split()[0] for name in asked[0]} == {cells[1].relaxation_id}
    assert stored(screen)[cells[0].candidate_id] == first[cells[0].candidate_id]
    journal = (screen.store.directory / "journal.jsonl").read_bytes()
    symmetrise_candidates(screen)
    assert (screen.store.directory / "journal.jsonl").read_bytes() == journal


def test_what_stopping_leaves_out_is_done_later(screen, monkeypatch):
    fill(screen, relaxed(rattled(rock_salt(), 0.02)))
    with monkeypatch.context() as patch:
        patch.setattr(Executor, "relax", lambda *_: iter(()))
        symmetrise_candidates(screen)
    assert stored(screen) == {}
    screen.tried.clear()
    symmetrise_candidates(screen)
    (found,) = stored(screen).values()
    assert found.accepted


def test_an_energy_that_cannot_be_computed_is_said_and_tried_again_in_another_run(
    screen, monkeypatch
):
    fill(screen, relaxed(rattled(rock_salt(), 0.02)))

    def lost(done):
        nothing = {"energy_ev_per_atom": None, "force_calls": 0}
        words = {"failure": Reason.WORKER_DIED, "detail": "two workers ended"}
        return done.model_copy(update=nothing | words)

    with monkeypatch.context() as patch:
        asked = counted(patch, lost)
        for _ in range(2):
            symmetrise_candidates(screen)
        assert len(asked) == 1
    (found,) = stored(screen).values()
    assert not found.accepted
    assert found.energy_ev_per_atom is None
    assert found.reason == "its energy could not be computed: two workers ended"
    screen.tried.clear()
    symmetrise_candidates(screen)
    (found,) = stored(screen).values()
    assert found.accepted


def test_what_is_too_close_when_symmetrised_is_refused_with_the_reason(screen):
    one = relaxed(rattled(rock_salt(), 0.02))
    fill(screen, one)
    symmetrise_candidates(replace(screen, limits=Limits(min_distance_factor=3)))
    (found,) = stored(screen).values()
    assert not found.accepted
    assert found.crystal is None
    assert "Fm-3m within 0.1 Å" in found.reason


# ---- exports and report ----


@pytest.fixture(scope="module")
def published(tmp_path_factory, toy_reference):
    """A campaign with one accepted and one refused cell; tests only read it."""
    directory = tmp_path_factory.mktemp("published") / "s"
    yes = relaxed(rattled(rock_salt(), 0.02))
    no = relaxed(rattled(rock_salt("Li", 3.7), 0.02), lower_ev_per_atom=0.01)
    assert no.space_group_tight != no.space_group_loose
    with opened_screen(directory, toy_reference) as screen:
        fill(screen, yes)
        fill(screen, no, height=0.03)
        symmetrise_candidates(screen)
        screen.store.publish()
        accepted, refused = (stored(screen)[one.candidate_id] for one in (yes, no))
    assert (accepted.accepted, refused.accepted) == (True, False)
    return directory, yes, accepted, no


def notes_of(path):
    lines = path.read_text().splitlines()
    return dict(line[2:].split(": ", 1) for line in lines if line[:2] == "# " and ": " in line)


def test_a_cif_is_that_of_the_symmetrised_cell_with_both_energies(published, tmp_path):
    from pymatgen.core import Structure

    directory, one, accepted, other = published
    path, refused = export_structures(directory, tmp_path)
    assert "_MnO_Fm-3m_" in path.name
    read = Crystal.from_structure(Structure.from_file(path))
    assert group_in_spglib(read) == 225
    assert read.volume_per_atom_a3 == pytest.approx(accepted.crystal.volume_per_atom_a3, rel=1e-6)
    said = notes_of(path)
    assert float(said["energy_ev_per_atom"]) == pytest.approx(accepted.energy_ev_per_atom, abs=1e-6)
    assert float(said["relaxed_energy_ev_per_atom"]) == pytest.approx(
        one.energy_ev_per_atom, abs=1e-6
    )
    assert float(said["symmetrised_within_a"]) == 0.1
    assert float(said["symmetrised_higher_ev_per_atom"]) == pytest.approx(
        accepted.higher_ev_per_atom, abs=1e-6
    )
    assert said["relaxed_space_group"] == "P1"
    assert said["heights_and_convergence"] == "of the cell as relaxed"
    said = notes_of(refused)
    assert "symmetrised_within_a" not in said
    assert float(said["energy_ev_per_atom"]) == pytest.approx(other.energy_ev_per_atom, abs=1e-6)


@pytest.mark.parametrize("symmetrise", [True, False])
def test_every_format_holds_one_cell_with_its_own_energy(published, tmp_path, symmetrise):
    from ase.io import read
    from pymatgen.core import Structure

    directory, one, accepted, _ = published
    wanted = accepted if symmetrise else one
    made = {
        form: export_structures(directory, tmp_path / form, format=form, symmetrise=symmetrise)[0]
        for form in ("cif", "poscar", "extxyz")
    }
    for form in ("cif", "poscar"):
        crystal = Crystal.from_structure(Structure.from_file(made[form]))
        assert (group_in_spglib(crystal) == 225) == symmetrise
        assert crystal.volume_per_atom_a3 == pytest.approx(wanted.crystal.volume_per_atom_a3)
    assert ("symmetrised_within_a=0.1" in made["poscar"].read_text()) == symmetrise
    frame = read(made["extxyz"], index=0)
    energy = frame.get_potential_energy() / len(frame)
    assert energy == pytest.approx(wanted.energy_ev_per_atom)
    assert energy == pytest.approx(energy_of(Crystal.from_ase(frame)), abs=1e-6)
    assert ("relaxed_energy_ev_per_atom" in frame.info) == symmetrise


def test_a_report_shows_the_accepted_group_and_what_it_rests_on(published):
    directory, one, accepted, other = published
    paths = write_report(directory)
    report = json.loads(paths.json.read_text())
    first, second = report["short_list"]["entries"]
    assert first["space_group"] == "Fm-3m (225)"
    assert first["symmetry"] == (
        f"P1 (1) as relaxed at 0.01 Å; Fm-3m (225) within 0.1 Å at "
        f"{1000 * accepted.higher_ev_per_atom:+.1f} meV/atom".replace("-0.", "−0.")
    )
    assert first["energy_ev_per_atom"] == one.energy_ev_per_atom  # heights rest on it
    assert Crystal.model_validate(first["crystal"]) == accepted.crystal
    assert "Fm-3m" in first["cif"]
    assert second["space_group"] == "P1 (1)"
    assert "not accepted: Fm-3m is " in second["symmetry"]
    assert first["symmetry"] in paths.html.read_text()
    assert "P1 (1) as relaxed at 0.01 Å; Fm-3m (225) within 0.1 Å" in paths.markdown.read_text()
    cost = report["cost"]
    assert cost["relaxations"] == 2
    calls = sum(cell.force_calls for cell in (one, accepted, other)) + 1
    assert cost["force_calls"] == calls


def test_a_snapshot_of_an_earlier_version_shows_the_groups_as_relaxed(screen, tmp_path):
    one = relaxed(rattled(rock_salt(), 0.02))
    fill(screen, one)
    screen.store.publish()
    directory = shutil.copytree(screen.store.directory, tmp_path / "earlier")
    with open_snapshot(directory) as connection:
        found = connection.sql("SELECT space_group, symmetrised_within_a FROM results").fetchall()
    assert found == [(1, None)]
    entry = json.loads(write_report(directory).json.read_text())["short_list"]["entries"][0]
    assert entry["space_group"] == "Fm-3m (225) at 0.1 Å"
    assert entry["symmetry"].endswith("energies not compared")
    (path,) = export_structures(directory, tmp_path / "out")
    assert "_MnO_P1_" in path.name
