"""The report says what the store says, in one file that loads nothing and runs nothing."""

import json
import re
from html.parser import HTMLParser

import pytest
from pymatgen.core import Lattice, Structure

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools import records as r
from hullward.tools.report import gather, systems, write_report
from hullward.tools.report.names import MATERIALS_PROJECT, reflections
from hullward.tools.report.render import markdown_text
from hullward.tools.report.schema import Report
from hullward.tools.report.words import mev, notes, remarks, standing
from hullward.tools.store import SHORT_LIST, SHORT_LIST_ORDER, Store, open_snapshot

K = "k-1"
ATTACK = (
    "<script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)>`|[a](http://evil.test)"
)
REFERENCE = {"reference_id": "embedded-li-mn-o", "reference_version": "5e1f" * 8}
ROCKSALT = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0),
            (0.5, 0.5, 0.5), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]  # fmt: skip
BASIS = r.Basis(
    campaign_id=K,
    potential="chgnet-0.3.0",
    potential_sha256="ab" * 32,
    energy_scheme="mp2020-corrected",
    protocol=r.Protocol(),
    reference_spec="embedded",
    **REFERENCE,
    reference_kind="embedded",
    reference_statement="All known Li-Mn-O phases of 12 prototypes.",
    metastable_ev_per_atom=0.1,
)


FORTY = r.Plan(
    plan_id="plan-0", campaign_id=K, cycle=0, quotas={"substitution": 40}, parents=(),
    formulas=(), outcomes=(), results_up_to_cycle=-1, reasons=(),
)  # fmt: skip


def campaign(**changes):
    values = {"campaign_id": K, "kind": "campaign", "name": "li-mn-o", "seed": 7}
    settings = {"systems": ["Li-Mn-O"], "budget": {"cycles": 2}}
    return r.CampaignRecord(**values, settings=settings, versions={"hullward": "0.1.0"}).model_copy(
        update=changes
    )


def crystal(metals, a):
    return Crystal.from_parameters((a, a, a), (90, 90, 90), [*metals, *"OOOO"], ROCKSALT)


def proposal(i, words="{}"):
    return r.Proposal(
        proposal_id=f"q-{i}", request_id="req", campaign_id=K, cycle=i % 2, index=i,
        operator="perturbation" if i % 3 else "substitution", parents=("c-parent",), seed=7,
        raw=words, prompt=words, model=words if i == 0 else None, format="crystal_json",
    )  # fmt: skip


def candidate(i, made):
    return r.Candidate(
        proposal_id=f"q-{i}", candidate_id=made.content_id, crystal=made, formula=made.formula,
        chemsys=made.chemsys, n_atoms=made.n_atoms, volume_per_atom_a3=made.volume_per_atom_a3,
        min_distance_a=2.0, space_group=225, charge_balanced=True, charge_note="Li+ Mn3+ O2-",
    )  # fmt: skip


def relaxation(made, **changes):
    relaxed = Crystal.from_arrays([[1.01 * x for x in v] for v in made.lattice],
                                  made.species, made.frac_coords)  # fmt: skip
    base = r.Relaxation(
        relaxation_id=r.Relaxation.make_id(made.content_id, BASIS.potential_sha256, r.Protocol()),
        candidate_id=made.content_id, potential=BASIS.potential,
        potential_sha256=BASIS.potential_sha256, energy_scheme=BASIS.energy_scheme,
        protocol=r.Protocol(), converged=True, energy_ev_per_atom=-6.5,
        initial_energy_ev_per_atom=-6.4, residual_force_ev_per_a=0.03, residual_stress_gpa=0.1,
        steps=30, force_calls=31, cpu_s=2.0, crystal=relaxed, volume_ratio=1.03,
        volume_per_atom_a3=relaxed.volume_per_atom_a3, space_group_loose=225, space_group_tight=1,
    )  # fmt: skip
    return base.model_copy(update=changes)


def verdicts(relaxed, over_reference, over_union, label, **changes):
    products = (
        r.Product(phase_id="e-mno", formula="MnO", fraction=0.5),
        r.Product(phase_id="e-li2o", formula="Li2O", fraction=0.5),
    )
    base = {
        **REFERENCE, "relaxation_id": relaxed.relaxation_id, "decomposition": products,
        "label": label, "covered": True, "coverage_note": "complete", **changes,
        "typical_error_ev_per_atom": 0.063,
    }  # fmt: skip
    return [
        r.Verdict(**base, height="reference", e_above_hull_ev_per_atom=over_reference),
        r.Verdict(**base, height="union", e_above_hull_ev_per_atom=over_union),
    ]


