"""Verdicts: what a height means, what is suspect, and whose energies support the union hull."""

import itertools

import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import potential_card
from hullward.tools.hull import MP2020, Coverage, Phase, Reference
from hullward.tools.records import (
    Basis,
    Candidate,
    Proposal,
    Protocol,
    Relaxation,
    Suspicion,
    Verdict,
    VerdictLabel,
)
from hullward.tools.screening import Limits, Screen, judge_union, suspicions
from hullward.tools.screening.verdicts import FAR_BELOW_EV_PER_ATOM, judge
from hullward.tools.store import Store

THRESHOLD = 0.1


def rock_salt(cation: str = "Li", a: float = 4.2) -> Crystal:
    """Four cations and four oxygens, a in Å."""
    fcc = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    anions = [(x + 0.5, y, z) for x, y, z in fcc]
    return Crystal.from_parameters((a, a, a), (90, 90, 90), [cation] * 4 + ["O"] * 4, fcc + anions)


class Phases:
    """A reference in memory: Li and O at 0, Li2O at -2 eV/atom."""

    def __init__(self, covered: bool = True, crystals: bool = False) -> None:
        self.elements = frozenset({"Li", "O"})
        self._covered = covered
        cell = rock_salt() if crystals else None
        self._phases = [
            Phase(
                phase_id=name, formula=name, composition=c, energy_ev_per_atom=e, crystal=cell,
                source="test",
            )
            for name, c, e in [("Li", {"Li": 1.0}, 0.0), ("O2", {"O": 1.0}, 0.0),
                               ("Li2O", {"Li": 2.0, "O": 1.0}, -2.0)]
        ]  # fmt: skip

    def within(self, elements):
        return [p for p in self._phases if p.elements <= elements]

    def coverage(self, composition, phases):
        return Coverage(self._covered, "test")


def reference(covered: bool = True, crystals: bool = False, scheme: str = MP2020) -> Reference:
    return Reference(
        reference_id="test",
        version="1",
        kind="built",
        energy_scheme=scheme,
        statement="",
        source=Phases(covered, crystals),
    )


def candidate(crystal: Crystal) -> Candidate:
    return Candidate(
        proposal_id=f"p-{crystal.content_id}",
        candidate_id=crystal.content_id,
        crystal=crystal,
        formula=crystal.formula,
        chemsys=crystal.chemsys,
        n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3,
        min_distance_a=2.0,
        space_group=225,
        charge_balanced=None,
        charge_note="",
    )


def relaxation(
    of: Candidate, energy: float, converged: bool = True, start: float | None = None
) -> Relaxation:
    return Relaxation(
        relaxation_id=Relaxation.make_id(of.candidate_id, "sha", Protocol()),
        candidate_id=of.candidate_id,
        potential="test",
        potential_sha256="sha",
        energy_scheme=MP2020,
        protocol=Protocol(),
        converged=converged,
        energy_ev_per_atom=energy,
        initial_energy_ev_per_atom=energy if start is None else start,
        residual_force_ev_per_a=0.01,
        residual_stress_gpa=0.0,
        steps=3,
        force_calls=4,
        cpu_s=0.0,
        crystal=of.crystal,
        volume_per_atom_a3=of.volume_per_atom_a3,
        volume_ratio=1.0,
        space_group_loose=225,
        space_group_tight=225,
    )


def kinds(*arguments) -> tuple[Suspicion, ...]:
    return tuple(one.kind for one in suspicions(*arguments))


HULL_LIO = -1.5  # eV/atom, the tie line Li2O-O2 at LiO


