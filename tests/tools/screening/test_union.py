"""Union heights, brought up to date a few at a time, are those computed all at once."""

import itertools

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.hull import Coverage, Hull, Phase, Reference
from hullward.tools.records import (
    Basis,
    Candidate,
    Proposal,
    Protocol,
    Relaxation,
    Suspicion,
    Verdict,
)
from hullward.tools.screening import Limits, Screen, judge_union
from hullward.tools.screening.verdicts import judge
from hullward.tools.store import Store

ELEMENTS = ("Li", "Mn", "O")
THRESHOLD = 0.1


class Corners:
    """A reference in memory: three elements and two compounds."""

    elements = frozenset(ELEMENTS)

    def within(self, elements):
        levels = {"Li": 0.0, "Mn": 0.0, "O": 0.0, "Li2O": -1.0, "MnO2": -1.2}
        amounts = {"Li2O": {"Li": 2.0, "O": 1.0}, "MnO2": {"Mn": 1.0, "O": 2.0}}
        phases = [
            Phase(
                phase_id=f"ref-{name}", formula=name, composition=amounts.get(name, {name: 1.0}),
                energy_ev_per_atom=energy, source="test",
            )
            for name, energy in levels.items()
        ]  # fmt: skip
        return [p for p in phases if p.elements <= elements]

    def coverage(self, composition, phases):
        return Coverage(True, "test")


REFERENCE = Reference(
    reference_id="test", version="1", kind="file", energy_scheme="toy", statement="",
    source=Corners(),
)  # fmt: skip
BASIS = Basis(
    campaign_id="k", potential="toy", potential_sha256="sha", energy_scheme="toy",
    protocol=Protocol(), reference_spec="", metastable_ev_per_atom=THRESHOLD, reference_id="test",
    reference_version="1", reference_kind="file", reference_statement="",
)  # fmt: skip


def judged(number, amounts, above, *, suspect=False):
    """A proposal, its candidate, relaxation and verdict, so far above the reference's hull."""
    species = [el for el, n in amounts.items() for _ in range(n)]
    sites = [[k / len(species), 0.1 * number, 0.5] for k in range(len(species))]
    crystal = Crystal.from_parameters((9, 4, 4), (90, 90, 90), species, sites)
    hull = REFERENCE.hull(crystal.chemsys)
    energy = above + float(hull.energies(hull.fractions([crystal.amounts]))[0])
    proposal = Proposal(
        proposal_id=f"x-{number:03}", request_id="q", campaign_id="k", cycle=0, index=number,
        operator="external", seed=0, raw="", format="cif",
    )  # fmt: skip
    candidate = Candidate(
        proposal_id=proposal.proposal_id, candidate_id=f"c-{number:03}", crystal=crystal,
        formula=crystal.formula, chemsys=crystal.chemsys, n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3, min_distance_a=2.0, space_group=1,
        charge_balanced=None, charge_note="",
    )  # fmt: skip
    relaxation = Relaxation(
        relaxation_id=Relaxation.make_id(candidate.candidate_id, "sha", BASIS.protocol),
        candidate_id=candidate.candidate_id, potential="toy", potential_sha256="sha",
        energy_scheme="toy", protocol=BASIS.protocol, converged=True, energy_ev_per_atom=energy,
        initial_energy_ev_per_atom=energy, residual_force_ev_per_a=0.0, residual_stress_gpa=0.0,
        steps=1, force_calls=1, cpu_s=0.0, crystal=crystal,
        volume_per_atom_a3=crystal.volume_per_atom_a3, volume_ratio=1.0, space_group_loose=1,
        space_group_tight=1,
    )  # fmt: skip
    verdict = judge(relaxation, candidate, REFERENCE, threshold_ev_per_atom=THRESHOLD)
    look = {"suspicions": (Suspicion.ODD_VOLUME,) if suspect else ()}
    verdict = verdict.model_copy(
        update={**look, "second_look": "reproduced" if suspect else "not_needed"}
    )
    return [proposal, candidate, relaxation, verdict]


