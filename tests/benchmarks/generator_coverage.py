"""Coverage of MP-20's test set by LLaMat-2-CIF's saved outputs, and what the measure can tell.

    python tests/benchmarks/generator_coverage.py DATA --sample 1000

DATA is as in `published_figures.py`. Half of the sampled test crystals cover the other half: as
they are, with elements drawn at random, and with atoms at random places.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from hullward.models.crystal import Crystal
from hullward.tools.evaluation import Rate, measure_coverage, read_attempts
from hullward.tools.evaluation.coverage import coverage_rates, fingerprints, sample_indices
from hullward.tools.relax import default_workers


def main() -> None:
    from pymatgen.core import Structure  # these are whole files of one origin: no sandbox

    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=1000)
    options = parser.parse_args()
    table = pd.read_parquet(options.data / "structures" / "mp_structures.parquet")
    test = table[table.source == "mp_20/test"]
    crystals = [Crystal.from_structure(Structure.from_str(cif, fmt="cif")) for cif in test.cif]
    attempts = read_attempts(options.data / "known" / "llamat2_generated.parquet")
    workers = default_workers()

    start = time.monotonic()
    figures = measure_coverage(attempts, crystals, sample=options.sample, workers=workers)
    figures["seconds"] = round(time.monotonic() - start)
    drawn = [crystals[i] for i in sample_indices(len(crystals), options.sample)]
    half = len(drawn) // 2
    there = fingerprints(drawn[half:], workers)
    elements = sorted({el for crystal in crystals for el in crystal.species})
    rng = np.random.default_rng(0)
    for name, changed in (
        ("random_elements", [_elements(c, elements, rng) for c in drawn[:half]]),
        ("random_places", [_places(c, rng) for c in drawn[:half]]),
    ):
        figures["controls"][f"half_with_{name}"] = coverage_rates(
            fingerprints(changed, workers), there
        )
    print(json.dumps(figures, indent=1, default=Rate.as_dict))


def _elements(crystal: Crystal, elements: list[str], rng: np.random.Generator) -> Crystal:
    """The same crystal of as many other elements."""
    own = sorted(set(crystal.species))
    other = dict(zip(own, rng.choice(elements, len(own), replace=False), strict=True))
    species = [str(other[el]) for el in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def _places(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same cell and atoms, anywhere."""
    return Crystal.from_arrays(crystal.lattice, crystal.species, rng.random((crystal.n_atoms, 3)))


if __name__ == "__main__":
    main()
