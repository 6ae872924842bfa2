"""Coverage of crystal generators: whether what they write is like what there is, and all of it.

Two crystals are alike when their structures' fingerprints lie within 0.4 and those of their
compositions within 10 of each other, CDVAE's thresholds for MP-20 (arXiv:2110.06197). Recall is
the share of the comparison crystals that some attempt is like; precision the share of the attempts
that are like some comparison crystal. What has no fingerprint is like nothing and stays in the
denominator.

CDVAE takes the nearest structure and the nearest composition apart, so they may be of different
crystals; shares counted so are told as `separately`. They cannot tell a set of crystals from the
same structures with compositions of others, which is one of the controls. All shares grow with the
number of crystals on the other side.
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
from hullward.tools.evaluation.metrics import Rate, check
from hullward.tools.relax import end_with, one_thread_each

STRUCTURE_CUTOFF = 0.4
COMPOSITION_CUTOFF = 10.0
SAMPLE = 1000  # of each side, unless told otherwise
PARALLEL_FROM = 50  # crystals: fewer are not worth starting processes
ROWS = 500  # whose distances are held at once

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prints:
    """Fingerprints of n crystals; a row of nan where there is none."""

    structures: np.ndarray  # (n, 61)
    compositions: np.ndarray  # (n, 132)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, rows: Any) -> Prints:
        return Prints(self.structures[rows], self.compositions[rows])

    @property
    def missing(self) -> int:
        return int(np.isnan(self.structures[:, 0]).sum())

    def with_others_compositions(self) -> Prints:
        """The same structures, each with the composition of the next."""
        has = ~np.isnan(self.structures[:, 0])
        compositions = self.compositions.copy()
        compositions[has] = np.roll(compositions[has], 1, axis=0)
        return Prints(self.structures, compositions)


def measure_coverage(
    attempts: Sequence[Attempt],
    like: Sequence[Crystal],
    *,
    sample: int = SAMPLE,
    workers: int = 1,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Any]:
    """Recall and precision of attempts, of the valid ones among them, and of controls.

    sample: at most so many of either side, drawn by a hash of their place.  workers: processes.
    """
    tried = [attempts[i].found for i in draw(len(attempts), sample)]
    real = [like[i] for i in draw(len(like), sample)]
    crystals = [found if isinstance(found, Crystal) else None for found in tried]
    valid = [c is not None and check(i, c).valid for i, c in enumerate(crystals)]
    made = fingerprints(crystals, workers, lambda done, of: progress("attempts", done, of))
    there = fingerprints(real, workers, lambda done, of: progress("compare with", done, of))
    half = len(there) // 2
    return {
        "sample": {"attempts": len(made), "like": len(there)},
        "without_fingerprint": {"attempts": made.missing, "like": there.missing},
        "of_all": covered(made, there),
        "of_the_valid": covered(made[np.array(valid, dtype=bool)], there),
        "controls": {
            "half_of_like_by_the_other": covered(there[:half], there[half:]),
            "like_with_compositions_of_others": covered(there.with_others_compositions(), there),
        },
    }


def draw(n: int, sample: int) -> list[int]:
    """Places of a sample, in an order that says nothing."""
    shuffled = sorted(range(n), key=lambda i: blake2b(str(i).encode()).digest())
    return shuffled[:sample]


def covered(made: Prints, there: Prints) -> dict[str, Rate]:
    """How many of `there` something made is like, and the reverse; both also `separately`."""
    from scipy.spatial.distance import cdist

    recalled = np.zeros((3, len(there)), dtype=bool)
    precise = np.zeros((3, len(made)), dtype=bool)  # alike in structure, in composition, in both
    for start in range(0, len(made), ROWS):
        rows = slice(start, start + ROWS)
        structure = cdist(made.structures[rows], there.structures) <= STRUCTURE_CUTOFF
        composition = cdist(made.compositions[rows], there.compositions) <= COMPOSITION_CUTOFF
        for i, alike in enumerate((structure, composition, structure & composition)):
            recalled[i] |= alike.any(axis=0)
            precise[i, rows] = alike.any(axis=1)
    return {
        "recall": Rate(int(recalled[2].sum()), len(there)),
        "precision": Rate(int(precise[2].sum()), len(made)),
        "recall_separately": Rate(int((recalled[0] & recalled[1]).sum()), len(there)),
        "precision_separately": Rate(int((precise[0] & precise[1]).sum()), len(made)),
    }


def fingerprints(
    crystals: Sequence[Crystal | None],
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prints:
    """Of each crystal in order; None has none."""
    if workers > 1 and len(crystals) >= PARALLEL_FROM:
        with (
            one_thread_each(),
            ProcessPoolExecutor(workers, get_context("spawn"), _start, (os.getpid(),)) as pool,
        ):
            return _gather(pool.map(_both, crystals, chunksize=4), len(crystals), progress)
    return _gather(map(_both, crystals), len(crystals), progress)


def _start(parent: int) -> None:
    """In a new process: no orphan waits for work that never comes."""
    Thread(target=end_with, args=(parent,), daemon=True).start()


def _gather(
    found: Iterable[tuple[np.ndarray, np.ndarray] | None],
    total: int,
    progress: Callable[[int, int], None],
) -> Prints:
    prints = Prints(np.full((total, 61), np.nan), np.full((total, 132), np.nan))
    for i, pair in enumerate(found):
        if pair is not None:
            prints.structures[i], prints.compositions[i] = pair
        progress(i + 1, total)
    return prints


def _both(crystal: Crystal | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The two fingerprints of a crystal that has both."""
    if crystal is None:
        return None
    composition = composition_fingerprint(Counter(crystal.species))
    structure = structure_fingerprint(crystal) if composition is not None else None
    return None if structure is None or composition is None else (structure, composition)
