"""Questions read the snapshot and nothing else; answers survive every format."""

import csv
import io
import json
import time

import pyarrow.parquet as pq
import pytest

from hullward.models.errors import InputError
from hullward.tools.records import Proposal
from hullward.tools.store import Store
from hullward.tools.store.query import as_csv, as_json, as_text, describe, run_query
from hullward.tools.store.schema import MEANINGS


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    directory = tmp_path_factory.mktemp("c") / "it's"  # a quote in the path
    with Store.open(directory, command="test", create=True) as store:
        store.add(
            Proposal(
                proposal_id=f"q-{n}",
                request_id="r",
                campaign_id="k",
                cycle=0,
                index=n,
                operator="=1+1" if n else 'swap, "a"\nb',
                parents=("a", "b"),
                seed=2**64 + n,
                raw="",
                format="crystal_text",
            )
            for n in range(5)
        )
        store.publish()
    return directory


def test_a_select_answers_with_columns_and_plain_values(campaign):
    result = run_query(campaign, "SELECT proposal_id, seed, parents FROM proposals ORDER BY seed")
    assert result.columns == ["proposal_id", "seed", "parents"]
    assert result.rows[0] == ("q-0", 2**64, ["a", "b"])
    assert len(result.rows) == 5
    assert not result.truncated


@pytest.mark.parametrize(
    ("limit", "rows", "truncated"), [(0, 0, True), (4, 4, True), (5, 5, False), (9, 5, False)]
)
def test_a_limit_says_whether_it_cut(campaign, limit, rows, truncated):
    result = run_query(campaign, "FROM states", limit)
    assert (len(result.rows), result.truncated) == (rows, truncated)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "this is nothing"),
        ("-- only a remark", "this is nothing"),
        ("SELECT 1; SELECT 2", "SELECT, SELECT"),
        ("DELETE FROM proposals", "DELETE"),
        ("DROP TABLE proposals", "DROP"),
        ("CREATE TABLE memory.t (a INT)", "CREATE"),
        ("COPY proposals TO 'out.csv'", "COPY"),
        ("ATTACH 'other.duckdb'", "ATTACH"),
        ("SET enable_external_access = true", "SET"),
        ("PRAGMA version", "PRAGMA"),
        ("CALL duckdb_settings()", "CALL"),
        ("INSTALL fts", "LOAD"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN"),
        ("SELEC 1", "not SQL"),
        ("SELECT 'open", "not SQL"),
        ("SELECT * FROM nowhere", "nowhere does not exist"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled"),
        ("SELECT * FROM '/etc/hostname'", "query failed"),
        ("SELECT * FROM read_csv('https://example.org/x.csv')", "query failed"),
        ("FROM glob('/*')", "disabled"),
        ("FROM proposals JOIN query('DROP TABLE proposals') ON true", "query failed"),
        ("WITH x AS (DELETE FROM proposals RETURNING 1) FROM x", "read-only"),
        ("SELECT * FROM campaign", "campaign does not exist"),  # a variable of this program
        ("SELECT error('boo')", "boo"),
        ("SELECT CASE WHEN range > 150000 THEN error('late') END FROM range(200000)", "late"),
        ("SELECT list(range), sum(range) FROM range(1000000000)", "Out of Memory|longer than"),
    ],
)
def test_anything_else_is_refused_with_its_reason(campaign, sql, message):
    with pytest.raises(InputError, match=message):
        run_query(campaign, sql, time_limit_s=2)
    assert {path.name for path in campaign.iterdir()} <= {
        "hullward.duckdb",
        "journal.head",
        "journal.jsonl",
        "lock",
        "snapshot.duckdb",
    }


def test_a_query_without_end_is_ended(campaign):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"longer than 0\.2 s"):
        run_query(
            campaign,
            "SELECT count(*) FROM range(10000000) a, range(10000000) b "
            "WHERE (a.range * b.range) % 7 = 3",
            time_limit_s=0.2,
        )
    assert time.monotonic() - start < 10


def test_no_snapshot_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(InputError, match=r"holds no campaign.*hullward run"):
        run_query(tmp_path, "SELECT 1")
    Store.open(tmp_path / "c", command="test", create=True).close()
    with pytest.raises(InputError, match="no snapshot yet; `hullward rebuild"):
        run_query(tmp_path / "c", "SELECT 1")
    (tmp_path / "c" / "snapshot.duckdb").write_text("garbage")
    with pytest.raises(InputError, match=r"cannot be read.*hullward rebuild"):
        run_query(tmp_path / "c", "SELECT 1")


MIXED = """
SELECT 'a|b' AS word, -1 AS n, -0.5::DOUBLE AS x, NULL AS nothing, 0.1::DECIMAL(4, 2) AS d,
       0.0::DOUBLE / 0 AS nan, ['x', NULL] AS list, {'k': 1} AS struct, DATE '2026-01-31' AS day,
       true AS yes, 'Å' AS "=head", 1 AS n
"""


def test_csv_keeps_spreadsheets_from_running_text(campaign):
    rows = list(csv.reader(io.StringIO(as_csv(run_query(campaign, MIXED)))))
    row = dict(zip(*rows, strict=True))
    assert (row["word"], row["n"], row["x"], row["nothing"]) == ("a|b", "-1", "-0.5", "")
    assert row["list"] == '["x", null]'
    assert row["'=head"] == "Å"
    operators = run_query(campaign, "SELECT operator FROM proposals ORDER BY seed")
    assert list(csv.reader(io.StringIO(as_csv(operators))))[1:3] == [['swap, "a"\nb'], ["'=1+1"]]
    for start in "=+-@\t\r":
        answer = run_query(campaign, f"SELECT concat(chr({ord(start)}), 'cmd') AS c")
        assert list(csv.reader(io.StringIO(as_csv(answer), newline="")))[1] == [f"'{start}cmd"]


def test_json_is_strict_and_lossless_where_json_can_be(campaign):
    (row,) = json.loads(as_json(run_query(campaign, MIXED)))
    assert (row["n"], row["x"], row["d"], row["nan"], row["day"]) == (
        -1,
        -0.5,
        0.1,
        None,
        "2026-01-31",
    )
    assert (row["list"], row["struct"], row["yes"], row["n_2"]) == (["x", None], {"k": 1}, True, 1)
    assert as_json(run_query(campaign, "SELECT 1 WHERE false")) == "[]\n"


def test_parquet_keeps_values_and_types(campaign, tmp_path):
    result = run_query(campaign, MIXED)
    pq.write_table(result.table, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("list").to_pylist() == [["x", None]]
    empty = run_query(campaign, "SELECT energy_ev_per_atom, formula FROM results", 0)
    pq.write_table(empty.table, tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").types == empty.table.schema.types


def test_text_is_an_aligned_table(campaign):
    text = as_text(run_query(campaign, "SELECT 'ab' AS a, 12 AS number, NULL AS n"))
    assert text == "a   number  n\n--  ------  ----\nab      12  NULL\n"
    assert "  -5.028\n" in as_text(run_query(campaign, "SELECT 'x' AS a, -5.02824783::DOUBLE AS b"))


def test_every_column_of_every_view_is_described_and_every_question_runs(campaign):
    document = describe(campaign)
    for view, about in document["views"].items():
        bare = [c["name"] for c in about["columns"] if not c["meaning"] and view != "counts"]
        assert (view, bare) == (view, [])
    for view, (_, meanings) in MEANINGS.items():
        columns = [c["name"] for c in document["views"][view]["columns"]]
        assert set(meanings) <= set(columns), view
    assert len(document["questions"]) == 5
    for sql in document["questions"].values():
        run_query(campaign, sql)
