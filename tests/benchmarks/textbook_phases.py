"""The textbook phases beside the Materials Project's structures of their formulas.

    python tests/benchmarks/textbook_phases.py STRUCTURES.parquet

The table has the columns material_id, formula and cif. Counted are phases that match a structure of
their formula, by type; one without a match may be a polymorph that the table lacks, so that what
does not match is listed and not counted as wrong.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.tools.crystal import StructureLibrary
from hullward.tools.prototypes import textbook_phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("structures", type=Path)
    table = pd.read_parquet(parser.parse_args().structures)
    phases = defaultdict(list)
    for phase in textbook_phases():
        phases[phase.crystal.formula].append(phase)
    libraries: dict[str, StructureLibrary] = {}
    for row in table.itertuples():
        try:
            formula = reduced_spelling(formula_amounts(row.formula))
        except InputError:
            continue
        if formula in phases:
            crystal = Crystal.from_structure(Structure.from_str(str(row.cif), fmt="cif"))
            libraries.setdefault(formula, StructureLibrary()).add(str(row.material_id), crystal)
    found: dict[str, Counter[bool]] = defaultdict(Counter)
    missing: dict[str, list[str]] = defaultdict(list)
    for formula, library in libraries.items():
        for phase in phases[formula]:
            matched = library.match(phase.crystal) is not None
            found[phase.type_name][matched] += 1
            if not matched:
                missing[phase.type_name].append(formula)
    for name, counts in sorted(found.items(), key=lambda item: item[1][True] / item[1].total()):
        print(f"{name:14} {counts[True]:4} of {counts.total():4}  {' '.join(missing[name])}")
    total = sum(found.values(), Counter())
    print(f"{total[True]} of {total.total()} phases of {len(libraries)} formulas match")


if __name__ == "__main__":
    main()
