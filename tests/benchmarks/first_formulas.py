"""Whether the first ten formulas of a system hold a known one.

    python tests/benchmarks/first_formulas.py DATA [--index]

Systems: first_formulas.yaml. Known are, of exactly the elements of a system, formulas of the whole
database (fixed systems) and of the phases that the Materials Project lists as stable (drawn ones).
`before` orders charge-balanced formulas by size, as version 0.3 did; `neighbours` is the ranking
with the formulas of all other systems as known compounds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import common
import pandas as pd
import yaml

from hullward.models.formulas import formula_amounts, reduced_spelling
from hullward.tools.crystal import charge_balanced_formulas
from hullward.tools.crystal.stoichiometry import likely_formulas

FIRST = 10
MAX_ATOMS = 40
OLD_MAX_COEFFICIENT, OLD_MOST_ELEMENTS = 8, 5

Formulas = dict[str, set[str]]


def by_system(formulas: Collection[str]) -> Formulas:
    """Reduced formulas of every system."""
    found: Formulas = defaultdict(set)
    for formula in formulas:
        amounts = formula_amounts(formula)
        found["-".join(sorted(amounts))].add(reduced_spelling(amounts))
    return found


def before(system: str) -> list[str]:
    """Charge-balanced formulas by number of atoms, then by name."""
    symbols = system.split("-")
    if len(symbols) > OLD_MOST_ELEMENTS:
        return []
    amounts = charge_balanced_formulas(symbols, OLD_MAX_COEFFICIENT)
    sizes = {reduced_spelling(one): sum(one.values()) for one in amounts}
    return sorted(sizes, key=lambda formula: (sizes[formula], formula))


def judge(
    systems: Sequence[str], known: Formulas, order: Callable[[str], list[str]]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Figures of one order, and the first formulas of every system."""
    hits, had, slowest, firsts = 0, 0, 0.0, {}
    missed = []
    for system in systems:
        started = time.process_time()
        firsts[system] = order(system)[:FIRST]
        slowest = max(slowest, time.process_time() - started)
        if known.get(system):
            had += 1
            hit = bool(known[system] & set(firsts[system]))
            hits += hit
            missed += [] if hit else [system]
    return {
        "systems": len(systems),
        "with_known": had,
        "hits": hits,
        "slowest_cpu_s": round(slowest, 2),
        "missed": missed,
    }, firsts


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--firsts", action="store_true", help="print the first formulas as well")
    given = parser.parse_args()
    lists = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    fixed = ["-".join(sorted(s.split("-"))) for group in lists["fixed"].values() for s in group]
    whole = by_system(set(pd.read_parquet(given.data / common.MP2020_HULL)["formula"]))
    stable = by_system(
        set(pd.read_parquet(given.data / "hull" / "mp_stable_phases_2024.parquet")["formula"])
    )
    everything = {formula: s for s, formulas in whole.items() for formula in formulas}
    everything |= {formula: s for s, formulas in stable.items() for formula in formulas}

    def ranked(system: str) -> list[str]:
        return [one.formula for one in likely_formulas(system.split("-"), MAX_ATOMS)]

    def with_neighbours(system: str) -> list[str]:
        def known(formula: str) -> bool:
            return everything.get(formula, system) != system

        found = likely_formulas(system.split("-"), MAX_ATOMS, known=known)
        return [one.formula for one in found]

    likely_formulas(["Na", "Cl"], MAX_ATOMS)  # reads the tables
    for name, systems, known in (
        ("fixed", fixed, whole),
        ("fixed, by stable phases", fixed, stable),
        ("drawn", lists["drawn"], stable),
    ):
        for order in (before, ranked, with_neighbours):
            figures, firsts = judge(systems, known, order)
            print(json.dumps({"set": name, "order": order.__name__, **figures}))
            if given.firsts and order is not before and name == "fixed":
                for system, formulas in firsts.items():
                    print(f"    {system}: {', '.join(formulas)}")


if __name__ == "__main__":
    main()
