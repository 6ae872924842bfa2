"""Rows of Parquet files, with limits that hold while they are read.

A Parquet file of kilobytes may unpack to gigabytes: its pages are compressed, and a value that
repeats is stored once. So the sizes that the file states are checked first, text is kept as stored,
and rows are only made as many at a time as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullward.models.errors import InputError
from hullward.tools.crystal.files.unpacking import OVERSIZE
from hullward.tools.crystal.input_checks import shorten

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROWS = 20_000_000
MAX_GROUP_BYTES = 256_000_000  # of the wanted columns of a row group, unpacked
MAX_GROUP_VALUES = 30_000_000
BATCH_ROWS = 1000
BATCH_BYTES = 64_000_000
MAX_ROW_BYTES = 10_000_000


def check_parquet(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Raise InputError for a file that cannot be read within the limits."""
    facts = file.metadata
    if facts.num_rows > MAX_ROWS:
        raise InputError(f"{path.name} has {facts.num_rows:,} rows, limit {MAX_ROWS:,}; split it")
    wanted = set(columns)
    for number in range(facts.num_row_groups):
        group = facts.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        chunks = [c for c in chunks if c.path_in_schema.split(".")[0] in wanted]
        size = sum(c.total_uncompressed_size for c in chunks)
        values = sum(c.num_values for c in chunks)
        if size > MAX_GROUP_BYTES or values > MAX_GROUP_VALUES:
            raise InputError(
                f"{path.name}: row group {number} unpacks to {size // 1_000_000} MB in {values:,} "
                f"values, limit {MAX_GROUP_BYTES // 1_000_000} MB and {MAX_GROUP_VALUES:,}; write "
                "the file with smaller row groups, as by to_parquet(…, row_group_size=10000)"
            )


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any] | str]:
    """The rows of a file in order; in the place of a row that is too large, its size in words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        check_parquet(path, file, columns)
        schema = [file.schema.column(i) for i in range(len(file.schema))]
        text = [c.path for c in schema if c.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(path, read_dictionary=text)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            if _made_bytes(batch) <= BATCH_BYTES:
                yield from batch.to_pylist()
                continue
            for number in range(batch.num_rows):
                row = batch.slice(number, 1)
                if (size := _made_bytes(row)) <= MAX_ROW_BYTES:
                    yield row.to_pylist()[0]
                else:
                    yield f"{OVERSIZE}a row of {size:,} bytes, limit {MAX_ROW_BYTES:,}"
    except pa.ArrowMemoryError as error:
        raise InputError(f"{path.name} needs too much memory: {error}") from None
    except (OSError, ValueError) as error:  # damage beyond the part read first
        raise InputError(f"{path} is damaged: {shorten(str(error), 200)}") from error


def _made_bytes(batch: pa.RecordBatch) -> int:
    """The size that the values of a batch have as Python objects, at least."""
    return sum(_array_bytes(batch.column(i)) for i in range(batch.num_columns))


def _array_bytes(array: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(_array_bytes(child) for child in array.flatten())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _array_bytes(array.flatten())
    return int(array.nbytes)
