"""What candidates are next to what is known: textbook phases, new ones, and the undecided."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.potential import potential_card
from hullward.tools.crystal import PrototypeLibrary
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Coverage, Phase, Reference
from hullward.tools.records import (
    Basis,
    CampaignRecord,
    Candidate,
    Explanation,
    Label,
    Proposal,
    Protocol,
    Relaxation,
)
from hullward.tools.report import gather_identities, new_words, write_report
from hullward.tools.screening import (
    Limits,
    Screen,
    explain_all,
    judge_proposals,
    judge_union,
    label_candidates,
)
from hullward.tools.screening.explain import Explainer, explainer_of
from hullward.tools.screening.labels import KnownStructures
from hullward.tools.store import Store, open_snapshot

KNOWN, OF_KNOWN, NEW, UNJUDGED = (
    "known structure",
    "new structure of a known compound",
    "new composition",
    "novelty not judged",
)
PROTOCOL = Protocol()


def cubic(a, species, sites):
    return Crystal.from_arrays(np.eye(3) * a, species, sites)


def caesium_chloride(cation, anion, a):
    return cubic(a, [cation, anion], [(0, 0, 0), (0.5, 0.5, 0.5)])


def halite(cation, anion, a):
    lattice = np.array([[0, a, a], [a, 0, a], [a, a, 0]]) / 2
    return Crystal.from_arrays(lattice, [cation, anion], [(0, 0, 0), (0.5, 0.5, 0.5)])


def mnp(metal, pnictogen, lengths, metal_site, pnictogen_site):
    """The MnP type, Pnma, all sites 4c."""
    sites = [
        site
        for x, z in (metal_site, pnictogen_site)
        for site in (
            (x, 0.25, z), (-x, 0.75, -z), (0.5 - x, 0.75, 0.5 + z), (0.5 + x, 0.25, 0.5 - z),
        )
    ]  # fmt: skip
    return Crystal.from_parameters(
        lengths, (90, 90, 90), [metal] * 4 + [pnictogen] * 4, np.mod(sites, 1)
    )


# FeP: Rundqvist, Acta Chem. Scand. 16, 287 (1962); CsBr and CsI: a = 4.29 and 4.57 Å
FEP = mnp("Fe", "P", (5.19, 3.10, 5.79), (0.002, 0.200), (0.191, 0.569))
TEXTBOOK = {
    "mp-1005": FEP,
    "mp-22906": caesium_chloride("Cs", "Br", 4.29),
    "mp-614603": caesium_chloride("Cs", "I", 4.57),
}


@dataclass(frozen=True)
class Fact:
    phase_id: str
    source: str = "Materials Project"
    tried_only: bool = False


class Index:
    """An index in memory: structures by id, formulas known by name, arrangements tried."""

    def __init__(self, structures, formulas=(), tried=(), hidden=(), version="1"):
        self._known = KnownStructures(_reference([]), KnownPhases(list(structures.items())))
        self._formulas = {c.formula for c in structures.values()}
        self._names, self._tried, self._hidden = set(formulas), set(tried), set(hidden)
        self.version = version
        self.counts = type("Counts", (), {"structures": len(structures), "textbook": 0})()

    def structure(self, crystal):
        match = self._known.match(crystal)
        return None if match is None else Fact(match.match_id, "", match.match_id in self._tried)

    def knows(self, formula):
        return formula in self._formulas | self._names

    def holds_structures_of(self, formula):
        return formula in self._formulas

    def hides(self, formula):
        return formula in self._hidden


class Phases:
    def __init__(self, crystals):
        self._crystals = crystals
        self.elements = frozenset({"Fe", "P", "Cs", "Br", "I", "Li"})

    def within(self, elements):
        of_elements = [(el, el, {el: 1.0}, 0.0, None) for el in sorted(self.elements)]
        compounds = [
            (f"{formula}#{n}", formula, amounts, -1.0, crystal)
            for n, (formula, amounts, crystal) in enumerate(self._crystals)
        ]
        return [
            Phase(phase_id=i, formula=f, composition=c, energy_ev_per_atom=e, source="", crystal=x)
            for i, f, c, e, x in [*of_elements, *compounds]
            if c.keys() <= elements
        ]

    def coverage(self, composition, phases):
        return Coverage(True, "test")


def _reference(crystals, kind="embedded"):
    return Reference(
        reference_id="test", version="1", kind=kind, energy_scheme="toy", statement="",
        source=Phases(crystals), potential_sha256="w",
    )  # fmt: skip


HULL_FILE = _reference([("FeP", {"Fe": 1.0, "P": 1.0}, None)], "file")
EMBEDDED = _reference([("CsBr", {"Cs": 1.0, "Br": 1.0}, halite("Cs", "Br", 7.2))])
INDEX = Index(TEXTBOOK, formulas=["Cs3P"])


def standing(crystal, reference=EMBEDDED, index=INDEX, users=()):
    explainer = explainer_of(reference, KnownPhases(list(users)), index)
    found = explainer.explain("c-1", crystal, "after", PrototypeLibrary())
    return found.standing, found


@pytest.mark.parametrize("name", TEXTBOOK)
def test_textbook_phases_are_known_whatever_the_reference_holds(name):
    strained = np.array(TEXTBOOK[name].lattice) * 1.01
    crystal = Crystal.from_arrays(strained, TEXTBOOK[name].species, TEXTBOOK[name].frac_coords)
    for reference in (EMBEDDED, HULL_FILE):
        found, explanation = standing(crystal, reference)
        assert (found, explanation.match_id) == (KNOWN, name)
    assert standing(crystal, EMBEDDED, None)[0] in (OF_KNOWN, NEW)
    assert standing(crystal, HULL_FILE, None)[0] == UNJUDGED


def test_new_structures_of_known_compounds_and_new_compositions():
    found, explanation = standing(caesium_chloride("Fe", "P", 2.8))
    assert (found, explanation.bare_namesakes) == (OF_KNOWN, 0)
    assert standing(halite("Li", "P", 5.2))[0] == NEW
    sites = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0.1, 0.6, 0.6)]
    named = cubic(6.0, ["Cs"] * 3 + ["P"], sites)
    found, explanation = standing(named)
    assert (found, explanation.bare_namesakes) == (UNJUDGED, 1)
    assert explanation.words.endswith("; known compound whose structure is not at hand")
    assert standing(halite("Cs", "Br", 7.3))[0] == KNOWN  # by the reference's structure


def test_what_could_not_be_compared_is_not_judged():
    csbr = halite("Cs", "Br", 7.3)
    assert standing(csbr, HULL_FILE, None)[0] == UNJUDGED
    assert standing(csbr, HULL_FILE, None, [("mine", halite("Li", "I", 6.0))])[0] == UNJUDGED
    assert standing(csbr, HULL_FILE, None, [("mine", csbr)])[0] == KNOWN
    assert standing(csbr, HULL_FILE, Index(TEXTBOOK, hidden=["CsBr"]))[0] == UNJUDGED
    needle = Crystal.from_arrays(np.diag([1e5, 5, 5]), ["Fe", "P", "P"], np.eye(3) / 3)
    assert standing(needle)[0] == UNJUDGED


def test_another_version_of_the_index_makes_explanations_stale():
    ids = {
        explainer_of(EMBEDDED, KnownPhases(), index).against_id
        for index in (None, INDEX, Index(TEXTBOOK, version="2"))
    }
    assert len(ids) == 3
    words = Explainer([("mp-1", FEP)], index=INDEX).against
    assert words.startswith("3 known structures, 1 of the reference and the structure types")


# The same in the store, from labels to the report.


@pytest.fixture
def screen(tmp_path):
    """A function: a screen of a new directory by a reference and an index."""
    opened = []

    def make(reference, index):
        basis = Basis(
            campaign_id="k", potential="toy", potential_sha256="w", energy_scheme="toy",
            protocol=PROTOCOL, reference_spec="", metastable_ev_per_atom=0.1,
            reference_id="test", reference_version="1", reference_kind=reference.kind,
            reference_statement="",
        )  # fmt: skip
        store = Store.open(tmp_path / str(len(opened)), command="test", create=True)
        opened.append(store)
        record = CampaignRecord(
            campaign_id="k", kind="screen", name="s", seed=0, settings={}, versions={}
        )
        store.add([record, basis])
        return Screen(
            store=store, basis=basis, card=potential_card("toy"), reference=reference,
            limits=Limits(), index=index,
        )  # fmt: skip

    yield make
    for store in opened:
        store.close()


def propose(screen, number, crystal):
    proposal = Proposal(
        proposal_id=f"x-{number}", request_id=f"q-{number}", campaign_id="k", cycle=0, index=number,
        operator="external", seed=0, raw="", format="cif",
    )  # fmt: skip
    candidate = Candidate(
        proposal_id=proposal.proposal_id, candidate_id=f"c-{number}", crystal=crystal,
        formula=crystal.formula, chemsys=crystal.chemsys, n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3, min_distance_a=2.0, space_group=1,
        charge_balanced=None, charge_note="",
    )  # fmt: skip
    screen.store.add([proposal, candidate])
    label_candidates(screen, [proposal])
    return proposal, candidate


def relax_and_judge(screen, proposal, candidate, energy):
    crystal = candidate.crystal
    relaxation = Relaxation(
        relaxation_id=Relaxation.make_id(candidate.candidate_id, "w", PROTOCOL),
        candidate_id=candidate.candidate_id, potential="toy", potential_sha256="w",
        energy_scheme="toy", protocol=PROTOCOL, converged=True, energy_ev_per_atom=energy,
        initial_energy_ev_per_atom=energy, residual_force_ev_per_a=0.0,
        residual_stress_gpa=0.0, steps=1, force_calls=1, cpu_s=0.0, crystal=crystal,
        volume_per_atom_a3=crystal.volume_per_atom_a3, volume_ratio=1.0, space_group_loose=1,
        space_group_tight=1,
    )  # fmt: skip
    screen.store.add([relaxation])
    judge_proposals(screen, [proposal])
    judge_union(screen)


def test_what_only_the_index_knows_is_relaxed_and_then_known(screen):
    own = screen(EMBEDDED, INDEX)
    proposal, candidate = propose(own, 0, FEP)
    assert own.store.load(Label) == []
    relax_and_judge(own, proposal, candidate, -0.05)
    explain_all(own)
    (label,) = own.store.load(Label)
    assert (label.moment, label.kind, label.match_id) == ("after", "known", "mp-1005")
    (row,) = own.store.rows("SELECT * FROM results")
    assert (row["state"], row["standing"], row["rediscovered"]) == ("judged", KNOWN, "mp-1005")
    assert not row["novel"]
    assert not row["unmatched"]
    assert not row["rewarded"]
    assert row["e_above_union_ev_per_atom"] == 0.0  # it holds up the hull
    assert row["e_above_reference_ev_per_atom"] == pytest.approx(-0.05)


def test_what_the_embedded_reference_tried_needs_no_relaxation(screen):
    tried = Index(TEXTBOOK, tried=TEXTBOOK)
    propose(screen(EMBEDDED, tried), 0, FEP)
    own = screen(replace(EMBEDDED, kind="file"), tried)
    assert propose(own, 0, FEP)
    assert own.store.load(Label) == []
    first = screen(EMBEDDED, tried)
    propose(first, 0, FEP)
    (label,) = first.store.load(Label)
    assert (label.moment, label.kind, label.match_id) == ("before", "known", "mp-1005")
    explain_all(first)
    assert first.store.rows("SELECT state, standing FROM results") == [
        {"state": "known", "standing": KNOWN}
    ]


def test_an_index_that_came_later_takes_back_what_was_called_new(screen):
    own = screen(EMBEDDED, None)
    relax_and_judge(own, *propose(own, 0, FEP), -0.05)
    explain_all(own)
    (row,) = own.store.rows("SELECT standing, novel, rewarded FROM results")
    assert row == {"standing": NEW, "novel": True, "rewarded": True}
    explain_all(replace(own, index=INDEX))
    (row,) = own.store.rows("SELECT standing, novel, rewarded FROM results")
    assert row == {"standing": KNOWN, "novel": False, "rewarded": False}
    assert {e.kind for e in own.store.load(Explanation)} == {"known"}


def test_against_a_hull_without_structures_no_report_says_new(screen):
    own = screen(HULL_FILE, None)
    for number, crystal in enumerate((FEP, TEXTBOOK["mp-22906"], halite("Cs", "I", 7.7))):
        relax_and_judge(own, *propose(own, number, crystal), -0.99 if number == 0 else -0.05)
    explain_all(own)
    rows = own.store.rows("SELECT standing, novel, unmatched, rewarded FROM results")
    assert Counter(row["standing"] for row in rows) == {UNJUDGED: 3}
    assert not any(row["novel"] for row in rows)
    assert all(row["unmatched"] and row["rewarded"] for row in rows)
    own.store.publish()
    paths = write_report(own.store.directory)
    text = paths.markdown.read_text()
    assert "Novelty not judged: 3 (the reference holds no structures, and there is no index" in text
    assert "3 of 3 (100.0 %)" in text
    assert "novelty not judged)" in text  # of the best
    assert "New next to" not in text
    assert "ovel and" not in text


def test_the_headline_names_what_is_new_and_next_to_what(screen):
    own = screen(EMBEDDED, INDEX)
    crystals = (FEP, caesium_chloride("Fe", "P", 2.8), halite("Li", "P", 5.2))
    for number, crystal in enumerate(crystals):
        relax_and_judge(own, *propose(own, number, crystal), -0.05 + 0.01 * number)
    explain_all(own)
    own.store.publish()
    with open_snapshot(own.store.directory) as connection:
        assert new_words(gather_identities(connection)) == (
            "New next to 3 known structures, 1 of the reference: 1 new composition, "
            "1 new structure of a known compound."
        )
    assert (
        "known structures and duplicates left out: 2 of 3"
        in write_report(own.store.directory).markdown.read_text()
    )