@pytest.mark.parametrize(
    ("above", "covered", "label"),
    [
        (0.3, True, VerdictLabel.UNSTABLE),
        (0.3, False, VerdictLabel.UNSTABLE),  # a missing phase could only raise it
        (0.05, True, VerdictLabel.METASTABLE),
        (0.05, False, VerdictLabel.BELOW_REFERENCE),
        (0.0, True, VerdictLabel.STABLE),
        (0.0009, True, VerdictLabel.STABLE),
        (0.0011, True, VerdictLabel.METASTABLE),
        (-0.05, True, VerdictLabel.STABLE),
        (-0.05, False, VerdictLabel.BELOW_REFERENCE),
        (THRESHOLD - 1e-9, True, VerdictLabel.METASTABLE),
    ],
)
def test_a_label_follows_height_and_coverage(above, covered, label):
    c = candidate(rock_salt())
    verdict = judge(
        relaxation(c, HULL_LIO + above), c, reference(covered), threshold_ev_per_atom=THRESHOLD
    )
    assert verdict.label is label
    assert verdict.e_above_hull_ev_per_atom == pytest.approx(above, abs=1e-12)
    assert {p.formula for p in verdict.decomposition} == {"Li2O", "O2"}
    assert verdict.suspicions == ()


def test_an_element_the_reference_lacks_leaves_the_hull_pending():
    c = candidate(rock_salt("Na"))
    verdict = judge(relaxation(c, -3.0), c, reference(), threshold_ev_per_atom=THRESHOLD)
    assert verdict.label is VerdictLabel.HULL_PENDING
    assert verdict.e_above_hull_ev_per_atom is None
    assert verdict.coverage_note == "no phase of Na"


def test_an_unconverged_relaxation_gets_no_verdict():
    c = candidate(rock_salt())
    with pytest.raises(ValueError, match="did not converge"):
        judge(relaxation(c, -3.0, converged=False), c, reference(), threshold_ev_per_atom=0.1)


def test_another_energy_scheme_is_refused_never_computed():
    c = candidate(rock_salt())
    with pytest.raises(InputError, match="cannot be judged"):
        judge(relaxation(c, -3.0), c, reference(scheme="r2scan"), threshold_ev_per_atom=0.1)


@pytest.mark.parametrize(
    ("height", "a", "converged", "drop", "found"),
    [
        (0.0, 4.2, True, 0.0, ()),
        (FAR_BELOW_EV_PER_ATOM + 0.01, 4.2, True, 0.0, ()),
        (FAR_BELOW_EV_PER_ATOM - 0.01, 4.2, True, 0.0, (Suspicion.FAR_BELOW_HULL,)),
        (0.0, 5.2, True, 0.0, (Suspicion.ODD_VOLUME,)),
        (0.0, 3.5, True, 0.0, (Suspicion.ODD_VOLUME,)),
        (0.0, 4.2, True, 2.0, ()),  # a drop that ended in convergence is a relaxation
        (0.0, 4.2, False, 2.0, (Suspicion.DROP_WITHOUT_CONVERGENCE,)),
    ],
)
def test_what_is_suspect(height, a, converged, drop, found):
    c = candidate(rock_salt(a=a))
    r = relaxation(c, HULL_LIO + height, converged, HULL_LIO + height + drop)
    assert kinds(r, c, reference(crystals=True)) == found


def test_without_structures_volumes_are_held_against_the_elements():
    usual, huge = candidate(rock_salt()), candidate(rock_salt(a=8.4))
    assert kinds(relaxation(usual, -1.5), usual, reference()) == ()
    assert kinds(relaxation(huge, -1.5), huge, reference()) == (Suspicion.ODD_VOLUME,)


def test_a_suspect_is_marked_for_a_second_relaxation():
    c = candidate(rock_salt())
    r = relaxation(c, HULL_LIO - 0.5)
    assert judge(r, c, reference(), threshold_ev_per_atom=0.1).second_look == "pending"
    seen = judge(r, c, reference(), threshold_ev_per_atom=0.1, second_look="reproduced")
    assert seen.second_look == "reproduced"


# -- union --------------------------------------------------------------------------------------


