"""Fingerprints of crystals, on which CDVAE's coverage is based.

The fingerprint of a structure is the mean over its atoms of CrystalNN's: how probable each
coordination number is, and how well the neighbours then fit the shapes known for that number
(Zimmermann & Jain, doi:10.1039/C9RA07755C). Numbers are those of matminer's `CrystalNNFingerprint`,
preset `ops`; the neighbours' weights are pymatgen's, computed at once instead of one by one. The
fingerprint of a composition is six statistics of each of Magpie's 22 properties of elements
(doi:10.1038/npjcompumats.2016.28), standardised as CDVAE does (arXiv:2110.06197).

Bond lengths matter only beyond the sum of radii: a crystal squeezed to half its volume keeps its
fingerprint.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal import compact_cell, find_symmetry, plane_spacings_a

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.core.local_env import LocalStructOrderParams

MOST_NEIGHBOURS = 24  # the largest coordination number
N_FEATURES = 61  # of a structure
CUTOFF_A = 7.0  # of the first search for neighbours
ENOUGH_A = 5.0  # nearer ones are tried first: mostly no others share a face
BEYOND_RADII_A = (0.5, 1.0)  # bonds this much longer than the radii begin to fade, and are gone
ELECTRONEGATIVITY_WEIGHT = 3.0
WIDEST_GAP = 3.3  # of Pauling's electronegativities
OTHERS = {1: ("sgl_bd",), **dict.fromkeys((9, 10, 11, 12), ("q2", "q4", "q6"))}  # beside shapes
# the most atoms a search may cover; a crystal that needs more has no fingerprint
MAX_IMAGES = 20_000
SAME_SITE_A = 1e-3  # atoms that symmetry exchanges this exactly have one fingerprint
LONGEST_CELL_A = 500.0  # symmetry is not searched in longer ones


class NoFingerprintError(ValueError):
    """The neighbours of some atom cannot be determined."""


def structure_fingerprint(crystal: Crystal) -> np.ndarray | None:
    """(61,) the mean over the atoms; None if CrystalNN fails for one of them."""
    cell = compact_cell(np.array(crystal.lattice))
    cartesian = np.array(crystal.frac_coords) @ np.array(crystal.lattice)
    spacings = plane_spacings_a(cell)
    try:
        if not _images(spacings, crystal.n_atoms, CUTOFF_A) <= MAX_IMAGES:
            return None
        compact = Crystal.from_arrays(cell, crystal.species, cartesian @ np.linalg.inv(cell))
        structure = compact.to_structure()
        orbits = _orbits(compact, float(spacings.max()))
        prints = {first: _site_fingerprint(structure, first, spacings) for first in set(orbits)}
    except NoFingerprintError:
        return None
    mean: np.ndarray = np.mean([prints[first] for first in orbits], axis=0)
    return mean


def composition_fingerprint(amounts: Mapping[str, float]) -> np.ndarray | None:
    """(132,) from elements and their amounts; None if an element has no properties."""
    table = _magpie()
    if not amounts or not amounts.keys() <= table["elements"].keys():
        return None
    values = np.array([table["elements"][el] for el in amounts], dtype=float)  # (elements, 22)
    shares = np.array(list(amounts.values()), dtype=float)
    shares /= shares.sum()
    low, high, mean = values.min(axis=0), values.max(axis=0), shares @ values
    commonest = values[np.isclose(shares, shares.max())].min(axis=0)
    columns = [low, high, high - low, mean, shares @ np.abs(values - mean), commonest]
    raw = np.stack(columns, axis=1).ravel()
    standard: np.ndarray = (raw - table["means"]) / table["deviations"]
    return np.where(np.isnan(standard), 0.0, standard)  # a missing value counts as the average


@cache
def _magpie() -> dict[str, Any]:
    text = (files("hullward.data") / "magpie_elements.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    for name in ("means", "deviations"):
        table[name] = np.array(table[name])
    return table


def _images(spacings_a: np.ndarray, n_atoms: int, radius_a: float) -> float:
    """How many atoms a search covers; infinite or nan for a flat cell."""
    with np.errstate(all="ignore"):
        return float(np.prod(2 * radius_a / spacings_a + 1) * n_atoms)


def _orbits(crystal: Crystal, longest_a: float) -> Sequence[int]:
    """For each atom the first one that symmetry maps it to."""
    if longest_a > LONGEST_CELL_A:
        return range(crystal.n_atoms)
    try:
        return [int(first) for first in find_symmetry(crystal, SAME_SITE_A).orbits]
    except ValueError:
        return range(crystal.n_atoms)


def _site_fingerprint(structure: Structure, site: int, spacings_a: np.ndarray) -> np.ndarray:
    """(61,) of one atom."""
    features: list[float] = []
    found = _coordinations(*_neighbours(structure, site, spacings_a), structure[site].specie.symbol)
    for number in range(1, MOST_NEIGHBOURS + 1):
        probability, vectors = found.get(number, (0.0, np.empty((0, 3))))
        features.append(probability)
        features += [probability * fit for fit in _fits(number, probability, vectors)]
    return np.array(features)


def _neighbours(
    structure: Structure, site: int, spacings_a: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Vectors (n, 3) to neighbours that share a face, its angle and area (n,), and elements."""
    matrix = structure.lattice.matrix
    diagonals = [[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]
    farthest = float(np.linalg.norm(np.array(diagonals) @ matrix, axis=1).max()) + 0.01
    radius = CUTOFF_A
    while True:
        if not _images(spacings_a, len(structure), radius) <= MAX_IMAGES:
            raise NoFingerprintError
        _, others, offsets, distances = structure.get_neighbor_list(radius, [structure[site]])
        order = np.argsort(distances, kind="stable")
        fractional = structure.frac_coords[others] + offsets - structure.frac_coords[site]
        vectors = (fractional @ matrix)[order]
        near = vectors[distances[order] <= ENOUGH_A]
        faces = _faces(near, ENOUGH_A) if len(near) > 3 else None
        if faces is None and len(vectors) > 3:
            faces = _faces(vectors)
        if faces is not None:
            behind, angles, areas = faces
            symbols = [structure[others[order[i]]].specie.symbol for i in behind]
            return vectors[behind], angles, areas, symbols
        if radius >= farthest:
            raise NoFingerprintError
        radius = min(2 * radius, farthest + 0.001)


def _faces(
    vectors: np.ndarray, all_within_a: float = math.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Faces of the Voronoi cell of the origin: which neighbour, angle seen (sr), area (Å²).

    vectors: (n, 3) of all neighbours nearer than the given distance.  None if the cell is open, or
    if an atom farther away could cut it.
    """
    from scipy.spatial import QhullError, Voronoi

    try:
        cells = Voronoi(np.vstack([np.zeros(3), vectors]))
    except QhullError:
        return None  # such as all in one plane
    behind, corners = [], []
    for pair, face in zip(cells.ridge_points, cells.ridge_vertices, strict=True):
        if 0 in pair:
            if -1 in face:
                return None
            behind.append(int(pair.sum()) - 1)
            corners.append(face)
    if not behind:
        return None
    outer = cells.vertices[[v for face in corners for v in face]]
    if 2 * np.linalg.norm(outer, axis=1).max() > all_within_a:
        return None
    fans = [(i, f[0], f[j], f[j + 1]) for i, f in enumerate(corners) for j in range(1, len(f) - 1)]
    owner, *abc = np.array(fans).T
    a, b, c = (cells.vertices[corner] for corner in abc)  # each (triangles, 3)
    triple = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    na, nb, nc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    ab, ac, bc = (np.einsum("ij,ij->i", x, y) for x, y in ((a, b), (a, c), (b, c)))
    # van Oosterom & Strackee, doi:10.1109/TBME.1983.325207
    angle = 2 * np.arctan2(triple, na * nb * nc + nc * ab + nb * ac + na * bc)
    angles = np.bincount(owner, angle, len(behind))
    heights = np.linalg.norm(vectors[behind], axis=1) / 2
    with np.errstate(all="ignore"):
        areas = 3 * np.bincount(owner, triple / 6, len(behind)) / heights
    return np.array(behind), angles, areas


def _coordinations(
    vectors: np.ndarray, angles: np.ndarray, areas: np.ndarray, symbols: list[str], centre: str
) -> dict[int, tuple[float, np.ndarray]]:
    """CrystalNN's coordination numbers: the probability and the neighbours' vectors of each."""
    chi, radius = _element(centre)
    others = [_element(symbol) for symbol in symbols]
    gaps = np.nan_to_num(np.abs([other - chi for other, _ in others]), nan=math.nan)
    lengths = np.linalg.norm(vectors, axis=1)
    with np.errstate(all="ignore"):
        weights = angles / angles.max() * np.where(angles > 0, angles / areas, 0.0)
        chemical = 1 + ELECTRONEGATIVITY_WEIGHT * np.sqrt(gaps / WIDEST_GAP)
        weights *= np.where(np.isnan(chemical), 1.0, chemical)
    if not np.isfinite(weights).all():
        raise NoFingerprintError
    beyond = lengths - radius - np.array([r for _, r in others])
    start, end = BEYOND_RADII_A
    fade = np.clip((beyond - start) / (end - start), 0, 1)
    weights = np.round(weights / weights.max() * (np.cos(math.pi * fade) + 1) / 2, 3)
    order = np.argsort(-weights, kind="stable")
    vectors, weights = vectors[order], weights[order]
    levels = np.unique(weights[weights > 0])[::-1]
    under = [_under_circle(x) for x in (*levels, 0.0)]
    found = {}
    for level, here, below in zip(levels, under, under[1:], strict=False):
        near = vectors[weights >= level]
        found[len(near)] = ((here - below) / (math.pi / 4), near)
    return found


def _under_circle(x: float) -> float:
    """The area under the unit circle's quarter from 0 to x."""
    return (x * math.sqrt(1 - x * x) + math.asin(x)) / 2


@cache
def _element(symbol: str) -> tuple[float, float]:
    """Electronegativity, nan if none is known, and radius in Å."""
    from pymatgen.core import Element
    from pymatgen.core.local_env import CovalentRadius

    element = Element(symbol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        radius = CovalentRadius.radius.get(symbol, element.atomic_radius)
        if radius is None:
            raise NoFingerprintError(symbol)
        return float(element.X), float(radius)


class _Site(NamedTuple):
    """The part of a site that pymatgen's order parameters need."""

    coords: np.ndarray


@cache
def _shapes(number: int) -> list[LocalStructOrderParams]:
    """The order parameters of one coordination number.

    One object per shape: pymatgen's results for a shape depend on the others in the same object.
    """
    from pymatgen.core.local_env import CN_OPT_PARAMS, LocalStructOrderParams

    known: Any = CN_OPT_PARAMS.get(number, {}).values()  # name, and parameters if there are any
    shapes = [
        LocalStructOrderParams([name], parameters=[dict(given[0])] if given else None)
        for name, *given in known
    ]
    if number in OTHERS:
        shapes.append(LocalStructOrderParams([*OTHERS[number]]))
    return shapes


def _fits(number: int, probability: float, vectors: np.ndarray) -> list[float]:
    """How well neighbours at vectors (n, 3) fit each shape; 0 if undefined."""
    if not probability:
        return [0.0] * sum(shape.num_ops for shape in _shapes(number))
    sites: Any = [_Site(np.zeros(3)), *map(_Site, vectors)]
    neighbours = [*range(1, len(sites))]
    found = [shape.get_order_parameters(sites, 0, neighbours) for shape in _shapes(number)]
    return [fit or 0.0 for fits in found for fit in fits]
