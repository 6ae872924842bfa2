"""`hullward reference …`: list, show and check references, and get more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.options import Device, Json, PotentialName, ReferenceName, Workers
from hullward.agents.cli.output import print_result, show_line
from hullward.models.errors import InputError, PreflightError

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal
    from hullward.tools.hull import Reference

app = typer.Typer(
    name="reference",
    help="References: the known phases that heights are measured against.",
    no_args_is_help=True,
)

PATIENCE_S = 1200.0  # how long a fetch goes on trying


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the references there are, where each is from and what it covers."""
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
            f"{row.phases} phases"
            + (f", {row.n_systems} systems that are part of no larger one" if row.systems else "")
            + (f", {row.date[:10]}" if row.date else "")
            + ")",
            f"    {row.statement}",
        ]
    lines.append("file:PATH  (a file of your own; `hullward reference import` gives it a name)")
    print_result({"references": [row.model_dump(mode="json") for row in rows]}, lines, as_json)


@app.command()
def show(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="e.g. Li-Mn-O")],
    reference: ReferenceName = "embedded",
    everything: Annotated[bool, typer.Option("--all", help="list unstable phases too")] = False,
    as_json: Json = False,
) -> None:
    """List the stable phases of a system in a reference, and what it covers."""
    from hullward.agents.settings import absolute_reference, read_machine
    from hullward.agents.workspace import open_reference
    from hullward.tools.reference import show as show_system

    spec = absolute_reference(reference, Path.cwd())
    shown = show_system(system, open_reference(spec, read_machine(), [system]), everything)
    lines = [f"{shown.system} in {shown.reference_id}, version {shown.reference_version}"]
    lines += [f"    {shown.statement}", ""]
    lines.append(
        f"{'formula':<16}{'formation':>10}{'hull':>10}{'above':>8}  {'group':<10}phase, "
        "structure type (energies in eV/atom)"
    )
    lines += [
        f"{p.formula:<16}{p.formation_energy_ev_per_atom:>10.3f}{p.hull_energy_ev_per_atom:>10.3f}"
        f"{p.e_above_hull_ev_per_atom:>8.3f}  {p.space_group or '—':<10}{p.phase_id}"
        + (f", {p.structure_type}" if p.structure_type else "")
        + f" ({p.source})"
        + (f"; {p.note}" if p.note else "")
        for p in shown.phases
    ]
    stable = sum(p.stable for p in shown.phases)
    lines += ["", f"{shown.n_phases} phases, {stable} of them stable", "coverage:"]
    lines += [
        f"    {'covered' if c.covered else 'not covered':<12}{c.formula}: {c.note}"
        for c in shown.coverage
    ]
    print_result(shown.model_dump(mode="json"), lines, as_json)


