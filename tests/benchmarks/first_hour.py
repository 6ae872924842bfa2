"""Thirty systems as a newcomer would try them: what is proposed first, and what is called new.

    python tests/benchmarks/first_hour.py run FOLDER [--only Fe-P …]
    python tests/benchmarks/first_hour.py check FOLDER STRUCTURES.parquet STABLE.parquet

`run` makes a campaign of each system on the embedded defaults, 24 proposals in two cycles, one
after the other; what is finished is not run again. `check` reads them: the first ten formulas
beside those that the Materials Project has in the system, the standing of every judged candidate,
and for those called new a structure of the table that StructureMatcher finds equal, or a textbook
phase of the same formula. The systems were fixed before the first of them was run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Structure

from hullward.models.crystal import Crystal
from hullward.tools.prototypes import textbook_phases
from hullward.tools.store import open_snapshot

SYSTEMS = (
    *("Fe-P", "Cs-Br", "Al-Ni", "Mg-Sb", "Ti-N", "Zn-S"),
    *("Li-Mn-O", "Na-Fe-O", "Ba-Ti-O", "Ca-Al-O", "Li-Co-O"),
    *("Cs-Sn-I", "K-Mg-F", "Li-Y-Cl", "Li-Zr-N", "Mg-Si-N"),
    *("Al-Ni-Ti", "Cu-Mn-Al", "Ce-Co-Si", "Mg-Sb-Bi", "Ca-Zn-Sb", "Na-Ga-Sn"),
    *("Cu-In-Se", "Li-P-S", "Na-Fe-P-O", "Cs-Sn-I-Br", "Li-La-Zr-O", "Cu-Zn-Sn-S"),
    *("Na-V-P-O", "La-Fe-As-O"),
)
SETTINGS = {"budget": {"cycles": 2, "proposals_per_cycle": 12}, "workers": 1}


def run(folder: Path, only: Sequence[str]) -> None:
    for system in only or SYSTEMS:
        directory = folder / system
        if (directory / "report" / "report.md").exists():
            continue
        file = folder / f"{system}.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"name": system.lower(), "systems": [system], **SETTINGS}
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        command = ["-m", "hullward.agents.cli.app", "run", str(file), "--dir", str(directory)]
        with (folder / f"{system}.log").open("w") as log:
            done = subprocess.run([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT)
        print(system, done.returncode, flush=True)


def check(folder: Path, structures: Path, stable: Path) -> None:
    known = pd.read_parquet(structures)
    listed = pd.read_parquet(stable)
    column = "formula" if "formula" in listed else "formula_pretty"
    of_system: dict[str, set[str]] = defaultdict(set)
    for formula in {*known.formula, *listed[column]}:
        reduced = Composition(formula)
        of_system["-".join(sorted(e.symbol for e in reduced.elements))].add(reduced.reduced_formula)
    textbook: dict[str, list[Crystal]] = defaultdict(list)
    for phase in textbook_phases():
        textbook[Composition(phase.crystal.formula).reduced_formula].append(phase.crystal)
    totals: Counter[str] = Counter()
    for system in SYSTEMS:
        if not (folder / system).exists():
            continue
        wanted = of_system["-".join(sorted(system.split("-")))]
        first, rows = _read(folder / system)
        there = [f for f in first[:10] if Composition(f).reduced_formula in wanted]
        standings = Counter(row["standing"] for row in rows)
        wrong = [
            f"{row['candidate_id'][:10]} {row['formula']} {why}"
            for row in rows
            if row["novel"] and (why := _known_as(row, known, textbook))
        ]
        totals["systems"] += 1
        totals["with a known stoichiometry in the first ten"] += bool(there) or not wanted
        totals["candidates judged"] += len(rows)
        totals["known ones called new"] += len(wrong)
        print(f"{system}: first {' '.join(first[:10])}")
        print(f"    known among them: {' '.join(there) or 'none'} of {len(wanted)} in the system")
        print(f"    {dict(standings)}{'; KNOWN CALLED NEW: ' + ', '.join(wrong) if wrong else ''}")
    print(dict(totals))


def _read(directory: Path) -> tuple[list[str], list[dict]]:
    with open_snapshot(directory) as connection:
        [(formulas,)] = connection.execute(
            "SELECT formulas FROM plans ORDER BY cycle LIMIT 1"
        ).fetchall()
        rows = connection.execute(
            """SELECT r.candidate_id, r.formula, r.standing, r.novel, r.space_group_loose, x.crystal
               FROM results r JOIN relaxations x USING (relaxation_id) WHERE r.state = 'judged'"""
        ).fetchall()
    names = ("candidate_id", "formula", "standing", "novel", "space_group", "crystal")
    return list(formulas), [dict(zip(names, row, strict=True)) for row in rows]


def _known_as(row: dict, known: pd.DataFrame, textbook: dict[str, list[Crystal]]) -> str | None:
    """The structure of the table, or the textbook phase, that a candidate is; None if neither."""
    crystal = Crystal.model_validate_json(row["crystal"])
    own = crystal.to_structure()
    formula = own.composition.reduced_formula
    for phase in textbook[formula]:
        if StructureMatcher().fit(own, phase.to_structure()):
            return "a textbook phase"
    for entry in known[known.chemsys == "-".join(sorted(_elements(own)))].itertuples():
        if Composition(entry.formula).reduced_formula != formula:
            continue
        other = Structure.from_str(str(entry.cif), fmt="cif")
        matchers = (StructureMatcher(), StructureMatcher(primitive_cell=False))
        if any(matcher.fit(own, other) for matcher in matchers):
            return str(entry.material_id)
    return None


def _elements(structure: Structure) -> set[str]:
    return {element.symbol for element in structure.composition.elements}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("--only", nargs="*", default=())
    checking = commands.add_parser("check")
    for name in ("folder", "structures", "stable"):
        checking.add_argument(name, type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.folder, given.only)
    else:
        check(given.folder, given.structures, given.stable)


if __name__ == "__main__":
    main()
