"""What a model of ours has learnt from, as hashes: for audits of leaks and of novelty.

A model's folder holds two sorted arrays of unsigned 64-bit numbers, the first 8 bytes of the sha256
of material ids and of flat formulas ('Ca3P2O8'). A false hit has a chance of about 1 in 10^15.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hullward.models.errors import InputError

IDS, FORMULAS = "learnt_ids.npy", "learnt_formulas.npy"


def digest(word: str) -> int:
    """The first 8 bytes of its sha256 as a number."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def learnt_ids(model: Path, material_ids: Sequence[str]) -> list[bool]:
    """Which of these materials a model was trained or validated on.

    Raises InputError where its folder does not say.
    """
    return _asked(model / IDS, material_ids)


def learnt_formulas(model: Path, flat_formulas: Sequence[str]) -> list[bool]:
    """Which of these formulas, spelt by `models.crystal_prompts.flat_formula`, it has seen.

    Raises InputError where its folder does not say.
    """
    return _asked(model / FORMULAS, flat_formulas)


def _asked(path: Path, words: Sequence[str]) -> list[bool]:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read, so nobody knows what was learnt: {error}"
        ) from None
    return [bool(hit) for hit in np.isin([digest(word) for word in words], known)]