@pytest.fixture
def union(tmp_path):
    """A function: union verdicts by relaxation id of (candidate, relaxation) pairs."""
    calls = itertools.count()

    def verdicts(pairs, second_looks=None, ref=None):
        ref, looks = ref or reference(), second_looks or {}
        basis = Basis(
            campaign_id="k", potential="test", potential_sha256="sha", energy_scheme=MP2020,
            protocol=Protocol(), reference_spec="", metastable_ev_per_atom=THRESHOLD,
            reference_id=ref.reference_id, reference_version=ref.version,
            reference_kind="built", reference_statement="",
        )  # fmt: skip
        records = [basis]
        for c, r in pairs:
            proposal = Proposal(
                proposal_id=c.proposal_id, request_id="q", campaign_id="k", cycle=0,
                index=len(records), operator="external", seed=0, raw="", format="cif",
            )  # fmt: skip
            look = looks.get(r.relaxation_id)
            verdict = judge(r, c, ref, threshold_ev_per_atom=THRESHOLD, second_look=look)
            records += [proposal, c, r, verdict]
        with Store.open(tmp_path / str(next(calls)), command="test", create=True) as store:
            store.add(records)
            screen = Screen(
                store=store, basis=basis, card=potential_card("toy"), reference=ref,
                limits=Limits(),
            )  # fmt: skip
            judge_union(screen)
            found = [v for v in store.load(Verdict) if v.height == "union"]
            store.publish()
        return {v.relaxation_id: v for v in found}

    return verdicts


def test_the_lowest_candidate_of_a_campaign_lies_on_the_union_hull(union):
    low, high = candidate(rock_salt(a=4.2)), candidate(rock_salt(a=4.3))
    rl, rh = relaxation(low, HULL_LIO - 0.04), relaxation(high, HULL_LIO + 0.01)
    verdicts = union([(low, rl), (high, rh)])
    assert verdicts[rl.relaxation_id].e_above_hull_ev_per_atom == pytest.approx(0.0, abs=1e-12)
    assert verdicts[rl.relaxation_id].label is VerdictLabel.STABLE
    assert verdicts[rh.relaxation_id].e_above_hull_ev_per_atom == pytest.approx(0.05)
    assert [p.phase_id for p in verdicts[rh.relaxation_id].decomposition] == [low.candidate_id]
    assert all(v.height == "union" for v in verdicts.values())


@pytest.mark.parametrize("look", ["pending", "reproduced", "refuted"])
def test_a_suspect_supports_no_hull_until_confirmed(look, union):
    suspect, other = candidate(rock_salt(a=4.2)), candidate(rock_salt(a=4.3))
    rs, ro = relaxation(suspect, HULL_LIO - 0.4), relaxation(other, HULL_LIO + 0.01)
    pairs = [(suspect, rs), (other, ro)]
    held = union(pairs, {rs.relaxation_id: look})
    assert held[ro.relaxation_id].e_above_hull_ev_per_atom == pytest.approx(0.01)
    assert held[rs.relaxation_id].e_above_hull_ev_per_atom == pytest.approx(-0.4)
    taken = union(pairs, {rs.relaxation_id: "confirmed"})
    assert taken[ro.relaxation_id].e_above_hull_ev_per_atom == pytest.approx(0.41)


def test_the_uncovered_support_the_hull_but_are_not_called_stable(union):
    c = candidate(rock_salt())
    r = relaxation(c, HULL_LIO - 0.04)
    (verdict,) = union([(c, r)], ref=reference(covered=False)).values()
    assert verdict.e_above_hull_ev_per_atom == pytest.approx(0.0, abs=1e-12)
    assert verdict.label is VerdictLabel.BELOW_REFERENCE


def test_a_candidate_of_an_unknown_element_stays_pending_beside_the_others(union):
    c, other = candidate(rock_salt("Na")), candidate(rock_salt())
    rc, ro = relaxation(c, -3.0), relaxation(other, HULL_LIO)
    verdicts = union([(c, rc), (other, ro)])
    assert verdicts[rc.relaxation_id].label is VerdictLabel.HULL_PENDING
    assert verdicts[ro.relaxation_id].label is VerdictLabel.STABLE


def test_a_match_is_carried_along():
    c = candidate(rock_salt())
    verdict = judge(
        relaxation(c, HULL_LIO), c, reference(), threshold_ev_per_atom=0.1, rediscovered="Li2O#1"
    )
    assert verdict.rediscovered == "Li2O#1"