def every_outcome(words="{}"):
    """Records of a small campaign in which everything happens once."""
    made = [crystal(("Li", "Mn") * 2, 4.0 + 0.05 * i) for i in range(14)]
    made[6] = crystal(("Li", "Li", "Li", "Mn"), 4.2)
    yield campaign(settings={"systems": ["Li-Mn-O"], "goal": words, "budget": {"cycles": 2}})
    yield BASIS
    for cycle in (0, 1):
        yield r.Plan(
            plan_id=f"plan-{cycle}", campaign_id=K, cycle=cycle, quotas={"substitution": 7},
            parents=(), formulas=(), outcomes=(), results_up_to_cycle=cycle - 1, reasons=(words,),
        )  # fmt: skip
    yield from (proposal(i, words) for i in range(14))
    yield r.Rejection(proposal_id="q-0", stage="parse", reason="bad_angles", detail=words)
    yield r.Rejection(proposal_id="q-1", stage="check", reason="atoms_too_close", detail="0.4 Å")
    yield from (candidate(i, made[i]) for i in range(2, 14))
    yield r.Label(proposal_id="q-2", moment="before", kind="duplicate",
                  match_id=made[3].content_id, rms_a=0.01)  # fmt: skip
    yield r.Label(proposal_id="q-3", moment="before", kind="known", match_id="e-lmo", rms_a=0.0)
    relaxed = {i: relaxation(made[i]) for i in range(4, 13)}
    relaxed[4] = relaxation(made[4], converged=False, failure=r.Reason.EXPLODED, detail=words)
    relaxed[5] = relaxation(made[5], converged=False, failure=r.Reason.STALLED)
    yield from relaxed.values()
    yield from verdicts(relaxed[6], 0.04, 0.04, "metastable")
    yield from verdicts(relaxed[7], -0.012, 0.0, "stable")
    yield from verdicts(relaxed[8], 0.3, 0.31, "unstable")
    yield from verdicts(relaxed[9], 0.0, 0.001, "metastable", rediscovered="e-lmo")
    yield from verdicts(relaxed[10], -0.4, 0.0, "stable", suspicions=("far_below_hull",),
                        second_look="pending")  # fmt: skip
    yield from verdicts(relaxed[11], -0.02, 0.0, "below_reference", covered=False)
    yield r.CycleEnd(campaign_id=K, cycle=0, proposed=7, judged=3, force_calls=100)
    yield r.RunEnd(campaign_id=K, number=0, reason="budget", detail="2 cycles done")


def publish(directory, records):
    with Store.open(directory, command="test", create=True) as store:
        store.add(records)
        store.publish()
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("campaign") / "run", list(every_outcome()))


@pytest.fixture(scope="module")
def written(directory):
    return write_report(directory)


