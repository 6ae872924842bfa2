"""Every proposal in one state; a count that does not add up is noticed."""

import itertools

import duckdb
import pytest

from hullward.agents.planning import ledger, read_evidence, read_outcomes
from hullward.models.crystal import Crystal
from hullward.tools.records import (
    Basis,
    Candidate,
    Explanation,
    FamilyMember,
    Label,
    Proposal,
    Protocol,
    Reason,
    Rejection,
    Relaxation,
    Stage,
    State,
    Suspicion,
    Verdict,
    VerdictLabel,
)
from hullward.tools.store import SHORT_LIST, Store, funnel, open_snapshot
from hullward.tools.store.projection import CountingError

CRYSTAL = Crystal.from_parameters((4, 4, 4), (90, 90, 90), ["Li", "O"], [[0, 0, 0], [0.5] * 3])
PROTOCOL = Protocol()
SECOND_LOOK = Protocol(rattle_a=0.05)


def proposal(name):
    return Proposal(
        proposal_id=name,
        request_id="r",
        campaign_id="k",
        cycle=len(name) % 2,
        index=0,
        operator=name.split("-")[0],
        seed=0,
        raw="",
        format="crystal_text",
    )


def candidate(name, crystal=None):
    return Candidate(
        proposal_id=name,
        candidate_id=f"c-{crystal or name}",
        crystal=CRYSTAL,
        formula="LiO",
        chemsys="Li-O",
        n_atoms=2,
        volume_per_atom_a3=32.0,
        min_distance_a=2.0,
        space_group=1,
        charge_balanced=None,
        charge_note="",
    )


def label(name, kind, moment="before"):
    return Label(proposal_id=name, moment=moment, kind=kind, match_id="match", rms_a=None)


def relaxation(name, converged=True, failure=None, sha="w", protocol=PROTOCOL):
    return Relaxation(
        relaxation_id=Relaxation.make_id(f"c-{name}", sha, protocol),
        candidate_id=f"c-{name}",
        potential="toy",
        potential_sha256=sha,
        energy_scheme="toy",
        protocol=protocol,
        failure=failure,
        converged=converged,
        energy_ev_per_atom=-1.0,
        initial_energy_ev_per_atom=-0.9,
        residual_force_ev_per_a=0.0,
        residual_stress_gpa=0.0,
        steps=1,
        force_calls=10,
        cpu_s=0.5,
        crystal=CRYSTAL,
        volume_per_atom_a3=31.0,
        volume_ratio=1.0,
        space_group_loose=1,
        space_group_tight=1,
    )


def verdict(name, e, word, height="union", version="1", **changes):
    fields = {
        "relaxation_id": Relaxation.make_id(f"c-{name}", "w", PROTOCOL),
        "reference_id": "ref",
        "reference_version": version,
        "height": height,
        "e_above_hull_ev_per_atom": e,
        "decomposition": (),
        "label": word,
        "covered": word != VerdictLabel.BELOW_REFERENCE,
        "coverage_note": "",
        "typical_error_ev_per_atom": None,
    }
    return Verdict(**fields | changes)


def basis(version="1", sha="w"):
    return Basis(
        campaign_id="k",
        potential="toy",
        potential_sha256=sha,
        energy_scheme="toy",
        protocol=PROTOCOL,
        reference_spec="file:x",
        reference_id="ref",
        reference_version=version,
        reference_kind="file",
        reference_statement="",
        metastable_ev_per_atom=0.1,
    )


STABLE, META = VerdictLabel.STABLE, VerdictLabel.METASTABLE
ODD = {"suspicions": (Suspicion.ODD_VOLUME,)}

