"""Shares of real and spoilt crystals that pass the hard checks, the charge rule and the matcher.

    python tests/benchmarks/validation.py DATA

DATA is the folder of real data (structures/, hull/, known/). Prints the tables of RESULTS.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from common import LLAMAT2_OUTPUTS, amounts_of, known_phases, llamat2_crystals, options, scattered

from hullward.models.crystal import Crystal
from hullward.tools.crystal import StructureLibrary, charge_balance
from hullward.tools.records import Flaw
from hullward.tools.screening import Limits, validate

SUPPORTED = frozenset(chemical_symbols[1:95])
FACTORS = (0.4, 0.5, 0.6, 0.7, 0.75)


def shrunken(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    lattice = 0.8 * np.array(crystal.lattice)
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


def swapped(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    species = rng.permutation(crystal.species).tolist()
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def reasons(crystals: Iterable[Crystal], limits: Limits) -> Counter[str]:
    outcomes = (validate.check_crystal(c, limits, SUPPORTED) for c in crystals)
    return Counter(o.reason.value if isinstance(o, Flaw) else "passed" for o in outcomes)


def hard_checks(data: Path) -> None:
    known = known_phases(data)
    start = time.process_time()
    outcome = reasons(known, Limits())
    per_item = 1e3 * (time.process_time() - start) / len(known)
    print(f"known phases: {dict(outcome.most_common())}; {per_item:.2f} ms each")
    spoil: dict[str, Callable[[Crystal, np.random.Generator], Crystal]] = {
        "as published": lambda crystal, rng: crystal,
        "cell x 0.8": shrunken,
        "species permuted": swapped,
        "random sites": scattered,
    }
    sample = known[:: max(1, len(known) // 7000)]
    for name, change in spoil.items():
        rng = np.random.default_rng(0)
        crystals = [change(c, rng) for c in sample]
        rates = [
            1 - reasons(crystals, Limits(min_distance_factor=f))["passed"] / len(crystals)
            for f in FACTORS
        ]
        print(
            f"rejected, {name:17}",
            *(f"{f}: {100 * r:5.2f} %" for f, r in zip(FACTORS, rates, strict=True)),
        )


def generated(data: Path) -> None:
    n_rows = len(pd.read_parquet(data / LLAMAT2_OUTPUTS))
    crystals = list(llamat2_crystals(data))
    start = time.process_time()
    outcomes = [validate.check_crystal(c, Limits(), SUPPORTED) for c in crystals]
    seconds = time.process_time() - start
    tally = Counter(o.reason.value if isinstance(o, Flaw) else "passed" for o in outcomes)
    unbuilt = n_rows - len(crystals)
    print(f"generated: {n_rows} rows, {unbuilt} not built; {dict(tally.most_common())}")
    print(f"  checked in {seconds:.1f} s, {1e3 * seconds / len(crystals):.2f} ms each")
    valid = [c for c, o in zip(crystals, outcomes, strict=True) if not isinstance(o, Flaw)]
    claims = Counter(o.charge_balanced for o in outcomes if not isinstance(o, Flaw))
    print(f"  charges of the valid: {dict(claims)}")
    start = time.process_time()
    library = StructureLibrary()
    for number, crystal in enumerate(valid):
        if library.match(crystal) is None:
            library.add(str(number), crystal)
    seconds = time.process_time() - start
    print(f"  {len(library)} distinct of {len(valid)} valid, matched in {seconds:.1f} s")


def charges(data: Path) -> None:
    table = pd.read_parquet(data / "hull/mp_stable_phases_2024.parquet", columns=["formula"])
    formulas = table["formula"].sample(10_000, random_state=0)
    stable = [amounts_of(f) for f in formulas]
    rng = np.random.default_rng(0)
    pool = [symbol for counts in stable for symbol in counts]
    shuffled = [
        dict(zip(distinct(pool, len(counts), rng), counts.values(), strict=True))
        for counts in stable
    ]
    for name, compositions in (("stable formulas", stable), ("elements shuffled", shuffled)):
        start = time.process_time()
        tally = Counter(str(charge_balance(c).balanced) for c in compositions)
        per_item = 1e3 * (time.process_time() - start) / len(compositions)
        shares = {
            k: f"{100 * tally[k] / len(compositions):.1f} %" for k in ("True", "None", "False")
        }
        print(f"charges, {name}: {shares}; {per_item:.3f} ms each")


def distinct(pool: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """n different elements, each as likely as it is frequent in the pool."""
    drawn: list[str] = []
    while len(drawn) < n:
        symbol = pool[int(rng.integers(len(pool)))]
        if symbol not in drawn:
            drawn.append(symbol)
    return drawn


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    hard_checks(folder)
    generated(folder)
    charges(folder)
