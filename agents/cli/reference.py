"""`hullward reference …`: what references there are, what they say, and how to get more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hullward.agents.cli.output import Json, tell
from hullward.agents.cli.reference_build import build, check
from hullward.models.errors import InputError

app = typer.Typer(
    name="reference",
    help="The known phases that heights are measured against.",
    no_args_is_help=True,
)

PATIENCE_S = 1200.0  # of a fetch that somebody asked for


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """Say which references can be named, where each is from and what it covers."""
    from hullward.agents.settings import read_machine
    from hullward.tools.reference import available

    rows = available(read_machine().home_folder)
    lines = []
    for row in rows:
        if row.trouble:
            lines += [f"{row.name}", f"    cannot be used: {row.trouble}"]
            continue
        lines += [
            f"{row.name}  ({row.kind}, version {row.version}, {row.energy_scheme}, "
            f"{row.phases} phases, {row.n_systems} systems"
            + (f", {row.date[:10]}" if row.date else "")
            + ")",
            f"    {row.statement}",
        ]
    lines.append("file:PATH  (a file of your own; `hullward reference import` gives it a name)")
    tell({"references": [row.model_dump(mode="json") for row in rows]}, lines, as_json)


@app.command()
def show(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="e.g. Li-Mn-O")],
    reference: Annotated[str, typer.Option(help="see `hullward reference list`")] = "embedded",
    everything: Annotated[bool, typer.Option("--all", help="unstable phases too")] = False,
    as_json: Json = False,
) -> None:
    """Say which phases of a system a reference holds stable, and what it covers."""
    from hullward.agents.settings import absolute_reference, read_machine
    from hullward.agents.workspace import open_reference
    from hullward.tools.reference import show as look

    spec = absolute_reference(reference, Path.cwd())
    shown = look(system, open_reference(spec, read_machine(), [system]), everything)
    lines = [f"{shown.system} in {shown.reference_id}, version {shown.reference_version}"]
    lines += [f"    {shown.statement}", ""]
    lines.append(f"{'formula':<16}{'formation':>10}{'hull':>10}{'above':>8}  eV/atom  phase")
    lines += [
        f"{p.formula:<16}{p.formation_energy_ev_per_atom:>10.3f}{p.hull_energy_ev_per_atom:>10.3f}"
        f"{p.e_above_hull_ev_per_atom:>8.3f}           {p.phase_id}  ({p.source})"
        for p in shown.phases
    ]
    stable = sum(p.stable for p in shown.phases)
    lines += ["", f"{shown.n_phases} phases, {stable} of them stable", "coverage:"]
    lines += [
        f"    {'covered' if c.covered else 'not covered':<12}{c.formula}: {c.note}"
        for c in shown.coverage
    ]
    tell(shown.model_dump(mode="json"), lines, as_json)


@app.command()
def fetch(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM…", help="e.g. Li-Mn-O Na-Cl")
    ] = None,
    stable: Annotated[
        bool, typer.Option("--stable", help="the stable phases of the whole database")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch whole systems from the Materials Project with your key (MP_API_KEY), once each."""
    from hullward.agents.settings import read_machine
    from hullward.agents.workspace import mp_access
    from hullward.tools.reference.materials_project import fetch_stable, fetch_systems

    if not systems and not stable:
        raise InputError("say which systems to fetch, e.g. Li-Mn-O, or --stable")
    access = mp_access(read_machine(), lambda line: typer.echo(line, err=True), PATIENCE_S)
    answers = [fetch_systems(systems, access)] if systems else []
    if stable:
        answers.append(fetch_stable(access))
    fetched = [manifest for answer in answers for manifest in answer.fetched]
    here = [system for answer in answers for system in answer.already_here]
    lines = [f"database version {answers[-1].database_version}"]
    lines += [f"fetched {m.system}: {m.count} entries" for m in fetched]
    lines += [f"{system} was here already" for system in here]
    document = {
        "database_version": answers[-1].database_version,
        "fetched": [manifest.model_dump(mode="json") for manifest in fetched],
        "already_here": here,
    }
    tell(document, lines, as_json)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="entries or a table")],
    name: Annotated[str, typer.Option(help="what to call it")],
    as_json: Json = False,
) -> None:
    """Copy a reference file to where every campaign finds it by name."""
    from hullward.agents.settings import read_machine
    from hullward.tools.reference import import_file

    reference = import_file(file, name, read_machine().home_folder)
    document = {
        "name": name,
        "version": reference.version,
        "energy_scheme": reference.energy_scheme,
        "statement": reference.statement,
    }
    tell(document, [f"{name}, version {reference.version}", reference.statement], as_json)


app.command()(build)
app.command()(check)