def some(seed, count=40):
    """Candidates of all subsystems: some below the hull, some suspect, compositions shared."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        size = int(rng.choice([1, 2, 2, 3, 3, 3]))
        elements = sorted(rng.choice(ELEMENTS, size, replace=False).tolist())
        amounts = {el: int(rng.integers(1, 4)) for el in elements}
        above = float(rng.normal(0.03, 0.08))
        found.append(judged(number, amounts, above, suspect=rng.random() < 0.2))
    return found


def confirmed(verdict):
    return verdict.model_copy(update={"second_look": "confirmed"})


@pytest.fixture
def campaign(tmp_path):
    """A function: an open screen of a new, empty campaign."""
    opened, number = [], itertools.count()

    def screen():
        store = Store.open(tmp_path / str(next(number)), command="test", create=True)
        opened.append(store)
        store.add([BASIS])
        return Screen(
            store=store, basis=BASIS, card=potential_card("toy"), reference=REFERENCE,
            limits=Limits(),
        )  # fmt: skip

    yield screen
    for store in opened:
        store.close()


def unions(screen):
    return {v.relaxation_id: v for v in screen.store.load(Verdict) if v.height == "union"}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        other = found[name]
        assert other.e_above_hull_ev_per_atom == pytest.approx(
            one.e_above_hull_ev_per_atom, abs=1e-9
        )
        shares = {p.phase_id: pytest.approx(p.fraction, abs=1e-9) for p in one.decomposition}
        assert {p.phase_id: p.fraction for p in other.decomposition} == shares
        parts = {"e_above_hull_ev_per_atom", "decomposition"}
        assert other.model_dump(exclude=parts) == one.model_dump(exclude=parts)


def by_definition(rows):
    """Heights over the hull of all credible rows at once, by relaxation id."""
    own = [
        Phase(
            phase_id=c.candidate_id, formula=c.formula, composition=c.crystal.amounts,
            energy_ev_per_atom=r.energy_ev_per_atom, source="test",
        )
        for _, c, r, v in rows
        if not v.suspicions or v.second_look == "confirmed"
    ]  # fmt: skip
    found = {}
    for _, c, r, _ in rows:
        system = frozenset(c.chemsys.split("-"))
        hull = Hull([*REFERENCE.phases(c.chemsys), *(p for p in own if p.elements <= system)])
        found[r.relaxation_id] = hull.distance(c.crystal.amounts, r.energy_ev_per_atom)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_arrivals_in_any_order_end_at_the_same_heights(seed, campaign):
    rows = some(seed)
    suspects = [row for row in rows if row[3].suspicions]
    taken_back = suspects[: len(suspects) // 2]
    final = [[*row[:3], confirmed(row[3])] if row in taken_back else row for row in rows]
    at_once = campaign()
    at_once.store.add(record for row in final for record in row)
    judge_union(at_once)
    expected = unions(at_once)
    for name, distance in by_definition(final).items():
        one = expected[name]
        assert one.e_above_hull_ev_per_atom == pytest.approx(
            distance.e_above_hull_ev_per_atom, abs=1e-9
        )
        assert {p.phase_id for p in one.decomposition} == {
            p.phase_id for p in distance.decomposition
        }
    rng = np.random.default_rng(seed)
    step_by_step = campaign()
    order = rng.permutation(len(rows))
    for batch in np.array_split(order, 9):
        step_by_step.store.add(record for k in batch for record in rows[k])
        judge_union(step_by_step)
    for row in taken_back:
        step_by_step.store.add([confirmed(row[3])])
        judge_union(step_by_step)
    assert_same(unions(step_by_step), expected)
    assert step_by_step.store.add(unions(step_by_step).values()) == 0


def test_a_new_stable_binary_changes_the_ternaries_that_contain_it(campaign):
    screen = campaign()
    ternary = judged(0, {"Li": 1, "Mn": 1, "O": 3}, 0.02)
    elsewhere = judged(1, {"Mn": 1, "O": 1}, 0.02)
    screen.store.add([*ternary, *elsewhere])
    judge_union(screen)
    before = unions(screen)
    screen.store.add(judged(2, {"Li": 1, "O": 1}, -0.4))
    judge_union(screen)
    after = unions(screen)
    name, other = ternary[2].relaxation_id, elsewhere[2].relaxation_id
    gap = after[name].e_above_hull_ev_per_atom - before[name].e_above_hull_ev_per_atom
    assert gap > 0.05
    assert after[other] == before[other]


def test_what_lies_above_the_hull_changes_no_other_verdict(campaign, monkeypatch):
    screen = campaign()
    screen.store.add(record for row in some(1) for record in row)
    judge_union(screen)
    before = unions(screen)
    screen.store.add(judged(90, {"Li": 1, "Mn": 2, "O": 3}, 1.0))
    stored, add = [], screen.store.add
    monkeypatch.setattr(screen.store, "add", lambda records: stored.append(add(records)))
    judge_union(screen)
    assert sum(stored) == 1
    after = unions(screen)
    assert {name: after[name] for name in before} == before


def test_a_suspect_that_supports_no_longer_raises_the_hull_again(campaign):
    screen = campaign()
    low, high = judged(0, {"Li": 1, "O": 1}, -0.3), judged(1, {"Li": 2, "O": 2}, -0.1)
    ternary = judged(2, {"Li": 1, "Mn": 1, "O": 2}, 0.0)
    screen.store.add([*high, *ternary])
    judge_union(screen)
    expected = unions(screen)
    screen.store.add(low)
    judge_union(screen)
    assert unions(screen)[high[2].relaxation_id].e_above_hull_ev_per_atom > 0.1
    doubted = {"suspicions": (Suspicion.ODD_VOLUME,), "second_look": "refuted"}
    screen.store.add([low[3].model_copy(update=doubted)])
    judge_union(screen)
    after = unions(screen)
    assert after.pop(low[2].relaxation_id).e_above_hull_ev_per_atom == pytest.approx(-0.2)
    assert_same(after, expected)


def test_a_kill_between_two_writes_is_made_good(campaign, monkeypatch):
    """Corners are stored last, so that whatever was left out is found again."""
    rows = some(4)
    whole = campaign()
    whole.store.add(record for row in rows for record in row)
    judge_union(whole)
    expected = unions(whole)
    monkeypatch.setattr("hullward.tools.screening.union.BATCH", 3)
    for killed_after in range(1, 12, 2):
        screen = campaign()
        screen.store.add(record for row in rows[:20] for record in row)
        judge_union(screen)
        screen.store.add(record for row in rows[20:] for record in row)
        writes, add = itertools.count(), screen.store.add

        def dying(records, writes=writes, add=add, last=killed_after):
            if next(writes) >= last:
                raise KeyboardInterrupt
            return add(records)

        with monkeypatch.context() as patch:
            patch.setattr(screen.store, "add", dying)
            with pytest.raises(KeyboardInterrupt):
                judge_union(screen)
        judge_union(screen)
        assert_same(unions(screen), expected)