# name: (records of the proposal, its state, the stages beyond `proposed` it is counted in)
CASES = {
    "parse": (
        [Rejection(proposal_id="parse", stage=Stage.PARSE, reason=Reason.EMPTY, detail="nothing")],
        "rejected_parse",
        "",
    ),
    "check": (
        [Rejection(proposal_id="check", stage=Stage.CHECK, reason=Reason.CLASH, detail="1 Å")],
        "rejected_check",
        "parsed",
    ),
    "bare": ([], "pending", "parsed"),
    "dup": ([candidate("dup"), label("dup", "duplicate")], "duplicate", "parsed valid"),
    "both": (
        [candidate("both"), label("both", "duplicate"), label("both", "known")],
        "duplicate",
        "parsed valid",
    ),
    "twin": ([candidate("twin", "wait")], "duplicate", "parsed valid"),
    "known": ([candidate("known"), label("known", "known")], "known", "parsed valid unique"),
    "wait": ([candidate("wait")], "pending", "parsed valid unique"),
    "loose": (
        [candidate("loose"), relaxation("loose", protocol=SECOND_LOOK)],
        "pending",
        "parsed valid unique",
    ),
    "boom": (
        [candidate("boom"), relaxation("boom", False, Reason.EXPLODED)],
        "failed",
        "parsed valid unique",
    ),
    "slow": (
        [candidate("slow"), relaxation("slow", False, Reason.STALLED)],
        "unconverged",
        "parsed valid unique",
    ),
    "stuck": (
        [candidate("stuck"), relaxation("stuck", False), verdict("stuck", -0.1, STABLE)],
        "unconverged",
        "parsed valid unique",
    ),
    "unjudged": ([candidate("unjudged"), relaxation("unjudged")], "hull_pending", "relaxed"),
    "hull": (
        [
            candidate("hull"),
            relaxation("hull"),
            verdict("hull", None, VerdictLabel.HULL_PENDING),
            verdict("hull", -1.0, STABLE, version="0"),
        ],
        "hull_pending",
        "relaxed",
    ),
    "high": (
        [candidate("high"), relaxation("high"), verdict("high", 0.4, VerdictLabel.UNSTABLE)],
        "judged",
        "relaxed",
    ),
    "meta": (
        [candidate("meta"), relaxation("meta"), verdict("meta", 0.05, META)],
        "judged",
        "relaxed metastable novel_metastable",
    ),
    "stable": (
        [
            candidate("stable"),
            relaxation("stable"),
            relaxation("stable", protocol=SECOND_LOOK),
            verdict("stable", -0.02, STABLE),
            verdict("stable", 0.3, VerdictLabel.UNSTABLE, "reference"),
        ],
        "judged",
        "relaxed metastable stable novel_metastable novel_stable",
    ),
    "fallback": (
        [
            candidate("fallback"),
            relaxation("fallback"),
            verdict("fallback", None, VerdictLabel.HULL_PENDING),
            verdict("fallback", 0.05, META, "reference"),
        ],
        "judged",
        "relaxed metastable novel_metastable",
    ),
    "again": (
        [
            candidate("again"),
            relaxation("again"),
            verdict("again", 0.0, STABLE, rediscovered="mp-1"),
            label("again", "known", "after"),
        ],
        "judged",
        "relaxed metastable stable rediscovered",
    ),
    "knownrelaxed": (
        [
            candidate("knownrelaxed"),
            label("knownrelaxed", "known"),
            relaxation("knownrelaxed"),
            verdict("knownrelaxed", 0.0, STABLE),
        ],
        "judged",
        "relaxed metastable stable",
    ),
    "same": (
        [
            candidate("same"),
            relaxation("same"),
            verdict("same", 0.0, STABLE),
            label("same", "duplicate", "after"),
        ],
        "judged",
        "relaxed metastable stable",
    ),
    "odd": (
        [candidate("odd"), relaxation("odd"), verdict("odd", -0.3, STABLE, **ODD)],
        "judged",
        "relaxed suspect",
    ),
    "reproduced": (
        [
            candidate("reproduced"),
            relaxation("reproduced"),
            verdict("reproduced", -0.3, STABLE, second_look="reproduced", **ODD),
        ],
        "judged",
        "relaxed suspect",
    ),
    "confirmed": (
        [
            candidate("confirmed"),
            relaxation("confirmed"),
            verdict("confirmed", -0.3, STABLE, second_look="confirmed", **ODD),
        ],
        "judged",
        "relaxed metastable stable novel_metastable novel_stable",
    ),
    "below": (
        [
            candidate("below"),
            relaxation("below"),
            verdict("below", -0.1, VerdictLabel.BELOW_REFERENCE),
        ],
        "judged",
        "relaxed below_reference",
    ),
}
ORDER = [*(n for n in CASES if n != "twin"), "twin"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Store.open(tmp_path_factory.mktemp("c") / "c", command="test", create=True) as opened:
        opened.add([basis(), *map(proposal, ORDER), *(r for n in ORDER for r in CASES[n][0])])
        yield opened


def stages(words):
    path = ["parsed", "valid", "unique"] if "relaxed" in words else []
    return {"proposed", *path, *words.split()}


@pytest.mark.parametrize("name", CASES)
def test_a_proposal_is_in_the_state_its_records_tell(store, name):
    rows = store.rows("SELECT state FROM states WHERE proposal_id = ?", [name])
    assert rows == [{"state": CASES[name][1]}]


def test_every_case_together_gives_the_funnel(store):
    counting = funnel.verify(store)
    expected = dict.fromkeys((*funnel.NESTED, *funnel.NOVEL, *funnel.FAMILIES, *funnel.APART), 0)
    for _, _, words in CASES.values():
        for stage in stages(words):
            expected[stage] += 1
    expected["novel_families"] = expected["novel_metastable"]  # none has been compared
    assert counting.funnel == expected
    assert list(counting.funnel) == list(expected)
    assert counting.states == {
        state.value: sum(case[1] == state for case in CASES.values()) for state in State
    }
    assert sum(counting.states.values()) == counting.proposed == len(CASES)
    assert counting.rejections == {"clash": 1, "empty": 1}
    assert set(counting.as_dict()) == {"states", "funnel", "rejections"}


def test_results_tell_reasons_heights_and_costs(store):
    rows = {row["proposal_id"]: row for row in store.rows("SELECT * FROM results")}
    assert len(rows) == len(CASES)
    assert (rows["check"]["reason"], rows["check"]["detail"]) == ("clash", "1 Å")
    assert rows["boom"]["reason"] == "exploded"
    stable = rows["stable"]
    assert stable["e_above_union_ev_per_atom"] == -0.02
    assert stable["e_above_reference_ev_per_atom"] == 0.3
    assert (stable["label"], stable["novel"], stable["volume_per_atom_a3"]) == ("stable", True, 31)
    assert (stable["force_calls"], stable["cpu_s"]) == (20, 1.0)  # the second relaxation included
    assert rows["again"]["rediscovered"] == "mp-1"
    assert rows["same"]["duplicate_after"] == "match"
    assert rows["known"]["known_before"] == "match"
    assert rows["twin"]["duplicate_before"] == "c-wait"
    assert [rows[name]["novel"] for name in ("again", "same", "knownrelaxed")] == [False] * 3
    assert rows["wait"]["volume_per_atom_a3"] == 32
    spent = store.rows("SELECT sum(force_calls) AS n FROM relaxations")[0]["n"]
    assert spent == sum(row["force_calls"] or 0 for row in rows.values())
    operators = store.rows("SELECT * FROM operators")
    assert sum(row["proposed"] for row in operators) == len(CASES)
    assert sum(row["force_calls"] for row in operators) == spent
    discoveries = funnel.count(store).funnel["novel_metastable"]
    assert sum(row["novel_metastable"] for row in operators) == discoveries


def test_a_later_basis_moves_states_and_keeps_the_identity(tmp_path):
    with Store.open(tmp_path / "c", command="test", create=True) as store:
        store.add([*map(proposal, ORDER), *(r for n in ORDER for r in CASES[n][0])])
        counting = funnel.verify(store)  # nothing to rest on: nothing is relaxed or judged yet
        assert counting.states["pending"] == 18
        assert counting.funnel["relaxed"] == 0
        store.add([basis(version="0")])
        assert funnel.verify(store).states["judged"] == 1  # only `hull` has a verdict there
        store.add([basis(sha="other")])
        assert funnel.verify(store).funnel["relaxed"] == 0
        store.add([basis()])
        assert funnel.verify(store).states["judged"] == 11
        assert funnel.count(open_snapshot(store.publish().parent)) == store.count()


def test_the_short_list_is_rewarded_and_a_confirmed_suspect_counts_everywhere(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ledger, "MAX_PARENTS", 99)
    monkeypatch.setattr(ledger, "PARENTS_PER_FORMULA", 99)
    heights = {STABLE: -0.01, META: 0.05, VerdictLabel.UNSTABLE: 0.2}
    looks = {"plain": {}, **{look: ODD | {"second_look": look} for look in
             ("pending", "reproduced", "refuted", "confirmed")}}  # fmt: skip
    records, expected = [basis()], set()
    for (word, low), (height, high), covered, look in itertools.product(
        heights.items(), heights.items(), (True, False), looks
    ):
        if low > high:  # further phases only raise a height
            continue
        name = f"{word}-{height}-{covered}-{look}"
        more = looks[look] | {"covered": covered}
        records += [proposal(name), candidate(name), relaxation(name),
                    verdict(name, low, word, "reference", **more),
                    verdict(name, high, height, **more)]  # fmt: skip
        if covered and low <= 0.1 and look in ("plain", "confirmed"):
            expected.add(name)
    with Store.open(tmp_path / "c", command="test", create=True) as store:
        store.add(records)
        rewarded = {row["proposal_id"] for row in store.rows("FROM results WHERE rewarded")}
        listed = {row["proposal_id"] for row in store.rows(f"FROM results WHERE {SHORT_LIST}")}
        outcomes = read_outcomes(store, 3)
        evidence = read_evidence(store, 3, 0.1)
    assert rewarded == expected
    assert listed < rewarded
    assert any(name.endswith("confirmed") for name in listed)
    assert sum(operator.rewarded for operator in outcomes.operators) == len(rewarded)
    parents = {parent.candidate_id for parent in outcomes.parents}
    assert {f"c-{name}" for name in rewarded} <= parents
    assert not any("pending" in i or "reproduced" in i or "refuted" in i for i in parents)
    assert evidence.successes


def test_a_family_is_one_entry_and_one_reward(tmp_path):
    """Energies 3, 1, 2 and 0 meV/atom; the lowest is high above the hull, so no entry."""
    names = ["a-1", "b-22", "c-1", "d-22"]  # of cycles 1, 0, 1, 0
    members = [
        FamilyMember(
            relaxation_id=relaxation(name).relaxation_id,
            candidate_id=f"c-{name}",
            family_id="c-b-22",
            joined=joined,
            link="lattice",
            kin=None,
        )
        for name, joined in zip(names, ("c-a-1", "c-b-22", "c-a-1", "c-b-22"), strict=True)
    ]
    records = [basis(), *members]
    for name, energy in zip(names, (0.003, 0.001, 0.002, 0.0), strict=True):
        height = 0.4 if name == "d-22" else energy
        word = VerdictLabel.UNSTABLE if name == "d-22" else META
        found = relaxation(name).model_copy(update={"energy_ev_per_atom": energy})
        records += [proposal(name), candidate(name), found, verdict(name, height, word),
                    verdict(name, height, word, "reference")]  # fmt: skip
    with Store.open(tmp_path / "c", command="test", create=True) as store:
        store.add(sorted(records, key=lambda r: isinstance(r, FamilyMember)))
        rows = {row["proposal_id"]: row for row in store.rows("FROM results")}
        counted = funnel.verify(store).funnel
        listed = store.rows(f"SELECT proposal_id FROM results WHERE {SHORT_LIST}")
        families = sum(row["new_families"] for row in store.rows("FROM operators"))
    assert listed == [{"proposal_id": "b-22"}]
    assert [rows[name]["represents_family"] for name in names] == [False, True, False, False]
    assert {(row["family_id"], row["family_size"]) for row in rows.values()} == {("c-b-22", 4)}
    # a-1 and c-1 had joined another family before a later candidate merged the two
    assert [rows[name]["rewarded"] for name in names] == [True, True, False, False]
    assert (counted["novel_metastable"], counted["novel_families"], families) == (3, 1, 2)


def explanation(name, kind, standing):
    return Explanation(
        candidate_id=f"c-{name}", moment="after", kind=kind, match_id="mp-9", match_formula="NdO",
        exchanged=(), inverse=False, rms_a=None, against="", against_id="a", words="", disorder="",
        standing=standing,
    )  # fmt: skip


def member(name, family="c-known", **changes):
    return FamilyMember(
        relaxation_id=relaxation(name).relaxation_id, candidate_id=f"c-{name}", family_id=family,
        joined=family, link="lattice", kin=None, **changes,
    )  # fmt: skip


def test_a_standing_names_the_known_phase_it_is_related_to(tmp_path):
    """By its own lattice, or by a known phase among its family; never of what is known itself."""
    of_known = "new structure of a known compound"
    records = [basis()]
    for name, kind, standing in (
        ("known", "known", "known structure"), ("kin", "new_prototype", of_known),
        ("own", "new_prototype", of_known), ("bent", "new_prototype", of_known),
        ("swapped", "lanthanide_swap", "new composition"), ("alone", "new_prototype", of_known),
    ):  # fmt: skip
        found = "mp-1" if name == "known" else None
        records += [proposal(name), candidate(name), relaxation(name),
                    verdict(name, 0.0, STABLE, rediscovered=found),
                    explanation(name, kind, standing)]  # fmt: skip
    records += [
        member("known", known_kin="mp-1"), member("kin", shared=("Li Mn",)),
        member("own", "c-own", known_kin="mp-2", known_shared=("Li Mn",)),
        member("bent", known_kin="mp-3"), member("swapped", "c-swapped"),
    ]  # fmt: skip
    with Store.open(tmp_path / "c", command="test", create=True) as store:
        store.add(records)
        rows = {r["proposal_id"]: r["qualifier"] for r in store.rows("FROM results")}
    assert rows == {
        "known": None, "kin": "ordering of LiO (mp-1)", "own": "ordering of LiO (mp-2)",
        "bent": "distortion of LiO (mp-3)", "swapped": "lanthanide swap of NdO (mp-9)",
        "alone": None,
    }  # fmt: skip


def test_nothing_proposed_counts_nothing(tmp_path):
    with Store.open(tmp_path / "c", command="test", create=True) as store:
        counting = funnel.verify(store)
    assert set(counting.funnel.values()) == {0}
    assert set(counting.states.values()) == {0}


def unlock(connection, table):
    """The same table without its primary key."""
    connection.execute(f"CREATE TABLE copy AS FROM {table}")
    connection.execute(f"DROP TABLE {table}; ALTER TABLE copy RENAME TO {table}")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("INSERT INTO rejections VALUES ('wait', 'check', 'clash', '')", "both rejected and"),
        ("INSERT INTO rejections VALUES ('none', 'check', 'clash', '')", "of unknown proposals"),
        ("rejections: INSERT INTO rejections FROM rejections", "rejected twice, check, parse"),
        ("proposals: INSERT INTO proposals FROM proposals WHERE operator = 'bare'", "stored twice"),
        ("UPDATE rejections SET reason = 'mood' WHERE proposal_id = 'check'", "unknown reasons"),
        ("UPDATE rejections SET stage = 'mood' WHERE proposal_id = 'check'", "reasons for"),
        ("DELETE FROM proposals WHERE proposal_id = 'meta'", "candidates of unknown proposals"),
        ("DELETE FROM candidates WHERE proposal_id = 'dup'", "proposals of unknown candidates"),
        ("DELETE FROM relaxations WHERE candidate_id = 'c-meta'", "verdicts on unknown"),
        ("UPDATE relaxations SET candidate_id = 'c-x' WHERE converged", "of unknown candidates"),
        (
            "INSERT INTO relaxations SELECT * REPLACE ('r' AS relaxation_id) FROM relaxations "
            "WHERE candidate_id = 'c-meta'",
            "relaxed twice",
        ),
        ("INSERT INTO labels VALUES ('bare', 'before', 'known', 'm', NULL)", "that are no cand"),
        ("UPDATE proposals SET force_calls = 1 WHERE proposal_id = 'meta'", "force calls"),
        ("UPDATE proposals SET force_calls = 1 WHERE proposal_id = 'twin'", "another one brought"),
        ("counts: map {'judged': proposed::UBIGINT} AS states", "by the tables"),
        ("counts: map {'judged': 3::UBIGINT} AS states", "states sum to 3"),
        ("counts: 0 AS relaxed", "0 relaxed by the funnel"),
        ("counts: 99 AS stable", "more stable"),
    ],
)
def test_a_broken_count_is_found(store, tmp_path, tamper, message):
    path = tmp_path / "copy.duckdb"
    store.execute(f"ATTACH '{path}' AS copied")
    store.execute("COPY FROM DATABASE hullward TO copied")
    store.execute("DETACH copied")
    with duckdb.connect(path) as connection:
        funnel.verify(connection)
        if tamper.startswith("counts: "):
            connection.execute("ALTER VIEW counts RENAME TO right_counts")
            wrong = tamper.removeprefix("counts: ")
            connection.execute(
                f"CREATE VIEW counts AS SELECT * REPLACE ({wrong}) FROM right_counts"
            )
        else:
            table, _, sql = tamper.rpartition(": ")
            if table:
                unlock(connection, table)
            connection.execute(sql)
        with pytest.raises(CountingError, match=message):
            funnel.verify(connection)
