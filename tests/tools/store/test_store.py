"""Whatever happens between two adds, nothing acknowledged is lost and nothing counts twice."""

import errno
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, LockedError
from hullward.tools.records import (
    Basis,
    BudgetRaise,
    Calibration,
    CampaignRecord,
    Candidate,
    CycleEnd,
    DiagramPhase,
    Explanation,
    FamilyMember,
    Label,
    ModelAnswer,
    ModelFailure,
    ModelRequest,
    ModelResponse,
    OperatorOutcome,
    PhaseDiagram,
    PhononCheck,
    Plan,
    Product,
    Proposal,
    Protocol,
    Reason,
    Record,
    Rejection,
    Relaxation,
    RunEnd,
    RunTime,
    SecondEnergy,
    SecondOpinion,
    SecondReference,
    SoftMode,
    StabilityProbability,
    Stage,
    Suspect,
    Suspicion,
    SymmetrisedCell,
    TrainingOverlap,
    Verdict,
    VerdictLabel,
)
from hullward.tools.store import (
    TABLES,
    StorageError,
    Store,
    funnel,
    open_snapshot,
    read_first,
    rebuild,
)
from hullward.tools.store.database import DATABASE, SNAPSHOT
from hullward.tools.store.journal import Journal
from hullward.tools.store.lock import Lock
from hullward.tools.store.projection import LONGEST_RECORD, CountingError, Projector

CRYSTAL = Crystal.from_parameters(
    (4, 4, 4.1), (90, 90, 91), ["Li", "O"], [[0, 0, 0], [0.5, 0.5, 1 / 3]]
)
PROTOCOL = Protocol()


def proposal(n, **changes):
    fields = {"proposal_id": f"q-{n}", "request_id": "r", "campaign_id": "k", "cycle": n % 3}
    fields |= {"index": n, "operator": "swap", "seed": 2**63 + n, "raw": f"raw {n}\n\0\u2028"}
    return Proposal(**fields | {"format": "crystal_text"} | changes)


def candidate(n, crystal=None):
    return Candidate(
        proposal_id=f"q-{n}",
        candidate_id=f"c-{n if crystal is None else crystal}",
        crystal=CRYSTAL,
        formula="LiO",
        chemsys="Li-O",
        n_atoms=2,
        volume_per_atom_a3=32.8,
        min_distance_a=2.0,
        space_group=None,
        charge_balanced=None,
        charge_note="",
    )


def relaxation(crystal, sha="w", protocol=PROTOCOL, **changes):
    fields = {
        "relaxation_id": Relaxation.make_id(f"c-{crystal}", sha, protocol),
        "candidate_id": f"c-{crystal}",
        "potential": "toy",
        "potential_sha256": sha,
        "energy_scheme": "toy",
        "protocol": protocol,
        "converged": True,
        "energy_ev_per_atom": -0.1 * crystal,
        "initial_energy_ev_per_atom": 0.1 + 0.2,
        "residual_force_ev_per_a": 0.01,
        "residual_stress_gpa": 1e-300,
        "steps": 5,
        "force_calls": 6,
        "cpu_s": 0.1,
        "crystal": CRYSTAL,
        "volume_per_atom_a3": 30.0,
        "volume_ratio": 0.9,
        "space_group_loose": 225,
        "space_group_tight": None,
        "magmoms_mu_b": (0.5, -0.5),
    }
    return Relaxation(**fields | changes)


def basis(sha="w", version="1", protocol=PROTOCOL):
    return Basis(
        campaign_id="k",
        potential="toy",
        potential_sha256=sha,
        energy_scheme="toy",
        protocol=protocol,
        reference_spec="file:ref.json",
        reference_id="ref",
        reference_version=version,
        reference_kind="file",
        reference_statement="everything",
        metastable_ev_per_atom=0.1,
    )


def verdict(crystal, height="union", e=0.0, sha="w", version="1", **changes):
    fields = {
        "relaxation_id": Relaxation.make_id(f"c-{crystal}", sha, PROTOCOL),
        "reference_id": "ref",
        "reference_version": version,
        "height": height,
        "e_above_hull_ev_per_atom": e,
        "decomposition": (Product(phase_id="a", formula="Li", fraction=0.5),),
        "label": VerdictLabel.STABLE if e is not None else VerdictLabel.HULL_PENDING,
        "covered": True,
        "coverage_note": "",
        "suspicions": (Suspicion.ODD_VOLUME,) if crystal % 4 == 0 else (),
        "typical_error_ev_per_atom": None,
    }
    return Verdict(**fields | changes)


