"""`hullward relax`: relax the structures of a file, without a campaign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli.options import (
    Device,
    ForceConvergence,
    Json,
    PotentialName,
    Structures,
    Workers,
)
from hullward.agents.cli.output import Reporter, require_writable, show, show_line


def relax(
    source: Structures,
    potential: PotentialName = "chgnet-0.3.0",
    optimizer: Annotated[
        str, typer.Option(help="'fire-bfgs'; 'fire', which follows ASE step by step; or 'bfgs'")
    ] = "fire-bfgs",
    fmax: ForceConvergence = 0.05,
    max_steps: Annotated[
        int, typer.Option(help="most steps; 0 evaluates structures without moving an atom")
    ] = 500,
    workers: Workers = None,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="write the JSON document here")] = None,
    as_json: Json = False,
) -> None:
    """Relax structures as they are: no checks, no reference, no campaign."""
    from hullward.agents.settings import parse_protocol, read_machine
    from hullward.tools.crystal.files import skipped_note
    from hullward.tools.relax import relax_inputs
    from hullward.tools.store import sealed

    require_writable(out)
    protocol = parse_protocol(optimizer=optimizer, fmax_ev_per_a=fmax, max_steps=max_steps)
    with Reporter(quiet=as_json) as reporter:
        if left_out := skipped_note(source):
            reporter.note(left_out)
        executor = read_machine(device).executor(workers)
        reporter.note(f"loading {potential} …")
        rows = relax_inputs(source, potential, protocol, executor, reporter)
    settings = {"potential": potential, "protocol": protocol.model_dump(mode="json")}
    content = settings | {"results": rows}
    document = sealed(json.dumps(content, allow_nan=False))
    if out is not None:
        out.write_text(document + "\n", encoding="utf-8")
    if as_json:
        show(document)
        return
    for row in rows:
        energy = row.get("energy_ev_per_atom")
        number = "—" if energy is None else f"{energy:.4f} eV/atom"
        short = "not converged" if max_steps else "evaluated only"
        end = "converged" if row["converged"] else row.get("failure") or short
        show_line(
            f"{row['source']}  {row.get('formula', '')}  {number}  {end}"
            f"  {row.get('steps', 0)} steps  {row.get('cpu_s', 0):.1f} CPU s"
        )
