"""A unit cell as SVG: shaded atoms, bonds by covalent radii, cell edges, a legend.

In a compound the nonmetals that a metal in the cell binds are drawn beyond its faces too, so that
coordination is complete. Elements whose usual colours are alike get others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hullward.models.crystal import Crystal, lattice_matrix
from hullward.tools.report.figures.svg import document, hex_colour, line, text

BOND_TOLERANCE = 1.15  # times the sum of covalent radii (Cordero et al., 10.1039/b801115j)
ATOM_SCALE = 0.42  # drawn radius over covalent radius
NONMETALS = frozenset(
    {"H", "He", "B", "C", "N", "O", "F", "Ne", "Si", "P", "S", "Cl"}
    | {"Ar", "Ge", "As", "Se", "Br", "Kr", "Te", "I", "Xe", "At", "Rn"}
)

ALIKE = 0.35  # distance of colours in RGB, of at most 1.7
# Colours that most people tell apart (Okabe and Ito, 2008), for elements whose own are taken.
SPARE_COLOURS = (
    *((0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45), (0.94, 0.89, 0.26)),
    *((0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65)),
)

Colour = tuple[float, float, float]
Place = Callable[[np.ndarray], tuple[float, float]]  # Å, seen by the camera, to SVG units


def structure_figure(crystal: Crystal, width: int = 300, height: int = 290) -> str:
    """One unit cell, c upwards, seen from a little beside and above the a axis."""
    from ase.data import atomic_numbers, covalent_radii

    cell = lattice_matrix(*crystal.parameters)
    radii = {s: float(covalent_radii[atomic_numbers[s]]) for s in set(crystal.species)}
    symbols, frac = _with_neighbours(*_with_images(crystal), crystal, cell, radii)
    xyz = frac @ cell @ _camera().T  # columns: right, up, towards the viewer
    corners = np.array(list(itertools.product((0, 1), repeat=3))) @ cell @ _camera().T
    margin = ATOM_SCALE * max(radii.values())
    low = np.vstack([xyz, corners])[:, :2].min(axis=0) - margin
    high = np.vstack([xyz, corners])[:, :2].max(axis=0) + margin
    scale = min((width - 8) / (high[0] - low[0]), (height - 36) / (high[1] - low[1]))
    centre = (low + high) / 2

    def place(p: np.ndarray) -> tuple[float, float]:
        return (
            width / 2 + scale * (p[0] - centre[0]),
            (height - 28) / 2 - scale * (p[1] - centre[1]),
        )

    prefix, species = crystal.content_id, sorted(radii)
    colours = distinct_colours(species)
    bonds = _bond_strokes(symbols, xyz, radii, colours, scale, place)
    drawn = _edge_strokes(corners, place) + bonds
    for symbol, p in zip(symbols, xyz, strict=True):
        x, y = place(p)
        radius = scale * ATOM_SCALE * radii[symbol]
        drawn.append(
            (p[2], f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" stroke="#0005"'
                   f' stroke-width=".6" fill="url(#{prefix}-{symbol})"/>')
        )  # fmt: skip
    gradients = "".join(_gradient(f"{prefix}-{s}", colours[s]) for s in species)
    legend = []
    for i, symbol in enumerate(species):
        x = width / 2 + 46 * (i - (len(species) - 1) / 2) - 8
        legend.append(
            f'<circle cx="{x:.1f}" cy="{height - 12}" r="7" stroke="#0005" stroke-width=".6"'
            f' fill="url(#{prefix}-{symbol})"/>' + text(x + 11, height - 7, symbol)
        )
    body = [f"<defs>{gradients}</defs>", *(s for _, s in sorted(drawn)), *legend]
    return document(width, height, body, f"{crystal.formula}, {crystal.n_atoms} atoms in the cell")


def _with_images(crystal: Crystal, edge: float = 0.02) -> tuple[list[str], np.ndarray]:
    """Atoms in the cell and their images on its far faces: symbols and (m, 3) fractions."""
    frac = np.mod(np.array(crystal.frac_coords), 1.0)
    frac[frac > 1 - edge] -= 1.0
    symbols, placed = [], []
    for symbol, f in zip(crystal.species, frac, strict=True):
        choices = [(0, 1) if x < edge else (0,) for x in f]
        for shift in itertools.product(*choices):
            symbols.append(symbol)
            placed.append(f + shift)
    return symbols, np.array(placed)


def _with_neighbours(
    symbols: list[str],
    frac: np.ndarray,
    crystal: Crystal,
    cell: np.ndarray,
    radii: Mapping[str, float],
) -> tuple[list[str], np.ndarray]:
    """The same atoms, and nonmetals beyond the cell that metals among them bind."""
    metals = [i for i, symbol in enumerate(symbols) if symbol not in NONMETALS]
    own = [i for i, symbol in enumerate(crystal.species) if symbol in NONMETALS]
    if not metals or not own:
        return symbols, frac
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    places = np.mod(np.array(crystal.frac_coords)[own], 1.0)
    around = (places[:, None] + shifts).reshape(-1, 3)
    names = [crystal.species[i] for i in own for _ in shifts]
    apart = np.linalg.norm((around[:, None] - frac[metals]) @ cell, axis=2)
    reach = np.add.outer([radii[n] for n in names], [radii[symbols[i]] for i in metals])
    bound = (apart < BOND_TOLERANCE * reach).any(axis=1)
    there = np.linalg.norm((around[:, None] - frac) @ cell, axis=2).min(axis=1) < 0.1
    more = np.flatnonzero(bound & ~there)
    return [*symbols, *(names[i] for i in more)], np.vstack([frac, around[more]])


def _camera(azimuth_deg: float = 24.0, elevation_deg: float = 13.0) -> np.ndarray:
    """(3, 3) rows: right, up and towards the viewer, orthonormal."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    towards = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    return np.array([right, np.cross(towards, right), towards])