class Page(HTMLParser):
    """Everything of a page that could load, run or hide something."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "a":
            self.links.append(dict(attrs))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def assert_inert(html):
    page = Page(html)
    assert not set(page.tags) & {"script", "iframe", "object", "embed", "link", "img", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    addresses = [v for k, v in page.attributes if k in {"src", "href", "xlink:href", "action"}]
    outside = [a for a in addresses if not a.startswith(("#", "data:text/plain;base64,"))]
    # searches that a reader may follow: plain links, of a formula or a system alone
    searches = [link for link in page.links if link.get("href") in outside]
    assert len(searches) == len(outside)
    for link in searches:
        assert re.fullmatch(f"{re.escape(MATERIALS_PROJECT)}[?](formula|chemsys)=[A-Za-z0-9-]+",
                            link["href"])  # fmt: skip
        assert link["rel"] == "noopener noreferrer"
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    return page


def test_states_of_every_format_sum_to_what_was_proposed(written, directory):
    report = json.loads(written.json.read_text())
    assert sum(report["states"].values()) == report["funnel"]["proposed"] == 14
    assert {state for state, n in report["states"].items() if n == 1} == {
        "rejected_parse", "rejected_check", "duplicate", "known", "failed", "unconverged",
        "pending", "hull_pending",
    }  # fmt: skip
    assert report["states"]["judged"] == 6
    assert "| **proposed** | **14** |" in written.markdown.read_text()
    assert "proposed 14" in Page(written.html.read_text()).text


def test_the_short_list_is_the_novel_metastable_part_of_the_funnel(written, directory):
    report = Report.model_validate_json(written.json.read_text())
    ids = [e.candidate_id for e in report.short_list.entries]
    with open_snapshot(directory) as connection:
        listed = connection.execute(
            f"SELECT candidate_id FROM results WHERE {SHORT_LIST} ORDER BY {SHORT_LIST_ORDER}"
        ).fetchall()
    assert ids == [candidate_id for (candidate_id,) in listed]
    assert len(ids) == report.short_list.total == report.funnel["novel_metastable"] == 2
    assert [e.e_above_union_ev_per_atom for e in report.short_list.entries] == [0.0, 0.04]


def test_what_is_counted_apart_is_listed_apart(written):
    report = Report.model_validate_json(written.json.read_text())
    listings = (report.rediscovered, report.suspects, report.below_reference)
    assert [listing.total for listing in listings] == [
        report.funnel[k] for k in ("rediscovered", "suspect", "below_reference")
    ]
    listed = {e.candidate_id for listing in listings for e in listing.entries}
    assert listed.isdisjoint(e.candidate_id for e in report.short_list.entries)


def test_json_reads_back_as_the_same_report(written):
    text = written.json.read_text()
    assert Report.model_validate_json(text).model_dump_json(indent=1) + "\n" == text


def test_the_page_loads_and_runs_nothing(written):
    page = assert_inert(written.html.read_text())
    policy = next(v for k, v in page.attributes if k == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_every_link_within_the_page_has_its_place(written):
    html = written.html.read_text()
    page = Page(html)
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    inside = {link["href"][1:] for link in page.links if link.get("href", "").startswith("#")}
    assert inside <= set(ids)
    report = Report.model_validate_json(written.json.read_text())
    for e in report.short_list.entries:  # from the list to the card and its CIF, and back
        assert {e.candidate_id, f"row-{e.candidate_id}", f"cif-{e.candidate_id}"} <= inside


def test_the_glossary_explains_each_word_once_in_every_format(written):
    report = Report.model_validate_json(written.json.read_text())
    page, prose = Page(written.html.read_text()).text, written.markdown.read_text()
    asked = {
        "judged", "match", "rediscovered", "below the reference", "covered", "family", "suspect",
        "union", "standing", "known structure", "new structure of a known compound",
        "new composition", "novelty not judged", "second network", "duplicate", "ordering of",
    }  # fmt: skip
    assert asked <= report.glossary.keys()
    for word, sentence in report.glossary.items():
        assert re.fullmatch(r"[A-Z][^.]*[.]", sentence), word
        assert page.count(f"{word} {sentence}") == prose.count(f"- {word}: {sentence}") == 1


def test_words_of_models_and_users_stay_text(tmp_path):
    paths = write_report(publish(tmp_path / "run", list(every_outcome(ATTACK))))
    page = assert_inert(paths.html.read_text())
    assert ATTACK in page.text
    prose = re.sub(r"^```.*?^```", "", paths.markdown.read_text(), flags=re.S | re.M)
    assert "<script" not in prose
    assert "http://" not in prose
    assert not re.findall(r"(?<!\\)\]\(", prose)


def test_both_heights_stand_signed_beside_the_error_and_the_reference(written):
    text = Page(written.html.read_text()).text
    assert "0 meV/atom above the hull (reference + this campaign)" in text
    assert "−12 meV/atom over the reference alone" in text
    assert "±63 meV/atom typical error of chgnet-0.3.0" in text
    assert "embedded-li-mn-o version 5e1f5e1f5e1f" in text


def test_without_a_calibrator_no_probability_is_made_up(written):
    assert "No probability is given" in written.html.read_text(encoding="utf-8")
    assert "No probability is given" in written.markdown.read_text(encoding="utf-8")


def test_five_sentences_lead(written):
    report = Report.model_validate_json(written.json.read_text())
    assert len(report.headline) == 5
    searched, found, best, sure, then = report.headline
    assert "Li-Mn-O: 14 proposals over 2 cycles, 7 of 14 (50.0 %) relaxed" in searched
    assert "2 of 14 (14.3 %)" in found
    assert report.short_list.entries[0].candidate_id in best
    assert "not DFT" in sure
    assert "hullward export" in then


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([campaign()], "Nothing was proposed"),
        ([campaign()], "The run stopped before any cycle"),
        ([campaign(kind="screen"), proposal(0)], "no structure was relaxed"),
        ([campaign(), proposal(0)], "No run has ended here yet"),
        ([campaign(kind="screen"), proposal(0)], "1 of 1 proposals are pending"),
        ([campaign(), BASIS, proposal(0)], "The short list is empty"),
        ([campaign(), FORTY, proposal(0)], "39 of 40 (97.5 %) planned proposals were not made"),
    ],
    ids=[
        "nothing",
        "no cycle",
        "not relaxed",
        "no run end",
        "screening",
        "empty short list",
        "few",
    ],
)
def test_what_did_not_happen_is_said(tmp_path, records, said):
    paths = write_report(publish(tmp_path / "run", records))
    assert said in Page(paths.html.read_text()).text
    assert said in paths.markdown.read_text()


def test_a_report_goes_where_it_is_told_and_replaces_the_old_one(directory, tmp_path):
    first = write_report(directory, tmp_path / "out")
    before = first.html.read_text()
    again = write_report(directory, tmp_path / "out")
    assert again == first
    assert again.html.read_text() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.html", "report.json", "report.md",
    ]  # fmt: skip


def test_no_report_over_a_file(directory, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_report(directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("ev", "text"), [(0.0123, "+12"), (-0.0031, "−3"), (0.0001, "0"), (-0.0001, "0"), (None, "—")]
)
def test_heights_are_signed(ev, text):
    assert mev(ev) == text


@pytest.mark.parametrize("words", ["a|b", "`x`", "![i](http://h)", "<b>", "*x*", "www.evil.test"])
def test_markdown_is_inert(words):
    text = markdown_text(words)
    assert not re.search(r"(?<!\\)[|`*\[\]!<>]|https?://|www\.", text)


def test_a_report_of_many_names_what_it_leaves_out(directory, monkeypatch):
    """What plots and lists hold is bounded; totals and lowest formulas are those of all."""
    whole = Report.model_validate_json(write_report(directory).json.read_text())
    monkeypatch.setattr(systems, "MOST_POINTS", 1)
    monkeypatch.setattr(gather, "LISTED", 1)
    paths = write_report(directory)
    short, page = Report.model_validate_json(paths.json.read_text()), paths.html.read_text()
    monkeypatch.undo()
    (every,), (some,) = whole.systems, short.systems
    assert [p.name for p in some.points] == [p.name for p in every.points][:1]
    assert some.left_out > 0
    assert (some.lowest, some.formulas) == (every.lowest, every.formulas)
    assert f"Not drawn: {some.left_out} higher candidates." in page
    assert short.short_list.total == whole.short_list.total > len(short.short_list.entries) == 1


def test_heights_and_progress_are_those_of_the_counts(written):
    """Each judged structure once in the histogram; the last cycle has the whole short list."""
    report = Report.model_validate_json(written.json.read_text())
    page = Page(written.html.read_text()).text
    bins = report.heights.bins
    assert sum(b.union for b in bins) == sum(b.reference for b in bins) == 6
    assert report.heights.structures == report.states["judged"] == 6
    counted = {(b.from_mev, b.to_mev): (b.reference, b.union) for b in bins if b.reference}
    assert counted == {(None, -100): (1, 0), (-25, 0): (2, 0), (0, 25): (1, 4), (25, 50): (1, 1),
                       (300, 325): (1, 1)}  # fmt: skip
    first, last = (cycle.progress for cycle in report.cycles)
    assert (first.best_so_far_ev_per_atom, last.best_so_far_ev_per_atom) == (0.04, -0.012)
    assert (first.families_so_far, last.families_so_far) == (1, report.short_list.total)
    sentence = (
        "The short list grew to 2 families by cycle 1; its lowest height over the reference was "
        "+40 meV/atom after cycle 0 and −12 meV/atom after cycle 1."
    )
    assert sentence in page
    assert sentence in written.markdown.read_text()
    assert "The short list by cycle" in page
    assert "Heights above the hull" in page


def test_proposals_that_nobody_made_are_counted_by_cycle(tmp_path):
    paths = write_report(publish(tmp_path / "run", [campaign(), FORTY, proposal(0)]))
    report = Report.model_validate_json(paths.json.read_text())
    assert [cycle.not_made for cycle in report.cycles] == [39]
    said = "39 of 40 (97.5 %) planned proposals were not made"
    assert Page(paths.html.read_text()).text.count(said) == paths.markdown.read_text().count(said)
    assert paths.markdown.read_text().count(said) == 2  # at the top, and beside the cycles


def test_the_line_of_an_entry_ends_at_what_is_known(tmp_path):
    """q-8 was made from q-7, which was written by a model; q-7 from what is no candidate."""
    records = list(every_outcome())
    seven = next(x.candidate_id for x in records if isinstance(x, r.Candidate)
                 and x.proposal_id == "q-7")  # fmt: skip
    made = {"q-6": {"parents": (seven,), "operator": "swap"},
            "q-7": {"parents": ("e-lmo",), "model": "org/writer"}}  # fmt: skip
    records = [
        x.model_copy(update=made.get(x.proposal_id, {})) if isinstance(x, r.Proposal) else x
        for x in records
    ]
    paths = write_report(publish(tmp_path / "run", records))
    line = f"swap in cycle 0, from {seven[:10]} LiMnO2 (perturbation in cycle 1, written by "
    line += "writer), from the known phase e-lmo"
    assert line in Page(paths.html.read_text()).text
    assert line in paths.markdown.read_text()


def opinion(relaxed, difference):
    return r.SecondOpinion(
        **REFERENCE, relaxation_id=relaxed.relaxation_id,
        potential="other-1", potential_sha256="cd" * 32, kind="decomposition", disputed=False,
        first_ev_per_atom=0.04, second_ev_per_atom=0.04 + difference,
        difference_ev_per_atom=difference, margin_ev_per_atom=0.05, force_calls=3,
        volume_ratio=1.0, same_structure=True, rms_a=0.01, failure="",
    )  # fmt: skip


def test_another_potential_is_compared_only_where_there_is_one(tmp_path, written):
    assert "Other potentials" not in written.html.read_text()
    records = list(every_outcome())
    relaxed = [x for x in records if isinstance(x, r.Relaxation)]
    opinions = [opinion(relaxed[2], 0.01), opinion(relaxed[3], 0.03)]
    paths = write_report(publish(tmp_path / "run", [*records, *opinions]))
    sentence = (
        "other-1 gave a second opinion for 2 judged candidates: on average 20 meV/atom higher than "
        "chgnet-0.3.0, with a standard deviation of 14 meV/atom."
    )
    assert sentence in Page(paths.html.read_text()).text
    assert sentence in paths.markdown.read_text()
    assert "Heights by chgnet-0.3.0 and other-1, relaxed by it" in paths.html.read_text()


def test_a_card_names_its_cell_and_its_standing(written):
    report = Report.model_validate_json(written.json.read_text())
    page, prose = Page(written.html.read_text()).text, written.markdown.read_text()
    for entry in report.short_list.entries:
        lengths, _ = entry.crystal.parameters
        for text in (page, prose):
            assert f"{entry.n_atoms} atoms" in text
            assert f"a {lengths[0]:.3f}, b {lengths[1]:.3f}, c {lengths[2]:.3f} Å" in text
            assert reflections(entry.crystal) in text
            assert f"?formula={entry.formula}" in (
                prose if text is prose else written.html.read_text()
            )


def test_reflections_are_those_of_the_powder():
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.640), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    shown = reflections(Crystal.from_structure(salt.get_primitive_structure()))
    angles = [float(line.split("°")[0]) for line in shown.split(", ")]
    measured = [31.70, 45.45, 56.48, 66.23, 75.29, 83.98]  # PDF 5-628, for Kα1
    assert angles == pytest.approx(measured, abs=0.15)
    assert "31.7° 100" in shown


def test_on_a_known_lattice_no_structure_type_is_called_new(written):
    entry = Report.model_validate_json(written.json.read_text()).short_list.entries[0]
    of_known = "new structure of a known compound"
    new = "new prototype: none of 3 known structures matches, with any exchange of elements"
    plain = entry.model_copy(update={"standing": of_known, "novelty": f"{of_known}; {new}"})
    ordering = "ordering of LiMnO2 (mp-1)"
    known = {"qualifier": ordering, "novelty": f"{of_known}; {ordering}; {new}; may be known"}
    related = plain.model_copy(update=known)
    assert standing(related) == f"{of_known}; {ordering}"
    assert notes(plain).endswith(f"{of_known}; new structure type")
    assert notes(related).endswith(f"{of_known}; {ordering}; may be known")
    assert remarks(related).endswith("may be known")
    assert of_known not in remarks(related)
