"""Commands that ask a campaign directory: queries of its tables, structures of its candidates."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli.output import Directory, Json, tell
from hullward.models.errors import InputError

Directory = Directory
Json = Json


class Form(StrEnum):
    """How a query answers."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class CrystalFile(StrEnum):
    """What an export writes."""

    CIF = "cif"
    POSCAR = "poscar"
    EXTXYZ = "extxyz"


class Which(StrEnum):
    """Which candidates an export takes."""

    SHORTLIST = "shortlist"
    JUDGED = "judged"
    RELAXED = "relaxed"


def query(
    directory: Directory,
    sql: Annotated[str, typer.Argument(help="one SELECT; see the views results, states, funnel")],
    form: Annotated[Form, typer.Option("--format", help="how to answer")] = Form.TABLE,
    out: Annotated[Path | None, typer.Option(help="write to a file; needed for parquet")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="most rows")] = None,
    as_json: Json = False,
) -> None:
    """Ask the last published snapshot, read-only."""
    from hullward.tools.store import query as queries

    form = Form.JSON if as_json else form
    if form is Form.PARQUET and out is None:
        raise InputError("parquet is not text: say where to write it with --out FILE.parquet")
    answer = queries.run_query(directory, sql, limit)
    if form is Form.PARQUET and out is not None:
        queries.write_parquet(answer, out)
    else:
        text = {
            Form.TABLE: queries.as_text,
            Form.CSV: queries.as_csv,
            Form.JSON: queries.as_json,
        }[form](answer)
        if out is None:
            typer.echo(text.rstrip("\n"))
            return
        out.write_text(text, encoding="utf-8")
    if as_json:
        tell({"rows": len(answer.rows), "file": str(out)}, [], as_json)
    else:
        typer.echo(f"{len(answer.rows)} rows in {out}", err=True)


def export_(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="folder to write to")],
    form: Annotated[CrystalFile, typer.Option("--format")] = CrystalFile.CIF,
    which: Annotated[Which, typer.Option(help="which candidates")] = Which.SHORTLIST,
    ids: Annotated[list[str] | None, typer.Option("--id", help="these candidates only")] = None,
    p1: Annotated[bool, typer.Option("--p1", help="CIFs without symmetry")] = False,
    as_json: Json = False,
) -> None:
    """Write relaxed structures of chosen candidates as CIF, POSCAR or extxyz."""
    from hullward.tools.report import export_structures

    paths = export_structures(
        directory, out, format=form.value, ids=ids, where=which.value, symmetrise=not p1
    )
    tell({"files": [str(p) for p in paths]}, [str(p) for p in paths], as_json)