def _edge_strokes(corners: np.ndarray, place: Place) -> list[tuple[float, str]]:
    """Cell edges in short pieces, so that atoms hide only what lies behind them."""
    pieces = []
    for i, j in itertools.combinations(range(8), 2):
        if bin(i ^ j).count("1") != 1:
            continue
        ends = np.linspace(corners[i], corners[j], 7)
        pieces += [
            (float((p[2] + q[2]) / 2), line(*place(p), *place(q), 'stroke-width="1" opacity=".6"'))
            for p, q in itertools.pairwise(ends)
        ]
    return pieces


def _bond_strokes(
    symbols: Sequence[str],
    xyz: np.ndarray,
    radii: Mapping[str, float],
    colours: Mapping[str, Colour],
    scale: float,
    place: Place,
) -> list[tuple[float, str]]:
    """Two-coloured sticks; in a compound, not between metals."""
    compound = bool(NONMETALS & set(symbols))
    strokes = []
    for i, j in itertools.combinations(range(len(symbols)), 2):
        a, b = symbols[i], symbols[j]
        distance = float(np.linalg.norm(xyz[i] - xyz[j]))
        if not 0.4 < distance < BOND_TOLERANCE * (radii[a] + radii[b]):
            continue
        if compound and not {a, b} & NONMETALS:
            continue
        middle = (xyz[i] + xyz[j]) / 2
        for k, symbol in ((i, a), (j, b)):
            step = (middle - xyz[k]) / (distance / 2)
            start = xyz[k] + step * min(ATOM_SCALE * radii[symbol] * 0.9, distance / 2)
            shade, width = hex_colour(colours[symbol], 0.8), 0.16 * scale
            attributes = f'style="stroke:{shade}" stroke-width="{width:.1f}"'
            depth = float((start[2] + middle[2]) / 2)
            strokes.append((depth, line(*place(start), *place(middle), attributes)))
    return strokes


def distinct_colours(species: Sequence[str]) -> dict[str, Colour]:
    """A colour for each element: Jmol's, or a spare one where an earlier element's is like it."""
    found: dict[str, Colour] = {}
    for symbol in species:
        free = [_colour(symbol), *SPARE_COLOURS]
        apart = [min((math.dist(c, other) for other in found.values()), default=9.0) for c in free]
        first = next((c for c, far in zip(free, apart, strict=True) if far > ALIKE), None)
        found[symbol] = first or free[int(np.argmax(apart))]
    return found


def _colour(symbol: str) -> Colour:
    """Jmol's colours, as ASE lists them."""
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    r, g, b = jmol_colors[atomic_numbers[symbol]]
    return float(r), float(g), float(b)


def _gradient(name: str, colour: Colour) -> str:
    light = tuple(0.35 * c + 0.65 for c in colour)
    return (
        f'<radialGradient id="{name}" cx=".5" cy=".5" r=".62" fx=".34" fy=".3">'
        f'<stop offset="0" stop-color="{hex_colour(light)}"/>'
        f'<stop offset=".55" stop-color="{hex_colour(colour)}"/>'
        f'<stop offset="1" stop-color="{hex_colour(colour, 0.55)}"/></radialGradient>'
    )
