"""Distances, cell planes and compact cells of crystals."""

from __future__ import annotations

import math

import numpy as np

from hullward.models.crystal import Crystal

# Thinner cells are reduced, unless their volume is below 1 Å3 or an edge is longer than this.
THIN_A = 2.0
LONGEST_EDGE_A = 1e4


def nearest_pairs(crystal: Crystal, reach_a: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shortest distance of every pair of sites over all periodic images, each site with itself too.

    Returns (i, j, distance in Å), all of length n(n+1)/2. Distances are exact up to reach_a; above
    it they are upper bounds (inf if no image was tried).
    """
    original = np.array(crystal.lattice)
    matrix = compact_cell(original)
    frac = np.array(crystal.frac_coords)
    if matrix is not original:
        frac = np.mod(frac, 1.0) @ original @ np.linalg.inv(matrix)
    frac = np.mod(frac, 1.0)
    i, j = np.triu_indices(crystal.n_atoms)
    apart = frac[i] - frac[j]
    apart -= np.round(apart)
    # with |apart| <= 1/2, images farther than this are beyond reach
    counts = np.floor(reach_a / plane_spacings_a(matrix) + 0.5).astype(int)
    steps = np.indices(tuple(2 * counts + 1)).reshape(3, -1).T - counts
    pairs, images = apart @ matrix, steps @ matrix
    squared = (pairs**2).sum(1)[:, None] + (images**2).sum(1) + 2 * pairs @ images.T
    squared[i == j, len(steps) // 2] = np.inf  # an atom is no neighbour of itself
    return i, j, np.sqrt(np.maximum(squared.min(axis=1), 0.0))


def plane_spacings_a(matrix: np.ndarray) -> np.ndarray:
    """(3,) distances between opposite faces of the cell, Å; zeros for a cell without volume."""
    a, b, c = matrix.tolist()
    normals = (_cross(b, c), _cross(c, a), _cross(a, b))
    volume = abs(sum(x * n for x, n in zip(a, normals[0], strict=True)))
    areas = [math.hypot(*n) for n in normals]
    return np.array([volume / area if area > 0 else 0.0 for area in areas])


def _cross(u: list[float], v: list[float]) -> tuple[float, float, float]:
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


def compact_cell(matrix: np.ndarray) -> np.ndarray:
    """The same lattice; for a thin cell with shorter, more orthogonal vectors if there are any.

    A skewed cell may look flat only because of the choice of its vectors.
    """
    from pymatgen.core import Lattice

    thin = plane_spacings_a(matrix).min() < THIN_A
    reducible = abs(float(np.linalg.det(matrix))) > 1.0 and np.abs(matrix).max() < LONGEST_EDGE_A
    if thin and reducible:
        return np.array(Lattice(matrix).get_lll_reduced_lattice().matrix)
    return matrix
