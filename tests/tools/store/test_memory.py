"""Pages that were read do not stay in memory."""

from pathlib import Path

import duckdb

from hullward.tools.store.database import SETTINGS, release_pages


def held_mb(connection: duckdb.DuckDBPyConnection) -> float:
    found = connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
    assert found is not None
    return float(found[0]) / 1e6


def test_released_pages_take_no_memory_and_the_limit_stays(tmp_path: Path) -> None:
    connection = duckdb.connect(tmp_path / "x.duckdb", config=SETTINGS)
    connection.execute("CREATE TABLE t AS SELECT hash(range) AS h FROM range(6_000_000)")
    connection.execute("CHECKPOINT")
    limit = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    total = connection.execute("SELECT bit_xor(h) FROM t").fetchall()
    assert held_mb(connection) > 40
    release_pages(connection)
    assert held_mb(connection) <= 33
    assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == limit
    assert connection.execute("SELECT bit_xor(h) FROM t").fetchall() == total


def test_what_is_not_on_the_disk_yet_is_not_lost(tmp_path: Path) -> None:
    connection = duckdb.connect(tmp_path / "x.duckdb", config=SETTINGS)
    connection.execute("CREATE TABLE t AS SELECT hash(range) AS h FROM range(6_000_000)")
    connection.begin()
    connection.execute("INSERT INTO t SELECT hash(range) FROM range(6_000_000, 8_000_000)")
    release_pages(connection)
    connection.commit()
    held = connection.execute("SELECT count(*), bit_xor(h) FROM t").fetchall()
    assert (
        held
        == connection.execute(
            "SELECT count(*), bit_xor(hash(range)) FROM range(8_000_000)"
        ).fetchall()
    )