ONE_OF_EACH = [
    CampaignRecord(
        campaign_id="k",
        kind="campaign",
        name="test",
        seed=1,
        settings={"a": [1, {"b": None}], "ü": 0.1},
        versions={"x": "1"},
    ),
    basis(),
    SecondReference(
        campaign_id="k",
        reference_spec="mp:2025.09.25",
        reference_id="mp:GGA_GGA+U",
        reference_version="2025.09.25",
        reference_kind="materials_project",
        reference_statement="more",
        disagreement_ev_per_atom=0.1,
    ),
    Plan(
        plan_id="plan",
        campaign_id="k",
        cycle=0,
        quotas={"swap": 3},
        parents=("c-1",),
        formulas=(),
        outcomes=(OperatorOutcome(operator="s", proposed=1, judged=1, rewarded=0, force_calls=2),),
        results_up_to_cycle=-1,
        reasons=("because",),
    ),
    proposal(0, parents=("c-9", "p"), evidence_ids=("f",), sampling={"t": 0.7}, plan_id="plan"),
    proposal(1),
    Rejection(proposal_id="q-1", stage=Stage.PARSE, reason=Reason.TRUNCATED, detail="line 3"),
    candidate(0),
    Label(proposal_id="q-0", moment="after", kind="known", match_id="mp-1", rms_a=0.01),
    relaxation(0),
    verdict(0),
    Explanation(
        candidate_id="c-0",
        moment="after",
        kind="substitution",
        match_id="mp-1",
        match_formula="NaCl",
        exchanged=("Na→K",),
        inverse=False,
        rms_a=0.01,
        against="1 known structure",
        against_id="kn-1",
        words="same prototype as NaCl (mp-1) with Na→K",
        disorder="",
    ),
    Suspect(
        relaxation_id=relaxation(0).relaxation_id,
        candidate_id="c-0",
        reference_id="ref",
        reference_version="1",
        suspicions=("odd_volume",),
        reasons=("too large",),
        second_look="refuted",
    ),
    TrainingOverlap(
        candidate_id="c-0",
        model="m",
        formula_seen=True,
        match_id=None,
        match_seen=None,
        words="its formula was in the training data of m",
    ),
    FamilyMember(
        relaxation_id=relaxation(0).relaxation_id,
        candidate_id="c-0",
        family_id="c-0",
        joined="c-0",
        link="first",
        kin=None,
        known_kin="e-1",
        known_shared=("Li Mn",),
    ),
    SymmetrisedCell(
        relaxation_id=relaxation(0).relaxation_id,
        candidate_id="c-0",
        tolerance_a=0.1,
        space_group=221,
        accepted=True,
        reason="",
        max_displacement_a=0.02,
        energy_ev_per_atom=-0.1,
        higher_ev_per_atom=0.0003,
        residual_force_ev_per_a=0.01,
        crystal=CRYSTAL,
        magmoms_mu_b=(0.5, -0.5),
        force_calls=2,
        cpu_s=0.1,
    ),
    PhononCheck(
        candidate_id="c-0",
        relaxation_id="r",
        potential="toy",
        potential_sha256="w",
        result="imaginary_modes",
        detail="",
        supercell=(2, 2, 1),
        n_atoms=8,
        q_points=((0, 0, 0), (0.5, 0, 0)),
        soft=(SoftMode(q=(0.5, 0, 0), modes=1, frequency_thz=-1.5, milder_thz=-1.4),),
        lowest_thz=-1.5,
        noise_thz=0.1,
        force_calls=9,
        cpu_s=0.1,
    ),
    StabilityProbability(
        relaxation_id=relaxation(0).relaxation_id,
        reference_id=verdict(0).reference_id,
        reference_version=verdict(0).reference_version,
        calibrator_id="cal-1",
        p_below_50mev=0.2,
        p_below_100mev=0.4,
    ),
    Calibration(
        calibrator_id="cal-1", name="c", potential="toy", statement="of a test", rows=3, checks=()
    ),
    SecondOpinion(
        relaxation_id=relaxation(0).relaxation_id,
        reference_id=verdict(0).reference_id,
        reference_version=verdict(0).reference_version,
        potential="other",
        potential_sha256="1",
        kind="decomposition",
        first_ev_per_atom=0.01,
        second_ev_per_atom=0.03,
        difference_ev_per_atom=0.02,
        margin_ev_per_atom=0.05,
        disputed=False,
        volume_ratio=1.01,
        same_structure=True,
        rms_a=0.01,
        failure="",
        force_calls=9,
    ),
    SecondEnergy(
        relaxation_id=relaxation(0).relaxation_id,
        potential="other",
        potential_sha256="1",
        energy_ev_per_atom=-3.1,
        correction_ev_per_atom=-0.3,
        higher_ev_per_atom=0.02,
        largest_force_ev_per_a=0.4,
    ),
    CycleEnd(campaign_id="k", cycle=0, proposed=2, judged=1, force_calls=6),
    RunEnd(campaign_id="k", number=0, reason="finished", detail=""),
    RunTime(campaign_id="k", number=0, wall_s=1.5),
    ModelRequest(
        request_id="r",
        campaign_id="k",
        cycle=0,
        position=1,
        purpose="formula",
        backend="crystal",
        model="nano",
        prompt="a\0\u2028b",
        form="plain",
        sampling={"temperature": 0.7, "n": 2},
        seed=2**63,
        parents=("c-1",),
        wish={"formula": "LiO"},
        memories=3,
    ),
    ModelResponse(request_id="r", exchange=0, path="completions", model="m", status=200, body="{"),
    ModelAnswer(request_id="r", index=1, text="4.2\n\0", model="nano@1", finish_reason="stop"),
    ModelFailure(request_id="r", kind="timeout", message="no answer", retry=True),
    BudgetRaise(campaign_id="k", number=0, budget={"cycles": 4, "tokens": None}),
    PhaseDiagram(
        chemsys="Li-O",
        reference_id="ref",
        reference_version="1",
        element_energies_ev_per_atom={"Li": -1.9, "O": -4.9},
        phases=(
            DiagramPhase(
                phase_id="a",
                formula="Li2O",
                formation_energy_ev_per_atom=-2.0,
                e_above_hull_ev_per_atom=0.0,
                space_group=225,
            ),
        ),
        facets=((0,),),
    ),
]


