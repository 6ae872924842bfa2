"""Coverage of MP-20's test set by LLaMat-2-CIF's saved outputs, beside controls.

    python tests/benchmarks/generator_coverage.py DATA --sample 1000

DATA is as in `published_figures.py`. As controls, half of the sampled test crystals cover the other
half: as they are, with elements drawn at random, and with atoms at random places.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import numpy as np
from common import LLAMAT2_OUTPUTS, mp20_test_set, options, scattered

from hullward.models.crystal import Crystal
from hullward.tools.evaluation import Rate, measure_coverage, read_attempts
from hullward.tools.evaluation.coverage import coverage_rates, fingerprints, sample_indices
from hullward.tools.relax import default_workers


def main() -> None:
    warnings.simplefilter("ignore")
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=1000)
    given = parser.parse_args()
    crystals = mp20_test_set(given.data)
    attempts = read_attempts(given.data / LLAMAT2_OUTPUTS)
    workers = default_workers()

    start = time.monotonic()
    figures = measure_coverage(attempts, crystals, sample=given.sample, workers=workers)
    figures["seconds"] = round(time.monotonic() - start)
    drawn = [crystals[i] for i in sample_indices(len(crystals), given.sample)]
    half = len(drawn) // 2
    there = fingerprints(drawn[half:], workers)
    elements = sorted({el for crystal in crystals for el in crystal.species})
    rng = np.random.default_rng(0)
    for name, changed in (
        ("random_elements", [_elements(c, elements, rng) for c in drawn[:half]]),
        ("random_places", [scattered(c, rng) for c in drawn[:half]]),
    ):
        figures["controls"][f"half_with_{name}"] = coverage_rates(
            fingerprints(changed, workers), there
        )
    print(json.dumps(figures, indent=1, default=Rate.as_dict))


def _elements(crystal: Crystal, elements: list[str], rng: np.random.Generator) -> Crystal:
    """The same crystal with each element replaced by a random one."""
    own = sorted(set(crystal.species))
    other = dict(zip(own, rng.choice(elements, len(own), replace=False), strict=True))
    species = [str(other[el]) for el in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


if __name__ == "__main__":
    main()
