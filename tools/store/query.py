"""Queries on the latest snapshot: one SELECT, no files, bounded memory and time.

Some functions of SQL heed neither limit; a process that only queries can set hard ones.
"""

from __future__ import annotations

import csv
import io
import json
import math
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from hullward.models.errors import InputError
from hullward.tools.store.campaign_store import open_snapshot
from hullward.tools.store.schema import MEANINGS, QUESTIONS

MEMORY_LIMIT = "1GB"
TIME_LIMIT_S = 60.0
HARD_LIMIT_BYTES = 3 << 30  # DuckDB's memory, the answer and its text together
HARD_LIMIT_S = 90.0


@contextmanager
def hard_limits(
    on_late: Callable[[], object],
    *,
    seconds: float = HARD_LIMIT_S,
    more_bytes: int = HARD_LIMIT_BYTES,
) -> Iterator[None]:
    """Bound what a query may use that does not heed its own limits.

    Memory: a request beyond more_bytes fails. Time: on_late, called in a thread of its own, should
    end the process, for nothing else ends a computation that cannot be interrupted.
    """
    timer = threading.Timer(seconds, on_late)
    timer.daemon = True
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: no limit of memory but DuckDB's own
        pages = 0
    if pages:
        wanted = pages * resource.getpagesize() + more_bytes
        soft = wanted if before[0] == resource.RLIM_INFINITY else min(wanted, before[0])
        resource.setrlimit(resource.RLIMIT_AS, (soft, before[1]))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        resource.setrlimit(resource.RLIMIT_AS, before)


@dataclass(frozen=True)
class QueryResult:
    """The result of one SELECT."""

    table: pa.Table
    truncated: bool  # there were more rows than the limit

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """Plain Python values; whole numbers are int, however wide."""
        columns = [[_plain(value) for value in column.to_pylist()] for column in self.table.columns]
        return list(zip(*columns, strict=True))


def run_query(
    directory: Path, sql: str, limit: int | None = None, *, time_limit_s: float = TIME_LIMIT_S
) -> QueryResult:
    """Run a query on the snapshot of a directory; at most limit rows.

    Raises InputError for anything but one SELECT, an SQL error, a query that takes too long or
    too much memory, and a directory without a snapshot.
    """
    if limit is not None and limit < 0:
        raise InputError(f"the row limit must not be negative, got {limit}")
    connection = open_snapshot(directory, {"memory_limit": MEMORY_LIMIT})
    try:
        _only_select(connection, sql)
        with _deadline(connection, time_limit_s):
            return _fetch(connection, sql, limit)
    except (duckdb.Error, OSError) as error:  # Arrow passes errors of a running query as OSError
        if "interrupt" in str(error).lower():
            raise InputError(f"the query took longer than {time_limit_s:g} s") from error
        raise InputError(f"the query failed: {error}") from error
    except MemoryError as error:
        raise InputError("the query takes too much memory; ask for less, or add a LIMIT") from error
    finally:
        connection.close()


def describe(directory: Path) -> dict[str, Any]:
    """What can be asked of a directory: views with their columns, and questions to begin with.

    Raises InputError as `run_query` does.
    """
    with open_snapshot(directory) as connection:
        views = {
            view: {
                "row": row,
                "columns": [
                    {"name": name, "type": kind, "meaning": meanings.get(name, "")}
                    for name, kind, *_ in connection.execute(f"DESCRIBE {view}").fetchall()
                ],
            }
            for view, (row, meanings) in MEANINGS.items()
        }
    return {"views": views, "questions": QUESTIONS}


def as_text(result: QueryResult) -> str:
    """The result as an aligned table, numbers to the right and with four significant digits."""
    cells = [
        [text.replace("\n", "\\n") for text in row]
        for row in (result.columns, *([_short(value) for value in row] for row in result.rows))
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(result.columns))]
    numeric = [
        pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in result.table.schema
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def as_csv(result: QueryResult) -> str:
    """The result as CSV (RFC 4180); text like a spreadsheet formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_harmless(name) for name in result.columns])
    for row in result.rows:
        writer.writerow(
            [
                value if isinstance(value, int | float) else _harmless(_cell(value, null=""))
                for value in row
            ]
        )
    return out.getvalue()


def as_json(result: QueryResult) -> str:
    """The result as a JSON list of objects; NaN and infinity become null."""
    rows = [dict(zip(result.columns, map(_jsonable, row), strict=True)) for row in result.rows]
    return json.dumps(rows, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        sql.encode()
        kinds = [statement.type for statement in connection.extract_statements(sql)]
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise InputError(f"this is not SQL: {error}") from error
    if kinds != [duckdb.StatementType.SELECT]:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(f"a query is exactly one SELECT statement; this is {found}")


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str, limit: int | None) -> QueryResult:
    reader = connection.sql(sql).to_arrow_reader()
    names = _distinct(reader.schema.names)
    if limit is None:
        return QueryResult(reader.read_all().rename_columns(names), truncated=False)
    batches, found = [], 0
    for batch in reader:
        batches.append(batch)
        found += batch.num_rows
        if found > limit:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).rename_columns(names)
    return QueryResult(table.slice(0, limit), truncated=found > limit)


def _distinct(names: list[str]) -> list[str]:
    """Column names, with repeated ones (from joins) numbered from the second on."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


@contextmanager
def _deadline(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return float(value) if isinstance(value, Decimal) else str(value)


def _cell(value: Any, null: str = "NULL") -> str:
    if value is None:
        return null
    if isinstance(value, list | dict):
        return json.dumps(_jsonable(value), ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _cell(value)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
