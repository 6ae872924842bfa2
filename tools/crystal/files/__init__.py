"""Structures from files: CIF in a sandboxed child process, tables, JSON Lines, extxyz, folders.

Each row becomes one `RawInput`, whose parsing gives a crystal or a flaw. A new file format is a
reader in `inputs`. Nothing is repaired. `write_cif` gives the CIF of a crystal, after reading it
back; files of a campaign are written by `hullward.tools.report`.
"""

from hullward.tools.crystal.files.cif import CifReader
from hullward.tools.crystal.files.cif_text import difference, write_cif
from hullward.tools.crystal.files.inputs import (
    Format,
    RawInput,
    cif_files,
    parse_raw,
    read_inputs,
    text_format,
)
from hullward.tools.crystal.files.known_phases import KnownPhases, read_known
from hullward.tools.crystal.files.parquet import check_parquet
from hullward.tools.crystal.files.unpacking import plain_name, read_lines, read_text

__all__ = [
    "CifReader",
    "Format",
    "KnownPhases",
    "RawInput",
    "check_parquet",
    "cif_files",
    "difference",
    "parse_raw",
    "plain_name",
    "read_inputs",
    "read_known",
    "read_lines",
    "read_text",
    "text_format",
    "write_cif",
]
