"""`hullward reference build` and `check`: references of one's own, and whether energies hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError


def build(
    systems: Annotated[list[str], typer.Argument(metavar="SYSTEM…", help="e.g. Na-V-O-F")],
    name: Annotated[
        str | None, typer.Option(help="what to call it; default from the systems")
    ] = None,
    phases: Annotated[
        Path | None, typer.Option(help="a folder of your own CIFs to relax as well")
    ] = None,
    campaigns: Annotated[
        list[Path] | None,
        typer.Option("--from", help="an earlier campaign whose best candidates to relax as well"),
    ] = None,
    formulas: Annotated[
        Path | None, typer.Option(help="a file of formulas to try as well, one a line")
    ] = None,
    potential: Annotated[str, typer.Option(help="interatomic potential")] = "chgnet-0.3.0",
    workers: Annotated[int | None, typer.Option(min=0, help="worker processes")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Relax known structure types in whole systems; a stopped build goes on where it was.

    What the embedded reference holds is taken over, so that only new systems cost time.
    """
    from hullward.agents.cli.output import tell
    from hullward.agents.settings import read_machine
    from hullward.models.potential import potential_card
    from hullward.tools.crystal.files import read_known
    from hullward.tools.hull import split_chemsys
    from hullward.tools.reference import built_folder, load_reference
    from hullward.tools.reference.recipe import build as build_reference
    from hullward.tools.reference.recipe import tell_progress
    from hullward.tools.reference.sources import BuiltPhases, embedded_stem, unserved, untried

    machine = read_machine()
    structures: list[tuple[str, Crystal]] = list(read_known(phases)) if phases else []
    structures += _candidates(campaigns or [])
    name = name or "-".join(sorted(system.lower() for system in systems))[:60]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise InputError(f"{name!r} cannot be a name: use small letters, digits and hyphens")
    folder = built_folder(machine.home_folder)
    folder.mkdir(parents=True, exist_ok=True)
    tell_progress()
    embedded = load_reference("embedded")
    same = embedded.potential_sha256 == potential_card(potential).weights_sha256
    build_reference(
        systems,
        folder / name,
        potential,
        machine.workers_for(workers, None),
        formulas=formulas.read_text(encoding="utf-8").split() if formulas else (),
        structures=structures,
        extend=embedded_stem() if same else None,
    )
    reference = load_reference(f"built:{name}", machine.home_folder)
    assert isinstance(reference.source, BuiltPhases)
    manifest = reference.source.manifest
    wanted = [split_chemsys(system) for system in systems]
    holes = untried(manifest, wanted)
    holes |= dict.fromkeys(unserved(manifest, wanted), "only classes the recipe does not serve")
    inside = {p.formula for els in wanted for p in reference.phases("-".join(sorted(els)))}
    deep = {formula: depth for formula, depth in manifest.deep.items() if formula in inside}
    lines = [f"built:{name}, version {reference.version}", reference.statement]
    lines += [f"not covered: {system}: {note}" for system, note in holes.items()]
    lines += [] if holes else ["every subsystem was tried well enough"]
    lines += [
        f"look twice: {formula} lies {1000 * depth:.0f} meV/atom below everything else"
        for formula, depth in deep.items()
    ]
    document = {
        "name": f"built:{name}",
        "version": reference.version,
        "statement": reference.statement,
        "not_covered": holes,
        "deep_ev_per_atom": deep,
    }
    tell(document, lines, as_json)


def _candidates(campaigns: Sequence[Path]) -> list[tuple[str, Crystal]]:
    """The lowest non-suspect candidates of earlier campaigns, as they relaxed."""
    from hullward.agents.workspace import read_seeds

    return [pair for directory in campaigns for pair in read_seeds(directory).items()]


def check(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Compare CHGNet with itself, and its elements with the Materials Project's."""
    from hullward.agents.cli.output import tell
    from hullward.models.potential import load_potential
    from hullward.tools.reference import (
        OFFSET_WORTH_SAYING_EV_PER_ATOM,
        element_offsets,
        read_canaries,
    )

    readings = read_canaries(load_potential("chgnet-0.3.0"))
    offsets = element_offsets()
    lines = ["canaries: energy now, and as the embedded reference has it, eV/atom"]
    for r in readings:
        now = f"{r.found_ev_per_atom:.4f}" if r.found_ev_per_atom is not None else r.trouble
        state = "ok" if r.alive else "CHANGED"
        lines.append(f"    {r.formula:<8}{now:>10}{r.stored_ev_per_atom:>10.4f}  {state}")
    lines.append("elements: CHGNet − MP2020, meV/atom; * off by more than 50")
    ranked = sorted(offsets.items(), key=lambda pair: -abs(pair[1]))
    marked = [
        f"{el} {1000 * gap:+.0f}{'*' if abs(gap) > OFFSET_WORTH_SAYING_EV_PER_ATOM else ''}"
        for el, gap in ranked
    ]
    lines += ["    " + "  ".join(marked[start : start + 10]) for start in range(0, len(marked), 10)]
    document = {
        "canaries": [{**r.model_dump(mode="json"), "alive": r.alive} for r in readings],
        "element_offsets_ev_per_atom": dict(ranked),
    }
    tell(document, lines, as_json)
    if not all(r.alive for r in readings):
        raise PreflightError(
            "a library or the checkpoint has changed: see the canaries above; `hullward doctor`"
        )
