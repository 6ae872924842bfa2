"""Commands after a campaign: second opinions, vibrations, overlap with training data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hullward.agents.cli.options import Device, Directory, Json, Workers
from hullward.agents.cli.output import Reporter, print_result


def opinion(
    directory: Directory,
    potential: Annotated[
        str,
        typer.Option(
            help="chgnet-r2scan, chgnet-0.2.0, sevennet-0, sevennet-l3i5, mace-mp, mattersim, or "
            "ase:MODULE:FACTORY for any ASE calculator"
        ),
    ] = "chgnet-r2scan",
    top: Annotated[int, typer.Option(min=1, help="number of undisputed entries to reach")] = 10,
    margin: Annotated[
        float, typer.Option(help="difference from which on the potentials disagree, eV/atom")
    ] = 0.05,
    max_force_calls: Annotated[int, typer.Option(min=1, help="budget of force calls")] = 20_000,
    workers: Workers = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Check the short list and the suspects with another potential.

    It relaxes each candidate and the competing phases; the decomposition energies are compared,
    each wholly within its own potential. Disputed candidates move to the end of the short list and
    the next entries are checked, until --top entries are undisputed or the budget is spent.
    """
    from hullward.agents.followup import opinions_of
    from hullward.agents.settings import SecondOpinionSettings, parse_settings, read_machine

    wanted = parse_settings(
        SecondOpinionSettings,
        {
            "potential": potential,
            "top": top,
            "margin_ev_per_atom": margin,
            "max_force_calls": max_force_calls,
        },
        "opinion",
    )
    summary = opinions_of(directory, wanted, workers, read_machine(device))
    print_result(asdict(summary), summary.lines(), as_json)


def phonons(
    directory: Directory,
    top: Annotated[int, typer.Option(min=1, max=10, help="entries of the short list")] = 10,
    potential: Annotated[
        str | None, typer.Option(help="interatomic potential; default: the campaign's")
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="most atoms of a supercell")] = 256,
    force_calls: Annotated[
        int, typer.Option(min=1, help="most force calls, all cells together")
    ] = 5000,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Look for imaginary vibrations of the short list, at zone centre and zone boundary."""
    from hullward.agents.followup import check_directory
    from hullward.agents.settings import read_machine

    machine = read_machine(device)
    with Reporter(quiet=as_json) as reporter:
        checked, report = check_directory(
            directory, potential, top, max_atoms, force_calls, machine=machine, progress=reporter
        )
    rows = [{"formula": c.formula, **c.check.model_dump(mode="json")} for c in checked]
    lines = [f"{c.formula}  {c.check.candidate_id}  {c.check.words}" for c in checked]
    lines = lines or ["the short list is empty: there is nothing to check"]
    print_result({"checked": rows, "report": str(report)}, [*lines, f"report: {report}"], as_json)


def audit(
    directory: Directory,
    model: Annotated[
        str | None, typer.Option(help="for a screened file: name or folder of the model it is from")
    ] = None,
    as_json: Json = False,
) -> None:
    """List candidates whose formula or parent was in the training data of the proposing model."""
    from hullward.agents.followup import audit_directory

    found, report = audit_directory(directory, model)
    seen = [overlap for overlap in found if overlap.formula_seen or overlap.match_seen]
    unknown = sum(overlap.formula_seen is None for overlap in found)
    lines = [f"{overlap.candidate_id}  {overlap.words}" for overlap in seen[:20]]
    lines += [f"and {len(seen) - 20} more"] if len(seen) > 20 else []
    lines.append(f"{len(seen)} of {len(found)} candidates, or their parents, are in training data")
    if unknown:
        lines.append(f"{unknown} with unknown training data: their model does not list it")
    if not found:
        lines = ["no candidate names its model: name it with --model"]
    rows = [overlap.model_dump(mode="json") for overlap in found]
    print_result({"audited": rows, "report": str(report)}, [*lines, f"report: {report}"], as_json)
