"""Perturbations that are their parent again, and who represents candidates of one structure."""

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.hull import Coverage, Phase, Reference
from hullward.tools.records import (
    Basis,
    Candidate,
    Label,
    Proposal,
    Protocol,
    Relaxation,
    Suspicion,
    Verdict,
)
from hullward.tools.screening import (
    Limits,
    RelaxedSeed,
    Screen,
    explain_all,
    judge_proposals,
    judge_union,
)
from hullward.tools.store import Store

PROTOCOL = Protocol()
SALT = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
HULL = -2.0  # eV/atom, of LiF


def rock_salt(a=4.1):
    sites = [*SALT, *((x + 0.5, y, z) for x, y, z in SALT)]
    return Crystal.from_arrays(np.eye(3) * a, ["Li"] * 4 + ["F"] * 4, sites)


def caesium_chloride(a=2.56):
    return Crystal.from_arrays(np.eye(3) * a, ["Li", "F"], [(0, 0, 0), (0.5, 0.5, 0.5)])


def irregular(seed, volume=16.0):
    """A cell of 8 sites that no other one matches."""
    sites = np.random.default_rng(seed).random((8, 3))
    return Crystal.from_arrays(np.eye(3) * volume ** (1 / 3), ["Li"] * 4 + ["F"] * 4, sites)


class Phases:
    elements = frozenset({"Li", "F"})

    def within(self, elements):
        levels = [
            ("Li", "Li", {"Li": 1.0}, 0.0, None),
            ("F", "F", {"F": 1.0}, 0.0, None),
            ("LiF#1", "LiF", {"Li": 1.0, "F": 1.0}, HULL, rock_salt()),
        ]
        return [
            Phase(phase_id=i, formula=f, composition=c, energy_ev_per_atom=e, source="", crystal=x)
            for i, f, c, e, x in levels
            if c.keys() <= elements
        ]

    def coverage(self, composition, phases):
        return Coverage(True, "test")


REFERENCE = Reference(
    reference_id="test", version="1", kind="embedded", energy_scheme="toy", statement="",
    source=Phases(), potential_sha256="w",
)  # fmt: skip
BASIS = Basis(
    campaign_id="k", potential="toy", potential_sha256="w", energy_scheme="toy",
    protocol=PROTOCOL, reference_spec="", metastable_ev_per_atom=0.1, reference_id="test",
    reference_version="1", reference_kind="embedded", reference_statement="",
)  # fmt: skip


@pytest.fixture
def screen(tmp_path):
    with Store.open(tmp_path / "s", command="test", create=True) as store:
        store.add([BASIS])
        yield Screen(
            store=store, basis=BASIS, card=potential_card("toy"), reference=REFERENCE,
            limits=Limits(), seeds={"c-seed": RelaxedSeed(HULL + 0.06, 2.0)},
        )  # fmt: skip


def judge(screen, number, crystal, above, *, operator="external", parents=()):
    """Propose, relax and judge one candidate, so far above the reference's hull."""
    proposal = Proposal(
        proposal_id=f"x-{number:03}", request_id=f"q-{number:03}", campaign_id="k", cycle=number,
        index=0, operator=operator, parents=parents, seed=0, raw="", format="cif",
    )  # fmt: skip
    candidate = Candidate(
        proposal_id=proposal.proposal_id, candidate_id=f"c-{number:03}", crystal=crystal,
        formula=crystal.formula, chemsys=crystal.chemsys, n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3, min_distance_a=2.0, space_group=1,
        charge_balanced=None, charge_note="",
    )  # fmt: skip
    relaxation = Relaxation(
        relaxation_id=Relaxation.make_id(candidate.candidate_id, "w", PROTOCOL),
        candidate_id=candidate.candidate_id, potential="toy", potential_sha256="w",
        energy_scheme="toy", protocol=PROTOCOL, converged=True, energy_ev_per_atom=HULL + above,
        initial_energy_ev_per_atom=HULL + above, residual_force_ev_per_a=0.0,
        residual_stress_gpa=0.0, steps=1, force_calls=1, cpu_s=0.0, crystal=crystal,
        volume_per_atom_a3=crystal.volume_per_atom_a3, volume_ratio=1.0, space_group_loose=1,
        space_group_tight=1,
    )  # fmt: skip
    screen.store.add([proposal, candidate, relaxation])
    judge_proposals(screen, [proposal])
    judge_union(screen)
    return candidate.candidate_id


def results(screen):
    rows = screen.store.rows("SELECT * FROM results ORDER BY proposal_id")
    return {row["candidate_id"]: row for row in rows}


@pytest.mark.parametrize(
    ("above", "volume", "operator", "is_parent"),
    [
        (0.0019, 8.6, "perturbation", True),
        (-0.0019, 8.6, "perturbation", True),
        (0.0021, 8.6, "perturbation", False),
        (0.0, 8.75, "perturbation", False),
        (0.0, 8.6, "swap", False),
    ],
)
def test_a_perturbation_that_ends_as_its_parent_is_that_phase(
    screen, above, volume, operator, is_parent
):
    crystal = irregular(1, 8 * volume)
    i = judge(screen, 0, crystal, above, operator=operator, parents=("LiF#1",))
    row = results(screen)[i]
    assert row["rediscovered"] == ("LiF#1" if is_parent else None)
    assert row["novel"] is not is_parent
    assert row["rewarded"] is (row["novel"] and row["metastable"] and not row["suspect"])


