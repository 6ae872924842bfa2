"""What a cycle reads: rows and records of what is new, however much is stored."""

from collections import Counter

import numpy as np
import pytest

from hullward.agents.followup import assess_candidates
from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.records import (
    Basis,
    CampaignRecord,
    Candidate,
    Explanation,
    Proposal,
    Protocol,
    Record,
    Relaxation,
    StabilityProbability,
    TrainingOverlap,
    Verdict,
    stable_id,
)
from hullward.tools.reference import load_reference
from hullward.tools.relax import Executor
from hullward.tools.screening import (
    Limits,
    Screen,
    check_proposals,
    judge_proposals,
    judge_union,
    label_candidates,
    relaxing,
)
from hullward.tools.store import Store, campaign_store

PROTOCOL = Protocol()


class Reading:
    """Rows fetched and records made since the last look, by step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows, self.records = 0, 0
        fetch, validate = campaign_store.fetch_rows, Record.model_validate.__func__
        read = Crystal.model_validate_json.__func__

        def fetched(connection, sql, parameters=()):
            rows = fetch(connection, sql, parameters)
            self.rows += len(rows)
            return rows

        def validated(cls, *args, **more):
            self.records += 1
            return validate(cls, *args, **more)

        def crystal(cls, *args, **more):
            self.records += 1
            return read(cls, *args, **more)

        patch.setattr(campaign_store, "fetch_rows", fetched)
        patch.setattr(Record, "model_validate", classmethod(validated))
        patch.setattr(Crystal, "model_validate_json", classmethod(crystal))

    def look(self) -> tuple[int, int]:
        found, self.rows, self.records = (self.rows, self.records), 0, 0
        return found


def crystals(count: int, seed: int) -> list[Crystal]:
    """Distinct crystals of Li-Mn-O, six or so of one formula."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        li, mn, o = 1 + number // 6 % 7, 1 + number // 42 % 7, 1 + number // 294 % 7
        n = li + mn + o
        grid = np.array(np.unravel_index(rng.permutation(27)[:n], (3, 3, 3))).T / 3
        lengths = 7.2 * (n / 27) ** (1 / 3) * rng.uniform(0.85, 1.25, 3) * 1.3
        sites = grid + rng.normal(0, 0.02, grid.shape)
        species = ["Li"] * li + ["Mn"] * mn + ["O"] * o
        found.append(Crystal.from_parameters(lengths, (90, 90, 90), species, sites))
    return found


class Campaign:
    """A campaign whose relaxations are made up: each keeps its structure."""

    def __init__(self, store: Store, reference, home) -> None:
        self.store, self.home, self.cycles = store, home, 0
        self.rng = np.random.default_rng(1)
        card = potential_card("toy")
        basis = Basis(
            campaign_id="k", potential="toy", potential_sha256=card.weights_sha256,
            energy_scheme="toy", protocol=PROTOCOL, reference_spec="", metastable_ev_per_atom=0.1,
            reference_id=reference.reference_id, reference_version=reference.version,
            reference_kind="file", reference_statement="",
        )  # fmt: skip
        record = {"campaign_id": "k", "kind": "campaign", "name": "s", "seed": 0}
        store.add([CampaignRecord(**record, settings={}, versions={}), basis])
        limits = Limits(min_distance_factor=0.2, max_packing=5, min_volume_per_atom_a3=1)
        self.screen = Screen(
            store=store,
            basis=basis,
            card=card,
            reference=reference,
            limits=limits,
            executor=Executor(workers=0),
        )

    def propose(self, made: list[Crystal]) -> list[Proposal]:
        proposals = [
            Proposal(
                proposal_id=stable_id("x", self.cycles, n), request_id=f"q{self.cycles:04}",
                campaign_id="k", cycle=self.cycles, index=n, operator="external", seed=0,
                model="a-model", raw=c.model_dump_json(), format="crystal_json",
            )
            for n, c in enumerate(made)
        ]  # fmt: skip
        self.cycles += 1
        self.store.add(proposals)
        return proposals

    def last(self) -> list[Proposal]:
        return self.store.load(Proposal, [f"q{self.cycles - 1:04}"], by="request_id")

    def relax(self, proposals: list[Proposal]) -> None:
        hull = self.screen.reference.hull("Li-Mn-O")
        self.store.add(
            self.relaxation(i, c, hull)
            for i, c in relaxing.waiting_for_relaxation(self.screen, proposals)
        )

    def rattled(self, jobs, potential, protocol, *_):
        hull = self.screen.reference.hull("Li-Mn-O")
        return (self.relaxation(i, crystal, hull, protocol) for i, crystal in jobs)

    def relaxation(self, candidate_id, crystal, hull, protocol=PROTOCOL) -> Relaxation:
        sha256 = self.screen.basis.potential_sha256
        level = float(hull.energies(hull.fractions([crystal.amounts]))[0])
        number, broken = float(self.rng.random()), self.rng.random()
        energy = level - 0.01 + 0.3 * number
        return Relaxation(
            relaxation_id=Relaxation.make_id(candidate_id, sha256, protocol),
            candidate_id=candidate_id, potential="toy", potential_sha256=sha256,
            energy_scheme="toy", protocol=protocol, converged=broken > 0.1,
            energy_ev_per_atom=energy, initial_energy_ev_per_atom=energy + 0.05,
            residual_force_ev_per_a=0.04, residual_stress_gpa=0.1, steps=9, force_calls=9,
            cpu_s=0.0, crystal=crystal, volume_per_atom_a3=crystal.volume_per_atom_a3,
            volume_ratio=1.0, space_group_loose=1, space_group_tight=1,
        )  # fmt: skip

    def cycle(self, proposals: list[Proposal], reading: Reading) -> dict[str, tuple[int, int]]:
        """What each step of a cycle reads: rows, records."""
        found = {}
        for name, step in {
            "check": lambda: check_proposals(self.screen, proposals),
            "label": lambda: label_candidates(self.screen, proposals),
            "wait": lambda: self.relax(proposals),
            "judge": lambda: judge_proposals(self.screen, proposals),
            "union": lambda: judge_union(self.screen),
            "assess": lambda: assess_candidates(self.screen, self.home, proposals),
        }.items():
            reading.look()
            step()
            found[name] = reading.look()
        return found