def tables(source):
    """Every table, the order of rows aside."""
    names = [table.name for table in TABLES.values()]
    return {name: sorted(map(repr, source.execute(f"FROM {name}").fetchall())) for name in names}


def open_store(directory):
    return Store.open(directory, command="test", create=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template") / "campaign"
    with open_store(directory) as store:
        store.add(ONE_OF_EACH)
        store.publish()
    return directory


@pytest.fixture
def filled(template, tmp_path):
    """A published campaign with one record of each kind."""
    return Path(shutil.copytree(template, tmp_path / "campaign"))


@pytest.mark.parametrize("kind", TABLES)
def test_every_field_of_a_record_has_a_column_and_every_column_a_source(filled, kind):
    table = TABLES[kind]
    with open_snapshot(filled) as connection:
        columns = {column[0] for column in connection.execute(f"FROM {table.name}").description}
    assert columns == set(table.record.model_fields) | set(table.extra)


def test_every_kind_of_record_has_a_table(filled):
    leaves = {
        "SoftMode",
        "Flaw",
        "Product",
        "Protocol",
        "OperatorOutcome",
        "Check",
        "DiagramPhase",
        "Curve",
        "LeftOut",
        "Worst",
        "Wish",
    }  # parts of other records
    ours = {
        k.__name__
        for k in Record.__subclasses__()
        if k.__module__.startswith("hullward.tools.records.")
    }
    kept = {table.record.__name__ for table in TABLES.values()}
    assert ours - leaves == kept
    assert {type(record).__name__ for record in ONE_OF_EACH} == kept


def test_every_record_comes_back_as_it_was(filled):
    with open_store(filled) as store:
        for record in ONE_OF_EACH:
            assert record in store.load(type(record))
        assert store.load(Proposal, ["q-1"]) == [ONE_OF_EACH[5]]
        assert store.load(Relaxation, ["c-0"], by="candidate_id") == [relaxation(0)]
        assert store.load(Rejection, []) == []
        assert store.notes == []
        (row,) = store.rows("SELECT * FROM proposals WHERE proposal_id = ?", ["q-0"])
        assert [row] == store.rows("FROM proposals WHERE proposal_id = $id", {"id": "q-0"})
        assert (row["candidate_id"], row["force_calls"], row["cpu_s"]) == ("c-0", 6, 0.1)


def test_adding_again_adds_nothing(filled):
    journal = (filled / "journal.jsonl").read_bytes()
    with open_store(filled) as store:
        assert store.add(ONE_OF_EACH) == 0
        assert store.add([*ONE_OF_EACH[::-1], *ONE_OF_EACH]) == 0
    assert (filled / "journal.jsonl").read_bytes() == journal


def test_the_first_content_stays_except_where_the_latest_counts(filled):
    with open_store(filled) as store:
        assert store.add([proposal(1, raw="other"), relaxation(0, steps=99)]) == 0
        assert store.load(Proposal, ["q-1"])[0].raw == ONE_OF_EACH[5].raw
        assert store.add([verdict(0, e=0.2), verdict(0, e=0.3), verdict(0, "reference")]) == 2
        heights = {v.height: v.e_above_hull_ev_per_atom for v in store.load(Verdict)}
        assert heights == {"union": 0.3, "reference": 0.0}
        assert store.add([verdict(0, e=0.3)]) == 0
        assert store.add([basis(version="2")]) == 1
        assert store.add([basis(version="1")]) == 1
        assert store.load(Basis) == [basis(version="1")]
        before = tables(store)
    rebuild(filled)
    assert tables(open_snapshot(filled)) == before


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (candidate(7), "no Proposal"),
        (candidate(1), "rejected and a candidate"),
        (ONE_OF_EACH[6].model_copy(update={"proposal_id": "q-7"}), "no Proposal"),
        (ONE_OF_EACH[6].model_copy(update={"proposal_id": "q-0"}), "rejected and a candidate"),
        (ONE_OF_EACH[8].model_copy(update={"proposal_id": "q-1"}), "no Candidate"),
        (relaxation(7), "not stored"),
        (verdict(7), "no Relaxation"),
    ],
)
def test_a_record_that_could_not_be_counted_is_refused_with_its_whole_batch(
    filled, record, message
):
    with open_store(filled) as store:
        before = tables(store)
        with pytest.raises(CountingError, match=message):
            store.add([proposal(5), record])
        assert tables(store) == before
        assert store.add([proposal(5)]) == 1


