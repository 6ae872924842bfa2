"""The columns of a table of phases, from CSV or Parquet, as lists of values."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError
from hullward.tools.crystal import shorten
from hullward.tools.crystal.files import check_parquet, csv_rows, plain_name

MAX_ROWS = 5_000_000
_NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*")


def column_names(path: Path) -> list[str]:
    """The names of a table's columns, in order; raises InputError where it cannot be read."""
    if _is_csv(path):
        return next(iter(_csv_rows(path)), [])
    import pyarrow.parquet as pq

    try:
        return list(pq.ParquetFile(path).schema_arrow.names)
    except (ValueError, OSError) as error:  # pyarrow's are ValueErrors
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of these columns, one a row: text from CSV, what is stored from Parquet.

    Raises InputError for a row of CSV with more or fewer values than the header.
    """
    if _is_csv(path):
        return _csv_columns(path, names)
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        check_parquet(path, file, names)
        table = file.read(columns=list(names))
        return {name: table.column(name).to_pylist() for name in names}
    except (ValueError, OSError, MemoryError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None


def finite_number(value: object, where: str) -> float:
    """A number of a table; raises InputError, with the value and its place, for anything else."""
    try:
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise ValueError
        number = math.nan if value is None or isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where} is not a number: {shorten(str(value))}; write it as -1.234")
    return number


def _is_csv(path: Path) -> bool:
    return plain_name(path).endswith(".csv")


def _csv_rows(path: Path) -> Any:
    try:
        yield from filter(None, csv_rows(path, csv.reader))
    except UnicodeError as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None


def _csv_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    rows = _csv_rows(path)
    header = next(rows)
    places: Mapping[str, int] = {name: header.index(name) for name in names}
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        if number >= MAX_ROWS:
            raise InputError(f"{path.name} has more than {MAX_ROWS:,} rows; split it")
        if len(row) != len(header):
            raise InputError(
                f"{path.name}: row {number} has {len(row)} values for {len(header)} columns: "
                f"{shorten(','.join(row))}; put a value that holds a comma in quotes"
            )
        for name, place in places.items():
            found[name].append(row[place])
    return found
