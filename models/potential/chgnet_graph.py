"""The input graph of CHGNet, built for a whole batch at once.

The same edges and angles as the published converter (DOI 10.1038/s42256-023-00716-3), in another
order: every bond is stored once, from `first` to `second`, and its two directions follow by
construction, so they need no pairing. Angles of weight exactly zero (a bond of exactly the
cut-off length) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hullward.models.potential.batch import CrystalBatch
from hullward.models.potential.neighbours import TooManyNeighboursError, bonds_within

ATOM_CUTOFF_A = 6.0
BOND_CUTOFF_A = 3.0
# Bonds and angles of one crystal, each about 16 kB: more than any solid has with so many atoms
# (diamond has 540 an atom), or so few that they do not matter.
MOST_ROWS_PER_ATOM, MOST_ROWS_OF_FEW = 600, 20_000


Bonds = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as of `bonds_within`


@dataclass(frozen=True)
class BatchGraph:
    """Bonds and angles of b crystals with n atoms, u bonds, s short bonds and p angles in all.

    Atoms are numbered through the batch. A directed bond d < u runs from `first[d]` to
    `second[d]`, d >= u back along bond d - u. Short bonds (below 3 Å) carry angles; an angle is
    an unordered pair of directed short bonds that leave the same atom.
    """

    numbers: np.ndarray  # (n,) atomic numbers
    owner: np.ndarray  # (n,) the crystal of each atom
    first: np.ndarray  # (u,)
    second: np.ndarray  # (u,)
    vectors_a: np.ndarray  # (u, 3) from first to second
    short: np.ndarray  # (s,) bonds below the bond cut-off
    corner: np.ndarray  # (p,) the atom at the vertex of an angle
    arms: np.ndarray  # (p, 2) its directed bonds
    closest_a: np.ndarray  # (b,) shortest bond of each crystal, inf where there is none
    isolated: np.ndarray  # (b,) whether a crystal has an atom without a bond

    @property
    def rows(self) -> int:
        """Directed bonds plus ordered angles, to which time and memory are proportional."""
        return 2 * len(self.first) + 2 * len(self.corner)


def crystal_graph(batch: CrystalBatch, bonds: Sequence[Bonds] | None = None) -> BatchGraph:
    """The graph of a batch; results for `isolated` crystals mean nothing.

    bonds: what `crystal_bonds` gives for each crystal, where known. Raises as `crystal_bonds`.
    """
    if not len(batch.counts):
        raise ValueError("the batch is empty: a graph needs at least one crystal")
    if bonds is None:
        bonds = [crystal_bonds(batch, row) for row in range(len(batch.counts))]
    starts = np.concatenate([[0], np.cumsum(batch.counts)])
    n, b = int(starts[-1]), len(batch.counts)
    inside = np.arange(batch.numbers.shape[1]) < batch.counts[:, None]
    owner = np.repeat(np.arange(b), batch.counts)

    sizes = [len(bond[0]) for bond in bonds]
    shift = np.repeat(starts[:-1], sizes)
    first, second, vectors, length = map(np.concatenate, zip(*bonds, strict=True))
    first, second = first + shift, second + shift

    bonded = np.zeros(n, dtype=bool)
    bonded[first] = bonded[second] = True
    isolated = np.bincount(owner[~bonded], minlength=b) > 0
    closest = np.array([bond[3].min(initial=np.inf) for bond in bonds])
    short = np.flatnonzero(length < BOND_CUTOFF_A)
    corner, arms = _angles(first, second, short, n)
    return BatchGraph(
        numbers=batch.numbers[inside],
        owner=owner,
        first=first,
        second=second,
        vectors_a=vectors,
        short=short,
        corner=corner,
        arms=arms,
        closest_a=closest,
        isolated=isolated,
    )


def crystal_bonds(batch: CrystalBatch, row: int) -> Bonds:
    """The bonds of one crystal; raises TooManyNeighboursError if its graph would be too large."""
    cell, n = batch.cells_a[row], batch.counts[row]
    bonds = bonds_within(cell, batch.frac_coords[row, :n] @ cell, ATOM_CUTOFF_A)
    short = bonds[3] < BOND_CUTOFF_A
    degree = np.bincount(bonds[0][short], minlength=n) + np.bincount(bonds[1][short], minlength=n)
    rows = 2 * len(bonds[0]) + int((degree * (degree - 1)).sum())
    most = max(MOST_ROWS_PER_ATOM * int(n), MOST_ROWS_OF_FEW)
    if rows > most:
        raise TooManyNeighboursError(f"{rows:,} bonds and angles of {n} atoms, more than {most:,}")
    return bonds


def _angles(
    first: np.ndarray, second: np.ndarray, short: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """(p,) corner atoms and (p, 2) pairs of directed short bonds leaving them."""
    directed = np.concatenate([short, short + len(first)])
    start = np.concatenate([first[short], second[short]])
    order = np.argsort(start, kind="stable")
    directed, start = directed[order], start[order]
    degree = np.bincount(start, minlength=n)
    # the bond at place k of its atom's list is paired with the k before it
    place = np.arange(len(start)) - np.repeat(np.cumsum(degree) - degree, degree)
    later = np.repeat(np.arange(len(start)), place)
    within = np.arange(len(later)) - np.repeat(np.cumsum(place) - place, place)
    earlier = later - place[later] + within
    return start[later], np.stack([directed[earlier], directed[later]], axis=1)