@pytest.fixture
def campaign(tmp_path, toy_reference):
    reference = load_reference(f"file:{toy_reference}")
    with Store.open(tmp_path / "s", command="test", create=True) as store:
        yield Campaign(store, reference, tmp_path / "home")


def test_a_cycle_reads_what_is_new(campaign, monkeypatch):
    monkeypatch.setattr(Executor, "relax", lambda self, *asked: campaign.rattled(*asked))
    reading, made, spent = Reading(monkeypatch), crystals(420, 0), {}
    for start, stop in ((0, 60), (60, 66), (66, 408), (408, 414)):
        spent[stop] = campaign.cycle(campaign.propose(made[start:stop]), reading)
    few, many, new = spent[66], spent[414], 6
    assert Counter(campaign.store.count().states)["judged"] > 300
    for step in few:
        (rows, records), (rows_later, records_later) = few[step], many[step]
        assert records_later <= records + 8 * new, step
        assert rows_later <= rows + 12 * new, step
    idle = campaign.cycle([], reading)
    assert max(idle.pop("assess")) <= 1  # the calibrator; models whose training is unknown
    assert all(reads == (0, 0) for reads in idle.values()), idle
    again = campaign.cycle(campaign.last(), reading)  # the last cycle, once more
    assert all(records <= 2 * new and rows <= 4 * new for rows, records in again.values()), again
    campaign.store.publish()


def test_a_cycle_leaves_nothing_undone(campaign, monkeypatch):
    monkeypatch.setattr(Executor, "relax", lambda self, *asked: campaign.rattled(*asked))
    reading, made = Reading(monkeypatch), crystals(60, 3)
    for start in range(0, 60, 20):
        campaign.cycle(campaign.propose(made[start : start + 20]), reading)
    store = campaign.store
    candidates = {c.candidate_id for c in store.load(Candidate)}
    first = [r for r in store.load(Relaxation) if r.protocol == PROTOCOL]
    converged = {r.relaxation_id: r.candidate_id for r in first if r.converged}
    explained = {(e.candidate_id, e.moment) for e in store.load(Explanation)}
    assert explained == {(i, "before") for i in candidates} | {
        (i, "after") for i in converged.values()
    }
    verdicts = {(v.relaxation_id, v.height) for v in store.load(Verdict)}
    assert verdicts == {(i, h) for i in converged for h in ("reference", "union")}
    assert {p.relaxation_id for p in store.load(StabilityProbability)} == set(converged)
    assert {o.candidate_id for o in store.load(TrainingOverlap)} == candidates
