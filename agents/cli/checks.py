"""Commands that look closer at what a campaign has found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli.output import tell
from hullward.agents.cli.progress import Reporter


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
    from hullward.agents.followup import check_directory

    with Reporter(quiet=as_json) as reporter:
        checked, report = check_directory(
            directory, potential, top, max_atoms, force_calls, progress=reporter
        )
    rows = [{"formula": c.formula, **c.check.model_dump(mode="json")} for c in checked]
    lines = [f"{c.formula}  {c.check.candidate_id}  {c.check.words}" for c in checked]
    lines = lines or ["the short list is empty: there is nothing to check"]
    tell({"checked": rows, "report": str(report)}, [*lines, f"report: {report}"], as_json)


def audit(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a campaign directory")],
    model: Annotated[
        str | None, typer.Option(help="what proposed a screened file: a model's folder or name")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Say whose formula, or whose parent, the proposing model had learnt from."""
    from hullward.agents.followup import audit_directory

    found, report = audit_directory(directory, model)
    seen = [one for one in found if one.formula_seen or one.match_seen]
    unknown = sum(one.formula_seen is None for one in found)
    lines = [f"{one.candidate_id}  {one.words}" for one in seen[:20]]
    lines += [f"and {len(seen) - 20} more"] if len(seen) > 20 else []
    lines.append(f"{len(seen)} of {len(found)} candidates, or their parents, were learnt from")
    if unknown:
        lines.append(f"{unknown} of unknown training data: their model does not say")
    if not found:
        lines = ["no candidate names a model; say which with --model"]
    rows = [one.model_dump(mode="json") for one in found]
    tell({"audited": rows, "report": str(report)}, [*lines, f"report: {report}"], as_json)
