"""Known crystals with similar elements exchanged, which a small corpus lacks.

A structure type serves many chemistries. Exchanging elements for their neighbours in the periodic
table, and scaling the cell by the volume that each element takes, shows a model the type with other
elements than those of the corpus. Their height above the hull is unknown and left out.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from hullward.models.crystal import lattice_matrix
from hullward.tools.crystal.text import electropositive_first
from hullward.training.crystals.corpus import CrystalRow, may_be_learnt
from hullward.training.crystals.tokenizer import element_features

SHARE = 0.5  # probability that an element is exchanged
NEIGHBOURS = 8  # elements that may replace one
DRAWS = 4  # before a crystal is left as it is
LEAST_VOLUME_A3 = 2.0  # of an atom of any element

_COUNTED = re.compile(r"([A-Z][a-z]?)([0-9]*)")
_LENGTH = re.compile(r"[0-9]+\.[0-9]+")


class Exchange:
    """Exchanges between the elements of a corpus.

    The volume of each element (Å³ per atom) is the least-squares fit to the corpus's cell volumes.
    """

    def __init__(self, rows: Sequence[CrystalRow]) -> None:
        counts = [_counts(row.formula) for row in rows]
        self._elements = sorted({symbol for found in counts for symbol in found})
        at = {symbol: i for i, symbol in enumerate(self._elements)}
        shares = np.zeros((len(rows), len(at)))
        for i, (row, found) in enumerate(zip(rows, counts, strict=True)):
            per_site = _volume_a3(row.cell_text) / row.n_sites
            for symbol, n in found.items():
                # relative errors, so that large cells do not outweigh small ones
                shares[i, at[symbol]] = n / sum(found.values()) / per_site
        room = np.linalg.lstsq(shares, np.ones(len(rows)), rcond=None)[0]
        self._room_a3 = dict(zip(self._elements, np.maximum(room, LEAST_VOLUME_A3), strict=True))
        described = np.array([element_features(symbol) for symbol in self._elements])
        self._like = {symbol: self._neighbours(described, i) for symbol, i in at.items()}

    @property
    def elements(self) -> frozenset[str]:
        """The elements of the corpus."""
        return frozenset(self._elements)

    def room_a3(self, species: Iterable[str]) -> float:
        """The volume of these atoms, Å³. Raises KeyError for an element not in the corpus."""
        return float(sum(self._room_a3[symbol] for symbol in species))

    def like(self, row: CrystalRow, rng: random.Random) -> CrystalRow:
        """The row with some elements exchanged; the row itself where no draw is allowed.

        A draw is not allowed to change the order in which elements are written, since the frame of
        the crystal depends on it, or to make a crystal that may not be learnt.
        """
        old = _counts(row.formula)
        for _ in range(DRAWS):
            new = [self._drawn(symbol, rng) for symbol in old]
            if new == list(old) or new != electropositive_first(new):  # distinct symbols
                continue
            counts = dict(zip(new, old.values(), strict=True))
            formula = "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts.items())
            if not may_be_learnt(formula):
                continue
            return self._exchanged(row, dict(zip(old, new, strict=True)), formula)
        return row

    def _exchanged(self, row: CrystalRow, exchange: dict[str, str], formula: str) -> CrystalRow:
        atoms = list(Counter(_counts(row.formula)).elements())
        stretch = float(
            np.cbrt(self.room_a3(exchange[atom] for atom in atoms) / self.room_a3(atoms))
        )
        unit = row.unit_text.split("\n")
        for i in range(1, len(unit) - 1):
            symbol, rest = unit[i].split(" ", 1)
            unit[i] = f"{exchange[symbol]} {rest}"
        unit[-1] = _stretched(unit[-1], stretch)
        cell = row.cell_text.split("\n")
        cell[0] = _stretched(cell[0], stretch)
        cell[2::2] = [exchange[symbol] for symbol in cell[2::2]]
        return replace(
            row,
            formula=formula,
            e_above_hull_ev_per_atom=None,
            unit_text="\n".join(unit),
            cell_text="\n".join(cell),
        )

    def _drawn(self, symbol: str, rng: random.Random) -> str:
        if rng.random() >= SHARE:
            return symbol
        found, weights = self._like[symbol]
        return rng.choices(found, weights)[0] if found else symbol

    def _neighbours(self, described: np.ndarray, i: int) -> tuple[list[str], list[float]]:
        squared = ((described - described[i]) ** 2).sum(axis=1)
        near = [int(j) for j in np.argsort(squared) if j != i][:NEIGHBOURS]
        return [self._elements[j] for j in near], [math.exp(-squared[j] / 2) + 1e-9 for j in near]


def _counts(flat: str) -> dict[str, int]:
    return {symbol: int(n or 1) for symbol, n in _COUNTED.findall(flat)}


def _volume_a3(cell_text: str) -> float:
    lengths, angles = (list(map(float, line.split())) for line in cell_text.split("\n", 2)[:2])
    return float(abs(np.linalg.det(lattice_matrix(lengths, angles))))


def _stretched(line: str, stretch: float) -> str:
    """The line with its lengths scaled; they have a decimal point, angles do not."""
    return _LENGTH.sub(lambda found: f"{float(found[0]) * stretch:.1f}", line)