@app.command()
def fetch(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM…", help="e.g. Li-Mn-O Na-Cl")
    ] = None,
    stable: Annotated[
        bool, typer.Option("--stable", help="fetch the stable phases of the whole database")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch whole systems from the Materials Project, each once, with your key (MP_API_KEY)."""
    from hullward.agents.settings import read_machine
    from hullward.agents.workspace import mp_access
    from hullward.tools.reference.materials_project import fetch_stable, fetch_systems

    if not systems and not stable:
        raise InputError("nothing to fetch: name systems, e.g. Li-Mn-O, or give --stable")
    access = mp_access(read_machine(), lambda line: show_line(line, err=True), PATIENCE_S)
    answers = [fetch_systems(systems, access)] if systems else []
    if stable:
        answers.append(fetch_stable(access))
    fetched = [manifest for answer in answers for manifest in answer.fetched]
    here = [system for answer in answers for system in answer.already_here]
    lines = [f"database version {answers[-1].database_version}"]
    lines += [f"fetched {m.system}: {m.count} entries" for m in fetched]
    lines += [f"already here: {system}" for system in here]
    document = {
        "database_version": answers[-1].database_version,
        "fetched": [manifest.model_dump(mode="json") for manifest in fetched],
        "already_here": here,
    }
    print_result(document, lines, as_json)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="entries or a table")],
    name: Annotated[str, typer.Option(help="name of the new reference")],
    as_json: Json = False,
) -> None:
    """Copy a reference file to the home folder, where every campaign finds it by name."""
    from hullward.agents.settings import read_machine
    from hullward.tools.reference import import_file

    reference = import_file(file, name, read_machine().home_folder)
    document = {
        "name": name,
        "version": reference.version,
        "energy_scheme": reference.energy_scheme,
        "statement": reference.statement,
    }
    print_result(document, [f"{name}, version {reference.version}", reference.statement], as_json)


Name = Annotated[
    str | None, typer.Option(help="name of the new reference; default: from the systems")
]
Phases = Annotated[Path | None, typer.Option(help="a folder of your own CIFs to relax as well")]
Campaigns = Annotated[
    list[Path] | None,
    typer.Option("--from", help="an earlier campaign, to relax its best candidates as well"),
]
Formulas = Annotated[
    Path | None, typer.Option(help="a file of formulas to try as well, one a line")
]


@app.command()
def build(
    systems: Annotated[list[str], typer.Argument(metavar="SYSTEM…", help="e.g. Na-V-O-F")],
    name: Name = None,
    phases: Phases = None,
    campaigns: Campaigns = None,
    formulas: Formulas = None,
    potential: PotentialName = "chgnet-0.3.0",
    workers: Workers = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Build a reference: relax known structure types in whole systems.

    Subsystems of the embedded reference are copied from it, so only new systems cost time. The same
    command continues a build that was stopped.
    """
    from hullward.agents.settings import read_machine
    from hullward.models.potential import potential_card
    from hullward.tools.crystal.files import read_known
    from hullward.tools.reference import built_folder, load_reference
    from hullward.tools.reference.recipe import build_systems, log_progress
    from hullward.tools.reference.sources import embedded_stem

    machine = read_machine(device)
    structures: list[tuple[str, Crystal]] = list(read_known(phases)) if phases else []
    structures += _candidates(campaigns or [])
    name = name or "-".join(sorted(system.lower() for system in systems))[:60]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise InputError(f"{name!r} cannot be a name: use small letters, digits and hyphens")
    folder = built_folder(machine.home_folder)
    folder.mkdir(parents=True, exist_ok=True)
    log_progress()
    embedded = load_reference("embedded")
    same = embedded.potential_sha256 == potential_card(potential).weights_sha256
    build_systems(
        systems,
        folder / name,
        potential,
        machine.executor(workers),
        formulas=formulas.read_text(encoding="utf-8").split() if formulas else (),
        structures=structures,
        extend=embedded_stem() if same else None,
    )
    reference = load_reference(f"built:{name}", machine.home_folder)
    document, lines = _describe_built(name, reference, systems)
    print_result(document, lines, as_json)


def _describe_built(
    name: str, reference: Reference, systems: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """What a built reference does not cover, and phases suspiciously far below all others."""
    from hullward.tools.hull import split_chemsys
    from hullward.tools.reference.sources import BuiltPhases, unserved_systems, untried_subsystems

    assert isinstance(reference.source, BuiltPhases)
    manifest = reference.source.manifest
    wanted = [split_chemsys(system) for system in systems]
    holes = untried_subsystems(manifest, wanted)
    holes |= dict.fromkeys(
        unserved_systems(manifest, wanted), "only classes the recipe does not serve"
    )
    inside = {p.formula for els in wanted for p in reference.phases("-".join(sorted(els)))}
    deep = {formula: depth for formula, depth in manifest.deep.items() if formula in inside}
    lines = [f"built:{name}, version {reference.version}", reference.statement]
    lines += [f"not covered: {system}: {note}" for system, note in holes.items()]
    lines += [] if holes else ["every subsystem is covered"]
    lines += [
        f"check by hand: {formula} lies {1000 * depth:.0f} meV/atom below the hull of all others"
        for formula, depth in deep.items()
    ]
    document = {
        "name": f"built:{name}",
        "version": reference.version,
        "statement": reference.statement,
        "not_covered": holes,
        "deep_ev_per_atom": deep,
    }
    return document, lines


def _candidates(campaigns: Sequence[Path]) -> list[tuple[str, Crystal]]:
    """The lowest candidates of earlier campaigns that are not suspect, relaxed."""
    from hullward.agents.workspace import read_seeds

    return [pair for directory in campaigns for pair in read_seeds(directory).items()]


@app.command()
def check(as_json: Json = False) -> None:
    """Compare CHGNet energies with stored ones, and its elements with the Materials Project."""
    from hullward.models.potential import load_potential
    from hullward.tools.reference import (
        NOTABLE_OFFSET_EV_PER_ATOM,
        check_canaries,
        element_offsets,
    )

    canaries = check_canaries(load_potential("chgnet-0.3.0"))
    offsets = element_offsets()
    lines = ["canaries: energy now, and in the embedded reference, eV/atom"]
    for c in canaries:
        now = f"{c.found_ev_per_atom:.4f}" if c.found_ev_per_atom is not None else c.trouble
        state = "ok" if c.alive else "CHANGED"
        lines.append(f"    {c.formula:<8}{now:>10}{c.stored_ev_per_atom:>10.4f}  {state}")
    lines.append("elements: CHGNet − MP2020, meV/atom; * off by more than 50")
    ranked = sorted(offsets.items(), key=lambda pair: -abs(pair[1]))
    marked = [
        f"{el} {1000 * gap:+.0f}{'*' if abs(gap) > NOTABLE_OFFSET_EV_PER_ATOM else ''}"
        for el, gap in ranked
    ]
    lines += ["    " + "  ".join(marked[start : start + 10]) for start in range(0, len(marked), 10)]
    document = {
        "canaries": [{**c.model_dump(mode="json"), "alive": c.alive} for c in canaries],
        "element_offsets_ev_per_atom": dict(ranked),
    }
    print_result(document, lines, as_json)
    if not all(c.alive for c in canaries):
        raise PreflightError(
            "CHGNet no longer reproduces the energies marked CHANGED: a library or the checkpoint "
            "differs; `hullward doctor` names it"
        )
