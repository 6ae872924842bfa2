"""From records to rows and back, and the rules a record must meet to be counted.

A row is a record's fields by name; `tables` has the columns. Adding records and replaying the
journal use the same functions, so a rebuilt database cannot differ from the old one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError, InputError, first_problem
from hullward.tools.records import Protocol, Record
from hullward.tools.store.tables import KIND_OF, TABLES, RecordTable

AnyRecord = TypeVar("AnyRecord", bound=Record)
Row = dict[str, Any]
Key = tuple[Any, ...]
Place = tuple[str, Key]  # kind and key of a record
LONGEST_RECORD = 32 * 1024**2  # characters of JSON


class CountingError(HullwardError):
    """Something is counted twice, not at all, or in two states, or would be."""


# What a record of each kind refers to, and by which field: to a candidate by its crystal's id, to
# others by their key.
REFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "Rejection": (("Proposal", "proposal_id"),),
    "Candidate": (("Proposal", "proposal_id"),),
    "Label": (("Proposal", "proposal_id"), ("Candidate", "proposal_id")),
    **dict.fromkeys(
        ("ModelResponse", "ModelAnswer", "ModelFailure"), (("ModelRequest", "request_id"),)
    ),
    **dict.fromkeys(
        ("Relaxation", "Explanation", "PhononCheck", "TrainingOverlap"),
        (("Candidate", "candidate_id"),),
    ),
    **dict.fromkeys(
        ("Verdict", "FamilyMember", "SymmetrisedCell", "Doubt", "Chance", "Opinion", "Reading"),
        (("Relaxation", "relaxation_id"),),
    ),
}


def problem_of(kind: str, data: Mapping[str, Any]) -> str:
    """Why no table can hold a record's JSON data; '' where one can.

    Raises InputError for a kind or a field that this version does not know.
    """
    newer = "which this version does not know; use the version of Hullward that wrote it"
    if kind not in TABLES:
        raise InputError(f"the journal holds a record of the kind {kind!r}, {newer}")
    table = TABLES[kind]
    try:
        table.record.model_validate(data)
    except ValidationError as error:
        unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
        if unknown:
            where = ".".join(map(str, unknown[0]))
            raise InputError(
                f"the journal holds a {kind} with the field {where!r}, {newer}"
            ) from None
        return f"{kind}: {first_problem(error)}"
    for name, largest in table.limits.items():
        value = data.get(name)
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, int) and abs(n) > largest for n in numbers):
            return f"{kind}: {name}: {_short(value)} is out of range; the limit is {largest}"
    return ""


def json_of(record: Record) -> tuple[str, dict[str, Any]]:
    """A record as JSON text and data; raises InputError for one that cannot be stored."""
    kind = KIND_OF[type(record)]
    try:
        text = record.model_dump_json()
        data = json.loads(text, parse_constant=_no_number)
        problem = problem_of(kind, data)
    except (ValueError, RecursionError) as error:
        problem = f"{kind}: {_short(error)}"
    else:
        if len(text) > LONGEST_RECORD:
            problem = f"{kind}: {len(text)} characters; the limit is {LONGEST_RECORD}"
    if problem:
        raise InputError(f"a record cannot be stored: {problem}")
    return text, data


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no finite number")


def _short(value: object) -> str:
    text = str(value) if not isinstance(value, int) or abs(value) < 10**40 else "the number"
    return text if len(text) <= 200 else f"{text[:200]}…"


def encode(table: RecordTable, data: Mapping[str, Any]) -> Row:
    """One row from a record's JSON data, derived columns included."""
    row = {
        name: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if name in table.nested and value is not None
        else value
        for name, value in data.items()
    }
    if "protocol_id" in table.columns:
        row["protocol_id"] = Protocol.model_validate(data["protocol"]).protocol_id
    if "content_id" in table.columns:
        row["content_id"] = _content_id(data)
    return row


def _content_id(proposal: Mapping[str, Any]) -> str | None:
    """That of a proposal that is a crystal as it stands; None for other words of a model."""
    if proposal["format"] != "crystal_json":
        return None
    try:
        with np.errstate(all="ignore"):  # absurd cells overflow
            return Crystal.model_validate_json(proposal["raw"]).content_id
    except ValueError:
        return None


def decode(kind: type[AnyRecord], row: Mapping[str, Any]) -> AnyRecord:
    """The record that a row was made from."""
    nested = TABLES[KIND_OF[kind]].nested
    data = {
        name: json.loads(row[name]) if name in nested and row[name] is not None else row[name]
        for name, field in kind.model_fields.items()
        if row.get(name) is not None or field.is_required()  # written before there was this field
    }
    return kind.model_validate(data)


