"""Two references at once: the first decides, the second stands beside, and they may disagree."""

import json
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import rejudge_directory, run
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.errors import InputError, PreflightError
from hullward.tools.records import SecondReference, Verdict
from hullward.tools.report import write_report
from hullward.tools.store import SHORT_LIST, Store, open_snapshot

BOTH = """SELECT e_above_reference_ev_per_atom, e_above_second_reference_ev_per_atom,
                 second_minus_first_ev_per_atom, references_disagree, second_label,
                 second_rediscovered, label FROM results WHERE state = 'judged'"""


@pytest.fixture(scope="module")
def deeper(toy_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same world with its oxide of lithium 0.4 eV/atom deeper."""
    path = tmp_path_factory.mktemp("deeper") / "deeper.jsonl"
    rows = [json.loads(line) for line in toy_reference.read_text().splitlines()]
    for row in rows:
        if row["entry_id"] == "toy-LiO":
            row["energy"] -= 0.4 * sum(row["composition"].values())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    path.with_name("deeper.reference.json").write_text(json.dumps(sidecar))
    return path


def campaign(settings: dict[str, Any], **changes: Any) -> Campaign:
    quick = {
        "operators": ["perturbation", "swap"],
        "budget": {"cycles": 2, "proposals_per_cycle": 6},
        "relax_known": True,  # the oxides of the reference, on which the two disagree
    }
    return parse_settings(Campaign, settings | quick | changes, "test")


@pytest.fixture(scope="module")
def alone(toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "c"
    run(directory, campaign(toy_settings))
    return directory


@pytest.fixture(scope="module")
def both(
    toy_settings: dict[str, Any], deeper: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("both") / "c"
    run(directory, campaign(toy_settings, second_reference=f"file:{deeper}"))
    return directory


def test_both_heights_are_stored_and_rows_that_disagree_are_flagged(both: Path) -> None:
    with open_snapshot(both) as connection:
        rows = connection.execute(BOTH).fetchall()
    assert rows
    for first, second, difference, disagree, label, _, _ in rows:
        assert difference == pytest.approx(second - first)
        assert difference >= -1e-9  # a deeper hull only raises heights
        assert disagree == (abs(difference) > 0.1)
        assert label
    assert {row[3] for row in rows} == {True, False}


def test_the_first_reference_alone_decides(both: Path, alone: Path) -> None:
    counts = "SELECT stage, count FROM funnel ORDER BY stage"
    chosen = "SELECT formula, state, label, round(e_above_union_ev_per_atom, 6) FROM results"
    with open_snapshot(both) as one, open_snapshot(alone) as other:
        assert one.execute(counts).fetchall() == other.execute(counts).fetchall()
        assert sorted(map(str, one.execute(chosen).fetchall())) == sorted(
            map(str, other.execute(chosen).fetchall())
        )
        listed = f"SELECT count(*) FROM results WHERE {SHORT_LIST}"
        assert one.execute(listed).fetchall() == other.execute(listed).fetchall()


def test_without_a_second_reference_its_columns_are_empty(alone: Path) -> None:
    with open_snapshot(alone) as connection:
        rows = connection.execute(BOTH).fetchall()
    assert {row[1:6] for row in rows} == {(None,) * 5}
    report = json.loads((alone / "report" / "report.json").read_text())
    assert report["second_reference"] is None
    assert "Second reference" not in (alone / "report" / "report.html").read_text()


def test_the_report_shows_both_and_says_where_they_disagree(both: Path) -> None:
    paths = write_report(both)
    report = json.loads(paths.json.read_text())
    assert report["second_reference"]["reference_id"] == "file:deeper.jsonl"
    assert report["second_reference"]["disagreement_ev_per_atom"] == 0.1
    flagged = report["references_disagree"]["entries"]
    assert report["references_disagree"]["total"] == len(flagged) > 0
    assert all(e["second_minus_first_ev_per_atom"] > 0.1 for e in flagged)
    for text in (paths.html.read_text(), paths.markdown.read_text()):
        assert "differ by more than 100 meV/atom are flagged" in text
        assert "THE REFERENCES DISAGREE by" in text


def test_the_margin_is_a_setting(toy_settings: dict[str, Any], deeper: Path, both: Path) -> None:
    wide = campaign(toy_settings, second_reference=f"file:{deeper}", disagreement_ev_per_atom=5.0)
    with Store.open(both, command="test") as store:
        [second] = store.load(SecondReference)
        store.add([second.model_copy(update={"disagreement_ev_per_atom": 5.0})])
        store.publish()
        with open_snapshot(both) as connection:
            assert {row[3] for row in connection.execute(BOTH).fetchall()} == {False}
        store.add([second])
        store.publish()
    assert wide.disagreement_ev_per_atom == 5.0


def test_resuming_adds_nothing_and_rejudging_keeps_the_second(
    both: Path, toy_reference: Path
) -> None:
    before = (both / "journal.jsonl").read_bytes()
    run(both, None)
    assert (both / "journal.jsonl").read_bytes() == before
    rejudge_directory(both, f"file:{toy_reference}", 0)
    with Store.open(both, command="test") as store:
        ids = [v.reference_id for v in store.load(Verdict) if v.height == "reference"]
        assert len(store.load(SecondReference)) == 1
    assert ids.count("file:deeper.jsonl") == ids.count("file:toy.jsonl") > 0


def test_equal_settings_keep_their_campaign_id(toy_settings: dict[str, Any]) -> None:
    plain = campaign(toy_settings)
    assert plain.campaign_id == campaign(toy_settings, disagreement_ev_per_atom=0.2).campaign_id
    assert plain.campaign_id != campaign(toy_settings, second_reference="embedded").campaign_id


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ("same", InputError, "is the same as reference"),
        ("embedded", PreflightError, "energies do not compare"),
        ("nowhere", InputError, "unknown reference 'nowhere'"),
    ],
)
def test_a_second_reference_obeys_the_same_rules(
    second: str,
    error: type[Exception],
    message: str,
    toy_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    spec = toy_settings["reference"] if second == "same" else second
    with pytest.raises(error, match=message):
        run(tmp_path / "c", campaign(toy_settings, second_reference=spec))