def test_energies_of_another_potential_do_not_identify_a_parent(screen):
    from dataclasses import replace

    other = replace(screen, reference=replace(REFERENCE, potential_sha256="other"))
    i = judge(other, 0, irregular(1, 8 * 8.6), 0.0, operator="perturbation", parents=("LiF#1",))
    assert results(screen)[i]["rediscovered"] is None


def test_a_perturbation_of_a_candidate_is_its_duplicate_and_of_a_seed_known(screen):
    parent = judge(screen, 0, irregular(1), 0.05)
    judge(screen, 1, irregular(2), 0.0515, operator="perturbation", parents=(parent,))
    judge(screen, 2, irregular(3), 0.053, operator="perturbation", parents=(parent,))
    judge(screen, 3, irregular(4), 0.0605, operator="perturbation", parents=("c-seed",))
    found = results(screen)
    twins = [found[f"c-00{n}"]["duplicate_after"] for n in range(4)]
    assert twins == [None, parent, None, None]
    assert found["c-003"]["rediscovered"] == "c-seed"
    assert [found[f"c-00{n}"]["novel"] for n in range(4)] == [True, False, True, False]
    (label,) = [x for x in screen.store.load(Label) if x.kind == "duplicate"]
    assert (label.match_id, label.rms_a) == (parent, None)


def test_the_lowest_in_energy_represents_its_group_whoever_came_first(screen):
    heights = [0.0300, 0.0295, 0.0310]
    for number, above in enumerate(heights):
        judge(screen, number, caesium_chloride(2.56 + 0.001 * number), above)
    explain_all(screen)
    found = results(screen)
    assert [found[f"c-00{n}"]["duplicate_after"] for n in range(3)] == ["c-001", None, "c-001"]
    assert [found[f"c-00{n}"]["novel"] for n in range(3)] == [False, True, False]
    # what a plan saw stays: the first was new when it was judged
    assert [found[f"c-00{n}"]["rewarded"] for n in range(3)] == [True, False, False]
    kinds = [found[f"c-00{n}"]["novelty_kind"] for n in range(3)]
    assert kinds[0] == kinds[2] == "duplicate"
    assert kinds[1] not in (None, "duplicate")
    assert found["c-000"]["novelty"] == "the same as candidate c-001"
    counts = screen.store.rows("SELECT metastable, novel_metastable FROM counts")
    assert counts == [{"metastable": 3, "novel_metastable": 1}]


def test_however_long_a_chain_of_labels_is_every_candidate_counts_once(screen):
    for number in range(5):
        judge(screen, number, irregular(number), 0.04 - 0.001 * number)
    screen.store.add(
        Label(
            proposal_id=f"x-00{n}", moment="after", kind="duplicate", match_id=f"c-00{n - 1}",
            rms_a=0.1,
        )
        for n in range(1, 5)
    )  # fmt: skip
    rows = screen.store.rows("SELECT candidate_id, duplicate_after FROM results ORDER BY 1")
    assert [row["candidate_id"] for row in rows] == [f"c-00{n}" for n in range(5)]
    assert [row["duplicate_after"] for row in rows] == ["c-004"] * 4 + [None]
    screen.store.publish()  # counts and compares


def test_a_suspect_and_what_is_known_do_not_give_way_to_the_lowest(screen):
    judge(screen, 0, caesium_chloride(), 0.03)
    judge(screen, 1, caesium_chloride(2.561), 0.02)
    (verdict,) = [
        v for v in screen.store.load(Verdict, [Relaxation.make_id("c-001", "w", PROTOCOL)])
        if v.height == "reference"
    ]  # fmt: skip
    odd = {"suspicions": (Suspicion.ODD_VOLUME,), "second_look": "reproduced"}
    screen.store.add([verdict.model_copy(update=odd)])
    judge_union(screen)
    assert results(screen)["c-001"]["duplicate_after"] == "c-000"
    known = verdict.model_copy(
        update={"relaxation_id": Relaxation.make_id("c-000", "w", PROTOCOL), "rediscovered": "ab"}
    )
    screen.store.add([known])
    judge_union(screen)
    found = results(screen)
    assert found["c-000"]["rediscovered"] == "ab"
    assert found["c-001"]["duplicate_after"] == "c-000"
    assert not found["c-001"]["novel"]


def test_what_lies_within_a_mev_of_the_hull_is_stable(screen):
    for number, above in enumerate((0.0009, 0.0012)):
        judge(screen, number, irregular(number, 8 * 8.6), above)
    found = results(screen)
    assert [found[f"c-00{n}"]["label"] for n in range(2)] == ["stable", "metastable"]