def fetch_rows(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[Any] | dict[str, Any] = (),
) -> list[Row]:
    """The rows of a query, as dictionaries by column."""
    answer = connection.execute(sql, parameters)
    names = [column[0] for column in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def fetch_records(
    kind: type[AnyRecord], connection: duckdb.DuckDBPyConnection, sql: str
) -> tuple[AnyRecord, ...]:
    """The rows of a query whose columns are the fields of a record."""
    return tuple(kind.model_validate(row) for row in fetch_rows(connection, sql))


def held_records(connection: duckdb.DuckDBPyConnection) -> dict[Place, Record]:
    """Every record in the tables, even if an earlier version laid them out.

    Of a candidate that is not the first of its crystal, the tables hold only which one that is.
    """
    held: dict[Place, Record] = {}
    firsts: dict[str, Record] = {}
    for kind, table in TABLES.items():
        try:
            rows = fetch_rows(connection, f"FROM {table.name}")
        except duckdb.CatalogException:
            continue
        for row in rows:
            try:
                record = decode(table.record, row)
            except (KeyError, ValueError):  # of a version that accepted it
                continue
            held[kind, key_of(table, row)] = record
            if kind == "Candidate":
                firsts[row["candidate_id"]] = record
    for proposal_id, candidate_id in connection.execute(
        "SELECT proposal_id, candidate_id FROM proposals WHERE candidate_id IS NOT NULL"
    ).fetchall():
        if candidate_id in firsts:
            other = firsts[candidate_id].model_copy(update={"proposal_id": proposal_id})
            held.setdefault(("Candidate", (proposal_id,)), other)
    return held


def key_of(table: RecordTable, data: Mapping[str, Any]) -> Key:
    return tuple(data[name] for name in table.key)


class Projector:
    """Writes rows into an open campaign database."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._layouts: dict[str, pa.Schema] = {
            table.name: connection.sql(f"FROM {table.name} LIMIT 0").to_arrow_table().schema
            for table in TABLES.values()
        }

    def apply(
        self, entries: Iterable[tuple[str, Mapping[str, Any]]], seq: int, checksum: str
    ) -> None:
        """Write new (kind, data) entries up to journal line seq in one transaction.

        First-wins entries must be new; of latest-wins entries the last one stays.
        """
        batches: dict[str, dict[Key, Mapping[str, Any]]] = {kind: {} for kind in TABLES}
        for kind, data in entries:
            batches[kind][key_of(TABLES[kind], data)] = data
        self.connection.begin()
        try:
            for kind, batch in batches.items():
                if batch:
                    self._write(kind, list(batch.values()))
            self.connection.execute(
                "UPDATE bookkeeping.applied SET seq = ?, checksum = ?", [seq, checksum]
            )
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise

    def _write(self, kind: str, batch: Sequence[Mapping[str, Any]]) -> None:
        table = TABLES[kind]
        rows = [encode(table, data) for data in batch]
        with self._batch(table.name, rows):
            if kind == "Candidate":
                self.connection.execute(_LINK)
            else:
                verb = "INSERT OR REPLACE INTO" if table.latest else "INSERT INTO"
                self.connection.execute(f"{verb} {table.name} SELECT * FROM batch")
            if kind == "Relaxation":
                self.connection.execute(_CHARGE)
        if kind == "Candidate":
            firsts: dict[str, Row] = {}
            for row in rows:
                firsts.setdefault(row["candidate_id"], row)
            with self._batch(table.name, list(firsts.values())):
                self.connection.execute(
                    "INSERT INTO candidates SELECT * FROM batch "
                    "WHERE candidate_id NOT IN (SELECT candidate_id FROM candidates)"
                )

    @contextmanager
    def _batch(self, table: str, rows: list[Row]) -> Iterator[None]:
        """Show rows to SQL as the table `batch` (executemany takes a millisecond a row)."""
        self.connection.register("batch", pa.Table.from_pylist(rows, schema=self._layouts[table]))
        try:
            yield
        finally:
            self.connection.unregister("batch")


_LINK = """
UPDATE proposals SET candidate_id = batch.candidate_id FROM batch
WHERE proposals.proposal_id = batch.proposal_id
"""

# The cost of the relaxations of a candidate, charged to its first proposal.
_CHARGE = """
UPDATE proposals SET force_calls = cost.force_calls, cpu_s = cost.cpu_s
FROM (
    SELECT
        c.proposal_id, sum(r.force_calls) AS force_calls,
        sum(r.cpu_s ORDER BY r.relaxation_id) AS cpu_s
    FROM relaxations r JOIN candidates c USING (candidate_id)
    WHERE c.candidate_id IN (SELECT candidate_id FROM batch)
    GROUP BY c.proposal_id
) cost
WHERE proposals.proposal_id = cost.proposal_id
"""
