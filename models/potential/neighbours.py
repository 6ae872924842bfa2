"""Which atoms of a periodic crystal are near which."""

from __future__ import annotations

import numpy as np


def bonds_within(
    cell_a: np.ndarray, positions_a: np.ndarray, cutoff_a: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, vector, length) of every pair of atoms within the cutoff, each pair once.

    cell_a: (3, 3) Å, one lattice vector a row.  positions_a: (n, 3) Å, not necessarily wrapped.
    Images count: an atom may be bonded to its own. `vector` is (u, 3) Å, from first to second.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = np.ascontiguousarray(cell_a)
    positions = np.ascontiguousarray(positions_a)
    centre, other, image, length = find_points_in_spheres(
        positions, positions, cutoff_a, np.ones(3, dtype=np.int64), cell, 1e-8
    )
    # of a bond and its reverse: from the lower atom, or towards the upper half of the images
    image = image.astype(np.int64)
    side = (image[:, 0] * 4096 + image[:, 1]) * 4096 + image[:, 2]
    half = (centre < other) | ((centre == other) & (side > 0))
    centre, other, image = centre[half], other[half], image[half]
    vectors = positions[other] - positions[centre] + image @ cell
    return centre, other, vectors, length[half]
