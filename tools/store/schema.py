"""The tables and views of a campaign's DuckDB file, laid out in an empty file.

The file is a projection of the journal: one row a record, nothing that the journal does not hold.
Where a proposal stands is stored nowhere; the view `results` derives it. A file of another layout
is not migrated but built again from the journal, which is always right and fast enough.
"""

from __future__ import annotations

import hashlib

import duckdb

from hullward.tools.store.tables import TABLES
from hullward.tools.store.views import VIEWS

STATEMENTS = (
    "CREATE TABLE schema_version (digest VARCHAR)",
    "CREATE SCHEMA bookkeeping",
    # the last journal line that is in these tables, and its checksum
    "CREATE TABLE bookkeeping.applied (seq BIGINT, checksum VARCHAR)",
    *(table.sql for table in TABLES.values()),
    VIEWS,
)
DIGEST = hashlib.blake2b("\n".join(STATEMENTS).encode(), digest_size=8).hexdigest()


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Lay out an empty file; checkpointed at once, so that no DDL is ever left in a WAL."""
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO schema_version VALUES (?)", [DIGEST])
    connection.execute("INSERT INTO bookkeeping.applied VALUES (0, '')")
    connection.execute("CHECKPOINT")


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file was laid out by exactly these statements; raises duckdb.Error if by none."""
    rows = connection.execute("SELECT digest FROM schema_version").fetchall()
    return rows == [(DIGEST,)]
