"""Structures from files: CIF in a sandboxed child process, tables, JSON Lines, extxyz, folders.

Each row becomes one `RawInput`, whose parsing gives a crystal or a flaw. A new file format is a
reader in `inputs`. Nothing is repaired. `write_cif` gives the CIF of a crystal, after reading it
back; files of a campaign are written by `hullward.tools.report`.
"""

from hullward.tools.crystal.files.cif import CifReader
from hullward.tools.crystal.files.cif_text import difference, write_cif
from hullward.tools.crystal.files.inputs import (
    RawInput,
    parse_raw,
    read_inputs,
    skipped_note,
    structure_files,
    text_format,
)
from hullward.tools.crystal.files.json_values import id_text
from hullward.tools.crystal.files.kinds import Format
from hullward.tools.crystal.files.known_phases import KnownPhases, read_known
from hullward.tools.crystal.files.parquet import check_parquet
from hullward.tools.crystal.files.unpacking import csv_rows, plain_name, read_lines, read_text

__all__ = [
    "CifReader",
    "Format",
    "KnownPhases",
    "RawInput",
    "check_parquet",
    "csv_rows",
    "difference",
    "id_text",
    "parse_raw",
    "plain_name",
    "read_inputs",
    "read_known",
    "read_lines",
    "read_text",
    "skipped_note",
    "structure_files",
    "text_format",
    "write_cif",
]
