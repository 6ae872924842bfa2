"""Coverage of crystal generators: how similar their crystals are to a comparison set.

Two crystals are similar if their structure fingerprints are within 0.4 and their composition
fingerprints within 10 of each other, CDVAE's thresholds for MP-20 (arXiv:2110.06197). Recall is the
share of the comparison crystals to which some attempt is similar; precision is the share of the
attempts that are similar to some comparison crystal. A crystal without a fingerprint is similar to
none and stays in the denominator.

CDVAE finds the nearest structure and the nearest composition separately, so they may belong to
different crystals; these shares are given as `separately`. They cannot distinguish a set of
crystals from the same structures with each other's compositions, which is one of the controls. All
shares grow with the number of crystals on the other side.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing import get_context
from threading import Thread
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.evaluation.attempts import Attempt
from hullward.tools.evaluation.fingerprints import composition_fingerprint, structure_fingerprint
from hullward.tools.evaluation.metrics import Rate, check_attempt
from hullward.tools.relax import end_with, one_thread_each

STRUCTURE_CUTOFF = 0.4
COMPOSITION_CUTOFF = 10.0
SAMPLE = 1000  # of each side by default
PARALLEL_FROM = 50  # crystals; for fewer, starting processes takes longer
ROWS = 500  # of the distance matrix held at once

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n crystals; a row of nan for a crystal without one."""

    structures: np.ndarray  # (n, 61)
    compositions: np.ndarray  # (n, 132)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, rows: Any) -> Fingerprints:
        return Fingerprints(self.structures[rows], self.compositions[rows])

    @property
    def missing(self) -> int:
        return int(np.isnan(self.structures[:, 0]).sum())

    def with_others_compositions(self) -> Fingerprints:
        """The same structures, each with the composition of the next."""
        has = ~np.isnan(self.structures[:, 0])
        compositions = self.compositions.copy()
        compositions[has] = np.roll(compositions[has], 1, axis=0)
        return Fingerprints(self.structures, compositions)


def measure_coverage(
    attempts: Sequence[Attempt],
    like: Sequence[Crystal],
    *,
    sample: int = SAMPLE,
    workers: int = 1,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Any]:
    """Recall and precision of all attempts, of the valid ones and of controls.

    sample: the most crystals of either side, chosen by a hash of their index.  workers: processes.
    """
    found = [attempts[i].found for i in sample_indices(len(attempts), sample)]
    drawn = [like[i] for i in sample_indices(len(like), sample)]
    crystals = [one if isinstance(one, Crystal) else None for one in found]
    valid = [c is not None and check_attempt(c).valid for c in crystals]
    generated = fingerprints(crystals, workers, lambda done, of: progress("attempts", done, of))
    real = fingerprints(drawn, workers, lambda done, of: progress("compare with", done, of))
    half = len(real) // 2
    return {
        "sample": {"attempts": len(generated), "like": len(real)},
        "without_fingerprint": {"attempts": generated.missing, "like": real.missing},
        "of_all": coverage_rates(generated, real),
        "of_the_valid": coverage_rates(generated[np.array(valid, dtype=bool)], real),
        "controls": {
            "half_of_like_by_the_other": coverage_rates(real[:half], real[half:]),
            "like_with_compositions_of_others": coverage_rates(
                real.with_others_compositions(), real
            ),
        },
    }


def sample_indices(n: int, sample: int) -> list[int]:
    """Indices of a pseudo-random sample, ordered by a hash."""
    shuffled = sorted(range(n), key=lambda i: blake2b(str(i).encode()).digest())
    return shuffled[:sample]


def coverage_rates(generated: Fingerprints, real: Fingerprints) -> dict[str, Rate]:
    """Recall and precision of generated crystals, in both ways of counting."""
    from scipy.spatial.distance import cdist

    recalled = np.zeros((3, len(real)), dtype=bool)
    precise = np.zeros((3, len(generated)), dtype=bool)
    for start in range(0, len(generated), ROWS):
        rows = slice(start, start + ROWS)
        structure = cdist(generated.structures[rows], real.structures) <= STRUCTURE_CUTOFF
        composition = cdist(generated.compositions[rows], real.compositions) <= COMPOSITION_CUTOFF
        # similar in structure, in composition, in both
        for i, similar in enumerate((structure, composition, structure & composition)):
            recalled[i] |= similar.any(axis=0)
            precise[i, rows] = similar.any(axis=1)
    return {
        "recall": Rate(int(recalled[2].sum()), len(real)),
        "precision": Rate(int(precise[2].sum()), len(generated)),
        "recall_separately": Rate(int((recalled[0] & recalled[1]).sum()), len(real)),
        "precision_separately": Rate(int((precise[0] & precise[1]).sum()), len(generated)),
    }


def fingerprints(
    crystals: Sequence[Crystal | None],
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fingerprints:
    """The fingerprints of crystals in order; None has none."""
    if workers > 1 and len(crystals) >= PARALLEL_FROM:
        with (
            one_thread_each(),
            ProcessPoolExecutor(workers, get_context("spawn"), _start, (os.getpid(),)) as pool,
        ):
            return _gather(pool.map(_pair, crystals, chunksize=4), len(crystals), progress)
    return _gather(map(_pair, crystals), len(crystals), progress)


def _start(parent: int) -> None:
    """Make a new process end with its parent."""
    Thread(target=end_with, args=(parent,), daemon=True).start()


def _gather(
    found: Iterable[tuple[np.ndarray, np.ndarray] | None],
    total: int,
    progress: Callable[[int, int], None],
) -> Fingerprints:
    prints = Fingerprints(np.full((total, 61), np.nan), np.full((total, 132), np.nan))
    for i, pair in enumerate(found):
        if pair is not None:
            prints.structures[i], prints.compositions[i] = pair
        progress(i + 1, total)
    return prints


def _pair(crystal: Crystal | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The structure and composition fingerprints of a crystal; None unless it has both."""
    if crystal is None:
        return None
    composition = composition_fingerprint(Counter(crystal.species))
    structure = structure_fingerprint(crystal) if composition is not None else None
    return None if structure is None or composition is None else (structure, composition)
