"""Phase diagrams as SVG text: the stable phases and tie lines of a system, and its candidates.

Two elements: formation energy against composition. Three: the triangle of compositions. Four: the
triangle of three of them, seen from the corner of the fourth; there the equilibria with the pure
fourth element form a triangulation of their own, and all other tie lines may seem to cross.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hullward.tools.report.figures.marks import (
    COLOUR_CAP_EV,
    HullPoint,
    height_colour,
    key,
    labels,
    marker,
    paint_order,
)
from hullward.tools.report.figures.svg import document, line, text, vertical_text

WIDTH = 640.0
LINE_CHARS = 105  # of the line that explains numbers


def phase_diagram_figure(
    points: Sequence[HullPoint],
    elements: Sequence[str],
    facets: Sequence[Sequence[str]],
    apex: str | None = None,
) -> str | None:
    """The phase diagram of a system; None for one, or for more than four elements.

    facets: names of the points in equilibrium.  apex: of four elements, the one it is seen from.
    """
    if len(elements) == 2:
        return _binary(points, elements)
    if len(elements) == 3:
        return _triangle(points, elements, _edges(facets), set())
    if len(elements) == 4 and apex is not None and apex in elements:
        return _projected(points, elements, facets, apex)
    return None


def _edges(facets: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    return {pair for facet in facets for pair in itertools.combinations(sorted(facet), 2)}


def _binary(points: Sequence[HullPoint], elements: Sequence[str]) -> str:
    """Formation energy against composition, with the hull as a line."""
    left, right, top, bottom = 64.0, WIDTH - 16, 22.0, 300.0
    known = [p for p in points if p.formation_energy_ev_per_atom is not None]
    energies = [p.formation_energy_ev_per_atom or 0.0 for p in known]
    low, high = _range_ev(energies)

    def place(point: HullPoint) -> tuple[float, float]:
        energy = min(max(point.formation_energy_ev_per_atom or 0.0, low), high)
        x = left + point.composition.get(elements[1], 0.0) * (right - left)
        return x, bottom - (energy - low) / (high - low) * (bottom - top)

    parts = []
    step = _step(high - low)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = bottom - (number * step - low) / (high - low) * (bottom - top)
        parts.append(line(left, y, right, y, 'stroke-width=".5" opacity=".25"'))
        label = f"{number * step:+.{max(0, -math.floor(math.log10(step)))}f}" if number else "0"
        parts.append(text(left - 6, y + 4, label.replace("-", "\N{MINUS SIGN}"), "end"))
    for tenth in range(0, 11, 2):
        x = left + tenth / 10 * (right - left)
        parts.append(line(x, bottom, x, bottom + 4, 'stroke-width=".8"'))
        parts.append(text(x, bottom + 18, f"{tenth / 10:.1f}", "middle"))
    parts.append(text(left, bottom + 36, elements[0], "middle"))
    parts.append(text(right, bottom + 36, elements[1], "middle"))
    parts.append(text((left + right) / 2, bottom + 36, f"fraction of {elements[1]}", "middle"))
    parts.append(vertical_text(13, (top + bottom) / 2, "formation energy, eV/atom"))
    corners = sorted((p for p in known if p.on_hull), key=lambda p: place(p)[0])
    for a, b in itertools.pairwise(corners):
        parts.append(line(*place(a), *place(b), 'stroke-width="1.5"'))
    placed = [(p, *place(p)) for p in paint_order(known)]
    parts += [marker(*mark) for mark in placed]
    words, numbered = labels(placed, (2, 2, WIDTH - 2, bottom + 40))
    parts += words
    if beyond := sum(energy > high for energy in energies):
        parts.append(text(right, 14, f"{beyond} above the axis, drawn at its end", "end"))
    return _finished(parts, known, numbered, bottom + 60, elements)


def _range_ev(energies: Sequence[float]) -> tuple[float, float]:
    """An axis holding zero, the deepest phase and a margin for what lies above the elements."""
    low = min([-0.05, *energies]) * 1.12
    return low, min(max([0.05, *energies]) * 1.05, max(0.15, -0.4 * low))


def _step(span: float) -> float:
    step: float = 10.0 ** math.floor(math.log10(span / 3))
    return step * next(f for f in (1, 2, 5, 10) if span / (step * f) <= 7)


def _triangle(
    points: Sequence[HullPoint],
    elements: Sequence[str],
    solid: set[tuple[str, str]],
    faint: set[tuple[str, str]],
    title: str = "",
) -> str:
    """Compositions in a triangle, tie lines between stable phases, heights as colour."""
    base, side = 540.0, 560.0
    corners = np.array([(40, base), (40 + side, base), (320, base - side * math.sqrt(3) / 2)])

    def place(composition: Mapping[str, float]) -> tuple[float, float]:
        x, y = np.array([composition.get(e, 0.0) for e in elements]) @ corners
        return float(x), float(y)

    at = {p.name: place(p.composition) for p in points}
    parts = [
        line(at[a][0], at[a][1], at[b][0], at[b][1], attributes)
        for pairs, attributes in (
            (faint, 'stroke-width=".5" opacity=".18"'),
            (solid, 'stroke-width=".8" opacity=".6"'),
        )
        for a, b in sorted(pairs)
        if at[a] != at[b]
    ]
    parts += [
        line(x1, y1, x2, y2, 'stroke-width="1.2"')
        for (x1, y1), (x2, y2) in ((corners[i], corners[j]) for i, j in _SIDES)
    ]
    for (x, y), element, dx, dy in zip(corners, elements, (-18, 18, 0), (18, 18, -14), strict=True):
        parts.append(text(x + dx, y + dy, element, "middle"))
    placed = [(p, *place(p.composition)) for p in paint_order(_lowest(points))]
    parts += [marker(*mark, coloured=True) for mark in placed]
    pure = [mark for mark in placed if max(mark[0].composition.values()) < 1 - 1e-9]
    words, numbered = labels(pure, (2, 30, WIDTH - 2, base + 18))
    parts += words
    y = base + 34
    parts += [
        f'<rect x="{40 + 6 * i}" y="{y}" width="6.5" height="10"'
        f' fill="{height_colour(i / 19 * COLOUR_CAP_EV)}"/>'
        for i in range(20)
    ]
    cap = f"≥ {1000 * COLOUR_CAP_EV:.0f}"
    parts += [text(40, y + 24, "≤ 0"), text(160, y + 24, cap, "end")]
    parts.append(text(176, y + 9, "colour: height above the hull, meV/atom"))
    shown = [point for point, *_ in placed]
    return _finished(parts, shown, numbered, y + 46, elements, title)


_SIDES = ((0, 1), (1, 2), (0, 2))


def _lowest(points: Sequence[HullPoint]) -> list[HullPoint]:
    """Without the candidates that lie above a stable phase or another one of their composition."""
    found: dict[tuple[tuple[str, float], ...], HullPoint] = {}
    suspects = []
    for p in sorted(points, key=lambda p: (not p.on_hull, p.height_ev_per_atom, p.name)):
        if p.kind == "suspect":
            suspects.append(p)
        else:
            shares = sorted((e, round(x, 6)) for e, x in p.composition.items() if x > 1e-9)
            found.setdefault(tuple(shares), p)
    return [*found.values(), *suspects]


def _projected(
    points: Sequence[HullPoint], elements: Sequence[str], facets: Sequence[Sequence[str]], apex: str
) -> str:
    """Four elements in the triangle of three, seen from the corner of the fourth."""
    rest = [element for element in elements if element != apex]
    seen = {}
    for p in points:
        total = sum(p.composition.get(e, 0.0) for e in rest)
        if total > 1e-9:
            share = {e: p.composition.get(e, 0.0) / total for e in rest}
            seen[p.name] = HullPoint(p.name, p.formula, share, p.height_ev_per_atom, p.kind,
                                     p.formation_energy_ev_per_atom, p.on_hull)  # fmt: skip
    corner = next((p.name for p in points if p.on_hull and p.composition.get(apex, 0) == 1), None)
    link = _edges([[n for n in f if n != corner] for f in facets if corner in f])
    near = {name for pair in link for name in pair}
    others = {pair for pair in _edges(facets) if set(pair) <= seen.keys()} - link
    # Of the phases that fall on one place, the one in equilibrium with the apex has the label.
    flat = [
        p if p.name in near or not p.on_hull else HullPoint(
            p.name, p.formula, p.composition, p.height_ev_per_atom, p.kind,
            p.formation_energy_ev_per_atom)
        for p in seen.values()
    ]  # fmt: skip
    return _triangle(flat, rest, link, others, f"{'-'.join(elements)} seen from {apex}")


def _finished(
    parts: list[str],
    points: Sequence[HullPoint],
    numbered: Sequence[str],
    y: float,
    elements: Sequence[str],
    title: str = "",
) -> str:
    """The document, with the legend of marks and numbers under the drawing."""
    legend, height = key(points, 46, y, WIDTH - 46)
    parts = [*parts, *legend]
    y += height + 6
    row = ""
    for words in numbered:
        if len(row) + len(words) > LINE_CHARS:
            parts.append(text(40, y, row, small=True))
            row, y = "", y + 14
        row += ("   " if row else "") + words
    if row:
        parts.append(text(40, y, row, small=True))
        y += 14
    return document(WIDTH, y, parts, title or f"Phase diagram of {'-'.join(elements)}")
