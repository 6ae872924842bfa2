"""Commands that work on a file of structures and leave no campaign behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli.output import Json
from hullward.agents.cli.progress import Reporter


def relax(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="a file, or a folder of CIFs")],
    potential: Annotated[str, typer.Option(help="interatomic potential")] = "chgnet-0.3.0",
    optimizer: Annotated[
        str, typer.Option(help="'fire-bfgs'; 'fire' takes ASE's steps one by one; or 'bfgs'")
    ] = "fire-bfgs",
    fmax: Annotated[float, typer.Option(help="force convergence, eV/Å")] = 0.05,
    max_steps: Annotated[int, typer.Option(help="steps; 0: evaluated where it stands")] = 500,
    workers: Annotated[
        int | None, typer.Option(min=0, help="worker processes; 0 relaxes in this process")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write the JSON document here")] = None,
    as_json: Json = False,
) -> None:
    """Relax structures as they are: no checks, no reference, no campaign."""
    from hullward.agents.settings import parse_protocol, read_machine
    from hullward.tools.relax import relax_inputs

    protocol = parse_protocol(optimizer=optimizer, fmax_ev_per_a=fmax, max_steps=max_steps)
    with Reporter(quiet=as_json) as reporter:
        rows = relax_inputs(
            source, potential, protocol, read_machine().workers_for(workers, None), reporter
        )
    document = json.dumps(
        {"potential": potential, "protocol": protocol.model_dump(mode="json"), "results": rows},
        allow_nan=False,
    )
    if out is not None:
        out.write_text(document + "\n", encoding="utf-8")
    if as_json:
        print(document)
        return
    for row in rows:
        energy = row.get("energy_ev_per_atom")
        number = "—" if energy is None else f"{energy:.4f} eV/atom"
        short = "not converged" if max_steps else "evaluated where it stands"
        end = "converged" if row["converged"] else row.get("failure") or short
        typer.echo(
            f"{row['source']}  {row.get('formula', '')}  {number}  {end}"
            f"  {row.get('steps', 0)} steps  {row.get('cpu_s', 0):.1f} CPU s"
        )
