"""`hullward query` and `hullward export`: tables and structures of a campaign directory."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hullward.agents.cli.options import Directory, Json
from hullward.agents.cli.output import print_result, require_writable, show, show_line
from hullward.models.errors import InputError


class AnswerFormat(StrEnum):
    """The format of a query's answer."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class CrystalFile(StrEnum):
    """The format of exported structures."""

    CIF = "cif"
    POSCAR = "poscar"
    EXTXYZ = "extxyz"


class Which(StrEnum):
    """Which candidates an export writes."""

    SHORTLIST = "shortlist"  # one of each family
    MEMBERS = "members"  # all of the families on the short list
    JUDGED = "judged"
    RELAXED = "relaxed"


def query(
    directory: Directory,
    sql: Annotated[
        str | None,
        typer.Argument(metavar="[SQL]", help="one SELECT; without it: what can be asked"),
    ] = None,
    form: Annotated[
        AnswerFormat, typer.Option("--format", help="format of the answer")
    ] = AnswerFormat.TABLE,
    out: Annotated[
        Path | None, typer.Option(help="write the answer here; parquet needs it")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="most rows to return")] = None,
    as_json: Json = False,
) -> None:
    """Run a SELECT on the last published snapshot, read-only.

    Without SQL it lists the views and their columns, with meaning and unit, and five questions to
    begin with. Numbers in the text table have four significant digits; other formats keep all.
    """
    import pyarrow.parquet as pq

    from hullward.tools.store import query as queries

    if sql is None:
        document = queries.describe(directory)
        print_result(document, _described(document, directory), as_json)
        return
    form = AnswerFormat.JSON if as_json else form
    if form is AnswerFormat.PARQUET and out is None:
        raise InputError("parquet needs a file to write to: --out FILE.parquet")
    require_writable(out)
    with queries.hard_limits(_end_late):
        answer = queries.run_query(directory, sql, limit)
        if form is AnswerFormat.PARQUET and out is not None:
            pq.write_table(answer.table, out)
        else:
            text = {
                AnswerFormat.TABLE: queries.as_text,
                AnswerFormat.CSV: queries.as_csv,
                AnswerFormat.JSON: queries.as_json,
            }[form](answer)
            if out is None:
                plain = text.replace("\r\n", "\n").rstrip("\n")
                show(plain, as_json=form is AnswerFormat.JSON)
                return
            out.write_text(text, encoding="utf-8")
    if as_json:
        print_result({"rows": answer.table.num_rows, "file": str(out)}, [], as_json)
    else:
        show_line(f"{answer.table.num_rows} rows in {out}", err=True)


def _described(document: dict[str, Any], directory: Path) -> list[str]:
    """Views, columns and questions, a line each."""
    lines = []
    for view, about in document["views"].items():
        lines.append(f"{view}: {about['row']}")
        lines += [f"    {c['name']:<38}{c['meaning']}".rstrip() for c in about["columns"]]
    lines.append("questions to begin with:")
    for asked, sql in document["questions"].items():
        lines += [f"    {asked}", f'        hullward query {directory} "{sql}"']
    return lines


def _end_late() -> None:
    """End this process: its query cannot be interrupted."""
    show_line("hullward: the query did not end in time; ask for less, or add a LIMIT", err=True)
    os._exit(InputError.exit_code)


def export_(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="folder for the files")],
    form: Annotated[CrystalFile, typer.Option("--format", help="file format")] = CrystalFile.CIF,
    which: Annotated[Which, typer.Option(help="which candidates")] = Which.SHORTLIST,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="this candidate only; repeatable")
    ] = None,
    p1: Annotated[
        bool, typer.Option("--p1", help="every atom as relaxed, CIFs without symmetry")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="delete files of an earlier export there")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write relaxed structures of candidates as CIF, POSCAR or extxyz.

    A relaxed cell that is a higher space group within 0.1 Å at equal energy (2 meV/atom) is written
    as its symmetrised cell, with both energies; heights are those of the cell as relaxed.
    Files are named by rank, formula, space group and short id: 01_Li2MnO2_P-3m1_c-4d10d3d6.cif.
    `hullward screen` and `hullward relax` read all three formats.
    """
    from hullward.tools.report import export_structures

    paths = export_structures(
        directory,
        out,
        format=form.value,
        ids=ids,
        where=which.value,
        symmetrise=not p1,
        replace=replace,
    )
    print_result({"files": [str(p) for p in paths]}, [str(p) for p in paths], as_json)
