"""Families in the store: connected by lattices and by lineage, in whatever order and portions."""

import itertools

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.crystal import OrderedLattice
from hullward.tools.hull import Coverage, Phase, Reference
from hullward.tools.prototypes import prototype_library, seeded_rng, swap
from hullward.tools.records import (
    Basis,
    Candidate,
    FamilyMember,
    Proposal,
    Protocol,
    Relaxation,
)
from hullward.tools.screening import Limits, Screen, families, store_families
from hullward.tools.screening.cells import cell_file
from hullward.tools.store import Store

BASIS = Basis(
    campaign_id="k", potential="toy", potential_sha256="sha", energy_scheme="toy",
    protocol=Protocol(), reference_spec="", metastable_ev_per_atom=0.1, reference_id="test",
    reference_version="1", reference_kind="file", reference_statement="",
)  # fmt: skip


class Phases:
    """Known phases by id."""

    def __init__(self, crystals=()):
        self._crystals = dict(crystals)
        self.elements = frozenset(el for c in self._crystals.values() for el in c.amounts)

    def within(self, elements):
        return [
            Phase(phase_id=i, formula=c.formula, composition=c.amounts, energy_ev_per_atom=-1.0,
                  source="", crystal=c)
            for i, c in self._crystals.items() if c.amounts.keys() <= elements
        ]  # fmt: skip

    def coverage(self, composition, phases):
        return Coverage(True, "test")


def reference(crystals=()):
    return Reference(
        reference_id="test", version="1", kind="file", energy_scheme="toy", statement="",
        source=Phases(crystals),
    )  # fmt: skip


TYPES = {p.prototype_id: p.crystal for p in prototype_library()}


