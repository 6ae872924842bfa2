"""Commands that look closer at what a campaign has found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli_reference import tell
from hullward.agents.progress import Reporter


def phonons(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a campaign directory")],
    top: Annotated[int, typer.Option(min=1, max=10, help="entries of the short list")] = 10,
    potential: Annotated[
        str | None, typer.Option(help="another potential than the campaign's")
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="atoms of a supercell")] = 256,
    force_calls: Annotated[int, typer.Option(min=1, help="of all cells together")] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Look for imaginary vibrations of short-listed cells, at the zone's centre and boundary."""
    from hullward.agents.checks import check_directory

    with Reporter(quiet=as_json) as reporter:
        checked, report = check_directory(
            directory, potential, top, max_atoms, force_calls, progress=reporter
        )
    rows = [{"formula": c.formula, **c.check.model_dump(mode="json")} for c in checked]
    lines = [f"{c.formula}  {c.check.candidate_id}  {c.check.words}" for c in checked]
    lines = lines or ["the short list is empty: there is nothing to check"]
    tell({"checked": rows, "report": str(report)}, [*lines, f"report: {report}"], as_json)