ANSWER = ModelAnswer(request_id="r", index=7, text="", model="m", finish_reason="stop")
DEEP = functools.reduce(lambda inner, _: {"a": inner}, range(9000), 1)
TOO_LARGE = [
    (ANSWER, "completion_tokens", 2**63),
    (ANSWER, "completion_tokens", 2**62),
    (ANSWER, "prompt_tokens", -4_000_000),
    (ANSWER, "index", 2**31),
    (ANSWER, "index", 10**5000),
    (ANSWER, "text", "half a character \ud800"),
    (ANSWER, "text", "x" * (LONGEST_RECORD + 1)),
    (proposal(7), "seed", 10**60),
    (proposal(7), "seed", 10**5000),
    (proposal(7), "cycle", 2**31),
    (proposal(7), "sampling", {"temperature": float("nan")}),
    (proposal(7), "sampling", {"top_p": [float("inf")]}),
    (proposal(7), "sampling", DEEP),
    (relaxation(0, sha="v"), "force_calls", -1),
    (relaxation(0, sha="v"), "cpu_s", float("nan")),
    (relaxation(0, sha="v"), "steps", 2**40),
    (ONE_OF_EACH[0], "seed", 10**60),
]


@pytest.mark.parametrize(
    ("record", "field", "value"),
    TOO_LARGE,
    ids=[f"{flaw[1]}-{n}" for n, flaw in enumerate(TOO_LARGE)],
)
def test_what_no_table_can_hold_is_refused_before_it_is_acknowledged(filled, record, field, value):
    journal = (filled / "journal.jsonl").read_bytes()
    with open_store(filled) as store:
        with pytest.raises(InputError, match=f"cannot be stored: .*{type(record).__name__}"):
            store.add([proposal(5), record.model_copy(update={field: value})])
        assert (filled / "journal.jsonl").read_bytes() == journal
        assert store.add([proposal(5)]) == 1
        store.publish()


@pytest.mark.parametrize(
    ("field", "value"), [("cycle", 2**31 - 1), ("seed", 10**38 - 1), ("seed", 1 - 10**38)]
)
def test_the_largest_numbers_come_back(filled, field, value):
    with open_store(filled) as store:
        store.add([proposal(7).model_copy(update={field: value})])
        assert getattr(store.load(Proposal, ["q-7"])[0], field) == value
        store.publish()
    rebuild(filled)