def named(name, **exchange):
    crystal = TYPES[name]
    species = [exchange.get(s, s) for s in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def shaken(crystal, seed, rattle_a=0.06):
    away = np.random.default_rng(seed).normal(scale=rattle_a, size=(crystal.n_atoms, 3))
    frac = np.array(crystal.frac_coords) + away @ np.linalg.inv(crystal.lattice)
    return Crystal.from_arrays(crystal.lattice, crystal.species, frac)


LAYERED = named("own:LiCoO2-layered", Co="Fe")
GAMMA = named("own:LiFeO2-gamma")
OTHER = named("own:NaCoO2-P2", Na="Li", Co="Fe")


def relaxed(number, crystal, *, proposed=None, operator="external", parents=()):
    """A proposal, its candidate and its relaxation into `crystal`."""
    start = proposed or crystal
    proposal = Proposal(
        proposal_id=f"x-{number:03}", request_id="q", campaign_id="k", cycle=0, index=number,
        operator=operator, parents=parents, seed=0, raw="", format="cif",
    )  # fmt: skip
    candidate = Candidate(
        proposal_id=proposal.proposal_id, candidate_id=f"c-{number:03}", crystal=start,
        formula=start.formula, chemsys=start.chemsys, n_atoms=start.n_atoms,
        volume_per_atom_a3=start.volume_per_atom_a3, min_distance_a=2.0, space_group=1,
        charge_balanced=None, charge_note="",
    )  # fmt: skip
    relaxation = Relaxation(
        relaxation_id=Relaxation.make_id(candidate.candidate_id, "sha", BASIS.protocol),
        candidate_id=candidate.candidate_id, potential="toy", potential_sha256="sha",
        energy_scheme="toy", protocol=BASIS.protocol, converged=True, energy_ev_per_atom=-1.0,
        initial_energy_ev_per_atom=-1.0, residual_force_ev_per_a=0.0, residual_stress_gpa=0.0,
        steps=1, force_calls=1, cpu_s=0.0, crystal=crystal,
        volume_per_atom_a3=crystal.volume_per_atom_a3, volume_ratio=1.0, space_group_loose=1,
        space_group_tight=1,
    )  # fmt: skip
    return [proposal, candidate, relaxation]


@pytest.fixture
def campaign(tmp_path):
    """A function: an open screen of a new campaign that holds records."""
    opened, number = [], itertools.count()

    def screen(*records, known=()):
        store = Store.open(tmp_path / str(next(number)), command="test", create=True)
        opened.append(store)
        store.add([BASIS, *itertools.chain(*records)])
        return Screen(
            store=store, basis=BASIS, card=potential_card("toy"), reference=reference(known),
            limits=Limits(),
        )  # fmt: skip

    yield screen
    for store in opened:
        store.close()


def stored(screen):
    return {m.candidate_id: m for m in screen.store.load(FamilyMember)}


def test_orderings_are_one_family_and_polymorphs_their_own(campaign):
    everything = [relaxed(n, shaken(c, n)) for n, c in enumerate((OTHER, LAYERED, GAMMA, OTHER))]
    screen = campaign(*everything)
    store_families(screen)
    found = stored(screen)
    assert [found[f"c-00{n}"].family_id for n in range(4)] == ["c-000", "c-001", "c-001", "c-000"]
    assert found["c-000"].link == "first"
    assert (found["c-002"].link, found["c-002"].kin) == ("lattice", "c-001")
    assert found["c-002"].shared == ("Fe Li",)
    seen = screen.store.rows("SELECT DISTINCT family_id, family_size FROM results")
    assert all(row["family_size"] == 0 for row in seen)  # nothing is judged yet


def test_orderings_and_distortions_of_a_known_phase_name_it(campaign):
    """Layered and γ are orderings of one lattice; a shaken cell exchanges nothing."""
    everything = [relaxed(n, shaken(c, n)) for n, c in enumerate((GAMMA, LAYERED, OTHER))]
    screen = campaign(*everything, known={"mp-1": LAYERED, "mp-2": named("own:LiCoO2-layered")})
    store_families(screen)
    found = stored(screen)
    kin = [(found[f"c-00{n}"].known_kin, found[f"c-00{n}"].known_shared) for n in range(3)]
    assert kin == [("mp-1", ("Fe Li",)), ("mp-1", ()), (None, ())]
    alone = campaign(*everything)
    store_families(alone)
    assert {m.known_kin for m in stored(alone).values()} == {None}


def test_a_swap_of_a_known_phase_is_an_ordering_of_it_however_it_relaxed(campaign):
    screen = campaign(
        relaxed(0, OTHER, proposed=GAMMA, operator="swap", parents=("mp-1",)),
        relaxed(1, OTHER, proposed=GAMMA, parents=("mp-1",)),
        known={"mp-1": LAYERED},
    )
    store_families(screen)
    assert {i: m.known_kin for i, m in stored(screen).items()} == {"c-000": "mp-1", "c-001": None}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_families_are_the_same_however_candidates_come(campaign, order):
    """All at once, or one after the other in another order than they were proposed in."""
    everything = [relaxed(n, shaken(c, n)) for n, c in enumerate((OTHER, LAYERED, GAMMA, OTHER))]
    at_once, one_by_one = campaign(*everything), campaign()
    store_families(at_once)
    for n in order:
        one_by_one.store.add(everything[n])
        store_families(one_by_one)
    groups = [{}, {}]
    for found, screen in zip(groups, (at_once, one_by_one), strict=True):
        for member in stored(screen).values():
            found.setdefault(member.family_id, set()).add(member.candidate_id)
    first, second = ({frozenset(ids) for ids in found.values()} for found in groups)
    assert first == second


def test_one_that_connects_two_families_merges_them_and_past_rewards_stay(campaign, monkeypatch):
    linked = {("a", "c"), ("b", "c")}
    crystals = {name: shaken(GAMMA, seed) for seed, name in enumerate("abc")}
    names = {crystal.content_id: name for name, crystal in crystals.items()}

    def shared_by(one, two):
        pair = tuple(sorted(names[lattice.crystal.content_id] for lattice in (one, two)))
        return ("Fe Li",) if pair in linked else None

    monkeypatch.setattr(families, "shared_by", shared_by)
    screen = campaign()
    for n, name in enumerate("abc"):
        screen.store.add(relaxed(n, crystals[name]))
        store_families(screen)
    found = stored(screen)
    assert {m.family_id for m in found.values()} == {"c-000"}
    assert [found[f"c-00{n}"].joined for n in range(3)] == ["c-000", "c-001", "c-000"]


def test_lineage_counts_however_relaxation_distorted_a_child(campaign):
    child = swap("c-000", LAYERED, seeded_rng(1), max_atoms=8).crystal
    records = [
        relaxed(0, LAYERED),
        relaxed(1, OTHER, proposed=child, operator="swap", parents=("c-000",)),
        relaxed(2, OTHER, proposed=child, operator="perturbation", parents=("c-000",)),
        relaxed(3, OTHER, proposed=child, operator="swap", parents=("mp-1",)),
        relaxed(4, shaken(GAMMA, 1), proposed=child, operator="swap", parents=("mp-1",)),
    ]
    screen = campaign(*records[:2])
    store_families(screen)
    member = stored(screen)["c-001"]
    assert (member.link, member.family_id, member.kin) == ("lineage", "c-000", "c-000")
    assert member.shared == ("Fe Li",)
    apart = campaign(records[0], records[2])
    store_families(apart)
    assert stored(apart)["c-002"].family_id == "c-002"
    siblings = campaign(*records[3:])
    store_families(siblings)
    assert stored(siblings)["c-004"].link == "lineage"


def test_only_what_is_new_is_compared(campaign, monkeypatch):
    everything = [relaxed(n, shaken(c, n)) for n, c in enumerate((GAMMA, OTHER, LAYERED))]
    screen = campaign(*everything)
    store_families(screen)
    before = stored(screen)

    def fail(*args):
        raise AssertionError("compared again")

    monkeypatch.setattr(families, "shared_by", fail)
    store_families(screen)
    screen.store.add(relaxed(9, named("AB_cF8_225_a_b")))  # another formula
    store_families(screen)
    assert before.items() <= stored(screen).items()
    assert stored(screen)["c-009"].link == "first"


def test_members_of_an_earlier_version_get_company(campaign):
    screen = campaign(*(relaxed(n, shaken(LAYERED, n)) for n in range(2)))
    store_families(screen)
    screen.store.execute("UPDATE families SET known_kin = NULL, known_shared = NULL")
    screen.store.add(relaxed(2, shaken(LAYERED, 2)))
    store_families(screen)
    assert stored(screen)["c-002"].family_id == "c-000"


def test_lattices_are_found_once_and_only_so_many_are_kept(campaign, monkeypatch):
    everything = [relaxed(n, shaken(c, n)) for n, c in enumerate((OTHER, LAYERED, GAMMA, OTHER))]
    found = []

    class Counted(OrderedLattice):
        def __init__(self, crystal):
            found.append(crystal)
            super().__init__(crystal)

    monkeypatch.setattr(cell_file, "OrderedLattice", Counted)
    kept, forgotten = campaign(*everything[:3]), campaign(*everything[:3])
    store_families(kept)
    kept.store.add(everything[3])
    store_families(kept)
    assert len(found) == len(kept.lattices) == 4
    monkeypatch.setattr(families, "KEPT", 1)
    store_families(forgotten)
    assert len(forgotten.lattices) == 1
    forgotten.store.add(everything[3])
    store_families(forgotten)
    assert stored(forgotten) == stored(kept)
    assert len(found) == 8  # what was forgotten was read, not found again
