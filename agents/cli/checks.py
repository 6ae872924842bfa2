"""Commands that check: this installation, vibrations of a short list, overlap with training data."""

from __future__ import annotations

from typing import Annotated

import typer

from hullward.agents.cli.output import Directory, Json, tell
from hullward.agents.cli.progress import Reporter


def doctor(as_json: Json = False) -> None:
    """Say what is installed, which backends answer, and the command that mends what is missing."""
    from hullward.agents.doctor import Environment, diagnose
    from hullward.agents.settings import read_machine

    machine = read_machine()
    findings = diagnose(
        Environment(
            mp_api_key_present=machine.mp_api_key is not None,
            thread_variables=machine.thread_variables,
            vllm_python=machine.vllm_python,
        )
    )
    marks = {True: "ok", False: "MISSING", None: "-"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.ok]:>8}  {finding.name}: {finding.says}")
        if finding.fix and finding.ok is not True:
            lines.append(f"{'':>8}  fix: {finding.fix}")
    rows = [{"name": f.name, "ok": f.ok, "says": f.says, "fix": f.fix} for f in findings]
    tell({"findings": rows}, lines, as_json)


def phonons(
    directory: Directory,
    top: Annotated[int, typer.Option(min=1, max=10, help="entries of the short list")] = 10,
    potential: Annotated[
        str | None, typer.Option(help="another potential than the campaign's")
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="atoms of a supercell")] = 256,
    force_calls: Annotated[int, typer.Option(min=1, help="of all cells together")] = 5000,
    as_json: Json = False,
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
    directory: Directory,
    model: Annotated[
        str | None, typer.Option(help="what proposed a screened file: a model's folder or name")
    ] = None,
    as_json: Json = False,
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