def write_lines(directory, *lines):
    with closing(Journal(directory / "journal.jsonl")) as journal:
        journal.append([(kind, json.dumps(data)) for kind, data in lines])


@pytest.mark.parametrize(("record", "field", "value"), TOO_LARGE[:4])
def test_a_directory_opens_though_its_journal_holds_what_no_table_can(filled, record, field, value):
    bad = json.loads(record.model_dump_json()) | {field: value}
    good = json.loads(proposal(9).model_dump_json())
    write_lines(filled, ("ModelAnswer", bad), ("Proposal", good))
    with open_store(filled) as store:
        assert any(f"is not in the database: ModelAnswer: {field}" in note for note in store.notes)
        assert store.load(Proposal, ["q-9"]) == [proposal(9)]
        assert len(store.load(ModelAnswer)) == 1
        assert store.add([proposal(10)]) == 1
        before = tables(store)
    rebuild(filled)
    assert tables(open_snapshot(filled)) == before


@pytest.mark.parametrize(
    "line",
    [
        ("Hologram", {"id": "h"}),
        ("ModelAnswer", json.loads(ANSWER.model_dump_json()) | {"colour": "red"}),
        ("Plan", json.loads(ONE_OF_EACH[3].model_dump_json()) | {"outcomes": [{"wit": 1}]}),
    ],
)
def test_records_of_a_newer_version_are_refused_in_a_sentence(filled, line):
    write_lines(filled, line)
    before = (filled / "journal.jsonl").read_bytes()
    for use in (open_store, rebuild):
        with pytest.raises(InputError, match="this version does not know; use the version"):
            use(filled)
    assert (filled / "journal.jsonl").read_bytes() == before


def test_a_directory_belongs_to_one_campaign(filled):
    with open_store(filled) as store, pytest.raises(InputError, match="belongs to k, not to other"):
        store.add([ONE_OF_EACH[0].model_copy(update={"campaign_id": "other"})])


def test_only_one_store_at_a_time(filled):
    with open_store(filled), pytest.raises(LockedError, match=r"\(test, since"):
        open_store(filled)
    open_store(filled).close()


def test_directories_that_hold_something_else_are_refused_untouched(tmp_path, filled):
    foreign = tmp_path / "papers"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="something else"):
        open_store(foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="not a directory"):
        open_store(foreign / "thesis.tex")
    with pytest.raises(InputError, match="does not exist"):
        Store.open(tmp_path / "none", command="test")
    (filled / "journal.jsonl").unlink()
    with pytest.raises(InputError, match="no journal"):
        open_store(filled)


