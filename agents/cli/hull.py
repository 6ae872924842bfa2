"""`hullward hull`: judge energies that were computed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hullward.agents.cli.options import Json, ReferenceName
from hullward.agents.cli.output import print_result


def hull(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="ENTRIES",
            help="ComputedEntry JSON, OPTIMADE JSON Lines, a table of formula and energy, or what "
            "`hullward relax --json` writes",
        ),
    ],
    reference: ReferenceName = "embedded",
    open_: Annotated[
        list[str] | None,
        typer.Option(
            "--open",
            metavar="ELEMENT=EV",
            help="hold an element at a chemical potential, eV per atom relative to its own phase "
            "in the reference (O2=-1.5: each O 1.5 eV below the reference's oxygen); repeatable",
        ),
    ] = None,
    energy: Annotated[
        str | None, typer.Option(help="the column or property that holds the energy, eV/atom")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute signed heights above the hull and decompositions of energies from elsewhere.

    With --open the hull is that of the grand potential: heights and fractions are per atom of the
    closed elements. pymatgen's GrandPotentialPhaseDiagram takes absolute potentials: ours plus
    the energy per atom of the reference's own elemental phase; --json gives both.
    """
    from hullward.agents.settings import absolute_reference, read_machine
    from hullward.agents.workspace import open_reference
    from hullward.tools.reference import judge_entries, parse_open
    from hullward.tools.reference.sources import read_entries

    opened = parse_open(open_ or [])
    entries = read_entries(source, energy)
    systems = sorted({"-".join(sorted(phase.elements)) for phase in entries.phases})
    spec = absolute_reference(reference, Path.cwd())
    document = judge_entries(entries, open_reference(spec, read_machine(), systems), opened)
    print_result(document, _lines(document), as_json)


def _lines(document: dict[str, Any]) -> list[str]:
    known = document["reference"]
    entries = document["entries"]
    lines = [
        f"reference: {known['id']} {known['version']}. {known['statement']}",
        f"entries: {entries['statement']}",
    ]
    if zeros := entries["elements_of_the_reference_as_zero"]:
        lines.append(f"formation energies count from {', '.join(zeros)} of the reference instead")
    if document["caution"]:
        lines.append(f"caution: {document['caution']}")
    for element, potential in document.get("open", {}).items():
        lines.append(
            f"open to {element}: {potential['relative_ev_per_atom']:+g} eV/atom from its own phase "
            f"({potential['absolute_ev_per_atom']:.4f} absolute); heights per closed atom"
        )
    rows = document["results"]
    wide = max([len(row["id"]) for row in rows] + [2])
    formula = max([len(row["formula"]) for row in rows] + [7])
    lines.append(f"{'id':<{wide}}  {'formula':<{formula}}  {'eV/atom':>8}  covered  decomposition")
    for row in rows:
        height, covered = row["e_above_hull_ev_per_atom"], "yes" if row["covered"] else "no"
        number = "—" if height is None else f"{height:+.4f}"
        parts = " + ".join(f"{p['fraction']:.3f} {p['formula']}" for p in row["decomposition"])
        lines.append(
            f"{row['id']:<{wide}}  {row['formula']:<{formula}}  {number:>8}  {covered:<7}  "
            f"{row['error'] or parts}"
        )
    holes = {
        f"not covered: {row['formula']}: {row['coverage_note']}"
        for row in rows
        if not row["covered"] and row["coverage_note"]
    }
    return lines + sorted(holes)