def damage_at(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def test_a_garbage_database_is_kept_aside_and_built_again(filled):
    before = tables(open_snapshot(filled))
    for content in (b"", b"garbage" * 1000):
        (filled / DATABASE).write_bytes(content)
        with open_store(filled) as store:
            assert tables(store) == before
            assert "built again from the journal" in store.notes[0]
    kept = {path.read_bytes() for path in filled.glob(f"{DATABASE}.corrupt-*")}
    assert kept == {b"", b"garbage" * 1000}


def test_a_directory_of_another_version_is_built_again_by_whoever_reads_it(filled):
    before = tables(open_snapshot(filled))
    for name in (DATABASE, "snapshot.duckdb"):
        with duckdb.connect(filled / name) as old:
            old.execute("UPDATE schema_version SET digest = 'older'; DROP VIEW funnel")
    with (
        closing(Lock(filled, "run")),
        pytest.raises(InputError, match=r"another version .*\(run, since"),
    ):
        open_snapshot(filled)
    first = open_snapshot(filled)  # made again by this call, and as usable as any later one
    assert first.sql("SELECT count(*) FROM proposals").fetchall() == [(2,)]
    assert tables(open_snapshot(filled)) == before
    assert funnel.count(open_snapshot(filled)).proposed == 2
    assert not list(filled.glob("*.corrupt-*"))


class CountedReads(io.FileIO):
    total = 0

    def readinto(self, buffer):
        size = super().readinto(buffer)
        CountedReads.total += size or 0
        return size


def journal_reads(monkeypatch, path, work):
    """How often work reads the whole journal."""
    CountedReads.total, usual = 0, Path.open

    def counted(self, *args, **kwargs):
        ours = self == path
        return io.BufferedReader(CountedReads(self)) if ours else usual(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", counted)
        work()
    return CountedReads.total / path.stat().st_size


def test_opening_reads_the_journal_once(filled, monkeypatch):
    with open_store(filled) as store:
        store.add(proposal(n) for n in range(2, 2000))
    before, journal = (filled / DATABASE).read_bytes(), filled / "journal.jsonl"
    with open_store(filled) as store:
        store.add([proposal(n) for n in range(2000, 2010)])
    count = functools.partial(journal_reads, monkeypatch, journal)
    assert count(lambda: open_store(filled).close()) == pytest.approx(1, abs=0.02)
    (filled / DATABASE).write_bytes(before)  # ten lines behind
    assert count(lambda: open_store(filled).close()) == pytest.approx(1, abs=0.05)
    (filled / DATABASE).unlink()  # checked, then replayed
    assert count(lambda: open_store(filled).close()) == pytest.approx(2, abs=0.02)
    assert count(lambda: rebuild(filled)) == pytest.approx(2, abs=0.02)
    with closing(Lock(filled, "run")):
        assert count(lambda: read_first(filled, CampaignRecord)) < 0.2
        assert read_first(filled, CampaignRecord) == ONE_OF_EACH[0]


def test_a_database_of_another_journal_is_not_trusted(filled, tmp_path):
    with open_store(tmp_path / "other") as store:
        store.add([proposal(n) for n in range(100, 120)])
    (tmp_path / "other" / DATABASE).replace(filled / DATABASE)
    with open_store(filled) as store:
        assert "does not follow from the journal" in store.notes[0]
        assert tables(store) == tables(open_snapshot(filled))


def test_a_database_another_program_has_open_is_left_alone(filled):
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(filled / DATABASE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    other.stdout.readline()
    with pytest.raises(LockedError, match="open in another program"):
        open_store(filled)
    other.communicate(b"\n")
    assert list(filled.glob("*.corrupt-*")) == []


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_flipped_bytes_anywhere_in_database_or_wal_lose_nothing(tmp_path, rounds):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_store import *\n"
        "s = open_store(Path(sys.argv[1])); s.add(ONE_OF_EACH); s.publish()\n"
        "s.add(proposal(n) for n in range(2, 60)); os._exit(0)"
    )
    here = os.path.dirname(__file__)
    directory = tmp_path / "campaign"
    subprocess.run([sys.executable, "-c", code, str(directory), here], check=True)
    pristine = {name: (directory / name).read_bytes() for name in (DATABASE, f"{DATABASE}.wal")}
    rng = random.Random(3)
    with open_store(directory) as store:
        expected = tables(store)
    for _ in range(rounds):
        for name in pristine:
            for other, content in pristine.items():
                (directory / other).write_bytes(content)
            damage_at(directory / name, rng.randrange(len(pristine[name])))
            with open_store(directory) as store:
                store.publish()
                assert tables(open_snapshot(directory)) == expected


def test_a_database_that_refuses_a_write_is_brought_up_by_the_next_command(filled, monkeypatch):
    with open_store(filled) as store:

        def refuse(*_):
            raise duckdb.IOException("IO Error: No space left on device")

        monkeypatch.setattr(Projector, "_write", refuse)
        with pytest.raises(StorageError, match="the journal is complete"):
            store.add([proposal(5)])
        monkeypatch.undo()
        assert store.add([proposal(5), proposal(6)]) == 1
        assert store.count().proposed == 4
        store.publish()


def test_a_full_disk_keeps_the_batch_out_altogether(filled, monkeypatch):
    with open_store(filled) as store:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            store.add([proposal(5)])
        monkeypatch.undo()
        assert store.load(Proposal, ["q-5"]) == []
        assert store.add([proposal(5)]) == 1


def test_a_writer_of_a_moved_directory_writes_nothing_into_another(template, filled, tmp_path):
    with open_store(filled) as store:
        moved = filled.rename(tmp_path / "moved")
        for use in (store.publish, lambda: store.add([proposal(5)])):
            with pytest.raises(StorageError, match="was moved or removed"):
                use()
        shutil.copytree(template, filled)  # another campaign at the old place
        before = {path.name: path.read_bytes() for path in filled.iterdir()}
        for use in (store.publish, lambda: store.add([proposal(5)])):
            with pytest.raises(StorageError, match="was moved or removed"):
                use()
        assert {path.name: path.read_bytes() for path in filled.iterdir()} == before
    with open_store(moved) as store:
        assert store.add([proposal(5)]) == 1


def test_what_killed_writers_left_is_removed(filled):
    (filled / "inbox").mkdir()
    old, young = filled / "inbox" / ".1.part", filled / ".2.part"
    for path in (old, young, filled / "snapshot.duckdb.new", filled / "journal.jsonl.new"):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_store(filled).close()
    assert young.exists()  # perhaps another process is writing it
    assert not old.exists()
    assert not list(filled.glob("*.new"))


def test_a_full_disk_is_not_taken_for_damage(filled, monkeypatch):
    before = {path.name for path in filled.iterdir()}
    usual = duckdb.connect

    def full(path=":memory:", *args, **kwargs):
        if str(path).startswith(str(filled)):
            raise duckdb.IOException("IO Error: Could not write file: No space left on device")
        return usual(path, *args, **kwargs)

    monkeypatch.setattr(duckdb, "connect", full)
    with pytest.raises(StorageError, match="No space left"):
        open_store(filled)
    monkeypatch.undo()
    (filled / DATABASE).write_bytes(b"garbage")
    monkeypatch.setattr(duckdb, "connect", full)
    with pytest.raises(StorageError, match="No space left"):
        open_store(filled)
    monkeypatch.undo()
    assert {path.name for path in filled.iterdir()} == before
    open_store(filled).close()


def test_a_broken_identity_is_not_published(filled):
    old = (filled / SNAPSHOT).read_bytes()
    with open_store(filled) as store:
        store.execute("INSERT INTO rejections VALUES ('q-0', 'check', 'clash', '')")
        with pytest.raises(CountingError, match="both rejected and candidates, q-0"):
            store.publish()
    assert (filled / SNAPSHOT).read_bytes() == old


def test_readers_never_fail_while_snapshots_are_published(filled):
    seen, errors, done = [], [], threading.Event()

    def read():
        while not done.is_set():
            try:
                with open_snapshot(filled) as connection:
                    proposed = connection.execute("SELECT count(*) FROM proposals").fetchone()[0]
                    stage = connection.execute("SELECT count FROM funnel LIMIT 1").fetchone()[0]
                seen.append(proposed)
                time.sleep(0.01)
                assert stage == proposed
            except Exception as error:  # any error at all fails the test
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    with open_store(filled) as store:
        for n in range(2, 8):
            store.add([proposal(n)])
            store.publish()
    time.sleep(0.2)
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(set(seen)) > 2
    assert seen[-1] == 8


def test_a_snapshot_can_only_be_read(filled):
    with open_snapshot(filled) as connection:
        for sql in (
            "INSERT INTO proposals (proposal_id) VALUES ('x')",
            "SELECT * FROM read_text('/etc/hostname')",
            "ATTACH '/tmp/other.db'",
            "COPY proposals TO '/tmp/out.csv'",
            "SET enable_external_access = true",
            "INSTALL fts",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)


# One process imports everything, then forks a writer a round: the writers die, not the imports.
WRITERS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import candidate, open_store, proposal
def say(text):  # in one write: unbuffered, a kill within `print` leaves half a line
    os.write(1, (text + chr(10)).encode())
for line in sys.stdin:
    if not (child := os.fork()):
        signal.alarm(60)  # a writer nobody kills must not outlive the test
        n = int(line)
        with open_store(Path(sys.argv[1])) as store:
            say("open")
            while True:
                store.add([candidate(n), proposal(n), proposal(n + 1)])
                say(f"{n} {n + 1}")
                n += 2
    say(f"pid {child}")
    os.waitpid(child, 0)
    say("dead")
"""


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_moment_loses_nothing_it_acknowledged(tmp_path, rounds):
    directory, rng = tmp_path / "campaign", random.Random(11)
    nursery = subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(directory), os.path.dirname(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged = []
    for n in range(rounds):
        nursery.stdin.write(f"{n * 10_000}\n")
        nursery.stdin.flush()
        moment = "pid" if n % 3 == 1 else "open"  # some die while opening, most while adding
        child, begun, killer = 0, False, None
        for line in nursery.stdout:
            words = line.split()
            if words[0] == "dead":
                break
            if words[0].isdecimal():
                acknowledged += [f"q-{word}" for word in words]
            child = int(words[1]) if words[0] == "pid" else child
            begun = begun or words[0] == moment
            if child and begun and killer is None:
                killer = threading.Timer(rng.uniform(0, 0.15), os.kill, (child, signal.SIGKILL))
                killer.start()
        killer.join()
    nursery.communicate()
    with open_store(directory) as store:
        stored = [row.proposal_id for row in store.load(Proposal)]
        store.publish()
        before = tables(store)
    assert len(acknowledged) > 5
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    rebuild(directory)
    assert tables(open_snapshot(directory)) == before


def test_seven_thousand_proposals_take_seconds(tmp_path):
    batch = [proposal(n) for n in range(7000)] + [candidate(n) for n in range(7000)]
    with open_store(tmp_path / "campaign") as store:
        start = time.perf_counter()
        assert store.add(batch) == 14_000
        store.publish()
        assert time.perf_counter() - start < 15


class Campaign(RuleBasedStateMachine):
    """Any order of adds, repeats, reopenings and publications keeps the identity."""

    @initialize()
    def begin(self):
        self.home = tempfile.TemporaryDirectory()
        self.directory = os.path.join(self.home.name, "campaign")
        self.store = open_store(self.directory)
        self.given, self.proposed, self.carried, self.relaxed = [], 0, set(), set()
        self.open_ids = set()

    def give(self, *records):
        self.given += records
        self.store.add(records)

    @rule(count=st.integers(1, 3))
    def propose(self, count):
        fresh = range(self.proposed, self.proposed + count)
        self.proposed += count
        self.open_ids |= set(fresh)
        self.give(*(proposal(n) for n in fresh))

    @precondition(lambda self: self.open_ids)
    @rule(data=st.data(), reason=st.sampled_from([Stage.PARSE, Stage.CHECK]))
    def reject(self, data, reason):
        n = data.draw(st.sampled_from(sorted(self.open_ids)))
        self.open_ids.discard(n)
        self.give(Rejection(proposal_id=f"q-{n}", stage=reason, reason=Reason.NO_SITES, detail=""))

    @precondition(lambda self: self.open_ids)
    @rule(data=st.data(), labels=st.sets(st.sampled_from(["known", "duplicate"])))
    def accept(self, data, labels):
        n = data.draw(st.sampled_from(sorted(self.open_ids)))
        crystal = data.draw(st.sampled_from([n, *sorted(self.carried)]))
        self.open_ids.discard(n)
        self.carried.add(crystal)
        words = [
            Label(proposal_id=f"q-{n}", moment="before", kind=kind, match_id="m", rms_a=None)
            for kind in sorted(labels)
        ]
        self.give(*words, candidate(n, crystal))

    @precondition(lambda self: self.carried)
    @rule(
        data=st.data(),
        sha=st.sampled_from(["w", "x"]),
        end=st.sampled_from([(True, None), (False, None), (False, "exploded"), (False, "stalled")]),
    )
    def relax(self, data, sha, end):
        crystal = data.draw(st.sampled_from(sorted(self.carried)))
        self.relaxed.add((crystal, sha))
        self.give(relaxation(crystal, sha, converged=end[0], failure=end[1]))

    @precondition(lambda self: self.relaxed)
    @rule(
        data=st.data(),
        height=st.sampled_from(["reference", "union"]),
        version=st.sampled_from(["1", "2"]),
        e=st.sampled_from([None, -0.01, 0.05]),
    )
    def judge(self, data, height, version, e):
        crystal, sha = data.draw(st.sampled_from(sorted(self.relaxed)))
        self.give(verdict(crystal, height, e, sha, version))

    @rule(sha=st.sampled_from(["w", "x"]), version=st.sampled_from(["1", "2"]))
    def rest_on(self, sha, version):
        self.give(basis(sha, version))

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def repeat(self, data):
        first_wins = [r for r in self.given if not TABLES[type(r).__name__].latest]
        if first_wins:
            again = data.draw(st.lists(st.sampled_from(first_wins), max_size=4))
            assert self.store.add(again) == 0

    @rule()
    def reopen(self):
        before = tables(self.store)
        self.store.close()
        self.store = open_store(self.directory)
        assert self.store.notes == []
        assert tables(self.store) == before

    @rule()
    def publish(self):
        self.store.publish()

    def teardown(self):
        assert funnel.verify(self.store).proposed == self.proposed
        before = tables(self.store)
        self.store.close()
        rebuild(self.directory)
        assert tables(open_snapshot(self.directory)) == before
        self.home.cleanup()


TestCampaign = Campaign.TestCase
TestCampaign.settings = settings(
    max_examples=4,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
