"""Hull and funnel figures as SVG text, which a page can hold without scripts or files.

Lines and letters use `currentColor`, so a figure follows the page from light to dark. Every figure
is about 480 units wide and so still readable on a phone. Words from outside are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np

from hullward.tools.report.figures.svg import document, hex_colour, line, text, vertical_text

LABELLED = ("phase", "short_list")
COLOUR_CAP_EV = 0.2  # heights above it share the last colour

Kind = Literal["phase", "short_list", "judged", "rediscovered", "suspect", "below_reference"]
KIND_WORDS: dict[Kind, str] = {
    "phase": "reference phase",
    "short_list": "short list",
    "judged": "judged",
    "rediscovered": "rediscovered",
    "suspect": "suspect",
    "below_reference": "below reference",
}


@dataclass(frozen=True)
class HullPoint:
    """A phase of the hull, or a judged candidate, as a mark in a plot."""

    name: str  # id, shown on hover
    formula: str
    composition: Mapping[str, float]  # atomic fractions
    height_ev_per_atom: float
    kind: Kind


def hull_figure(
    points: Sequence[HullPoint],
    elements: Sequence[str],
    tie_lines: Iterable[tuple[Mapping[str, float], Mapping[str, float]]] = (),
) -> str | None:
    """Heights over a binary as a line, over a ternary as a triangle; None for anything else."""
    if len(elements) == 2:
        return _binary(points, elements)
    if len(elements) == 3:
        return _ternary(points, elements, tie_lines)
    return None


def funnel_figure(funnel: Mapping[str, int]) -> str:
    """Nested counts as bars, each with its share of what was proposed."""
    proposed = funnel.get("proposed", 0)
    row, left, width = 24, 118, 250
    parts = []
    for i, (name, count) in enumerate(funnel.items()):
        y, share = i * row, count / proposed if proposed else 0.0
        rate = f"{100 * share:.1f} %" if proposed else "—"
        parts += [
            text(left - 8, y + 16, name.replace("_", " "), anchor="end"),
            f'<rect x="{left}" y="{y + 4}" width="{width}" height="16" rx="2" opacity=".08"'
            ' fill="currentColor"/>',
            f'<rect x="{left}" y="{y + 4}" width="{width * share:.1f}" height="16" rx="2"'
            ' fill="#2a7f8e"/>',
            text(left + width + 8, y + 16, f"{count:,} ({rate})"),
        ]
    label = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in funnel.items())
    return document(480, row * len(funnel) + 4, parts, "Funnel: " + label)


def _binary(points: Sequence[HullPoint], elements: Sequence[str]) -> str:
    """Height above the hull against composition: the hull is the line at zero."""
    left, right, top, bottom = 56, 462, 16, 236
    low, high = _range_mev([p.height_ev_per_atom for p in points])
    span = high - low

    def place(x: float, mev: float) -> tuple[float, float]:
        y = bottom - (min(max(mev, low), high) - low) / span * (bottom - top)
        return left + x * (right - left), y

    parts = []
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(f for f in (1, 2, 5, 10) if span / (step * f) <= 6)
    for mark in np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step:
        y = place(0, mark)[1]
        parts.append(line(left, y, right, y, 'stroke-width=".5" opacity=".25"'))
        parts.append(text(left - 6, y + 4, f"{mark:+.0f}" if mark else "0", anchor="end"))
    zero = place(0, 0)[1]
    parts.append(line(left, zero, right, zero, 'stroke-width="1.6"'))
    parts.extend(
        text(place(x, 0)[0], bottom + 16, f"{x:.1f}", "middle") for x in np.linspace(0, 1, 6)
    )
    parts.append(text((left + right) / 2, bottom + 34, f"fraction of {elements[1]}", "middle"))
    parts.append(vertical_text(13, (top + bottom) / 2, "height above hull, meV/atom"))
    placed = [
        (p, *place(p.composition.get(elements[1], 0.0), 1000 * p.height_ev_per_atom))
        for p in _paint_order(points)
    ]
    parts += [_marker(*mark) for mark in placed] + _labels(placed)
    beyond = sum(not low <= 1000 * p.height_ev_per_atom <= high for p in points)
    if beyond:
        note = f"{beyond} of {len(points)} beyond the axis, drawn at its end"
        parts.append(text(right, top - 4, note, "end", small=True))
    parts.append(_key(points, 24, 290))
    return document(480, 316, parts, f"Heights above the hull of {'-'.join(elements)}")


def _ternary(
    points: Sequence[HullPoint],
    elements: Sequence[str],
    tie_lines: Iterable[tuple[Mapping[str, float], Mapping[str, float]]],
) -> str:
    """Compositions in a triangle, heights as colour, the lowest on top."""
    corners = ((50.0, 372.0), (430.0, 372.0), (240.0, 372.0 - 380 * math.sqrt(3) / 2))

    def place(composition: Mapping[str, float]) -> tuple[float, float]:
        x, y = np.array([composition.get(e, 0.0) for e in elements]) @ np.array(corners)
        return float(x), float(y)

    parts = [
        line(*corners[i], *corners[j], 'stroke-width="1.2"') for i, j in ((0, 1), (1, 2), (0, 2))
    ]
    parts += [line(*place(a), *place(b), 'stroke-width=".7" opacity=".4"') for a, b in tie_lines]
    for (x, y), element, dy in zip(corners, elements, (20, 20, -12), strict=True):
        parts.append(text(x, y + dy, element, "middle"))
    placed = [(p, *place(p.composition)) for p in _paint_order(points)]
    parts += [_marker(*mark, coloured=True) for mark in placed] + _labels(placed)
    stops = "".join(
        f'<rect x="{60 + 6 * i}" y="404" width="6.5" height="10"'
        f' fill="{_height_colour(i / 19 * COLOUR_CAP_EV)}"/>'
        for i in range(20)
    )
    parts += [stops, text(60, 430, "≤ 0"), text(186, 430, f"≥ {1000 * COLOUR_CAP_EV:.0f}", "end")]
    parts += [text(200, 413, "height above hull, meV/atom"), _key(points, 24, 452)]
    return document(480, 478, parts, f"Heights above the hull of {'-'.join(elements)}")


def _range_mev(heights: Sequence[float]) -> tuple[float, float]:
    """An axis holding zero, the threshold of interest and nearly all points."""
    mev = [1000 * h for h in heights] or [0.0]
    high = max(150.0, float(np.percentile(mev, 90)) * 1.1)
    return max(-400.0, min(-30.0, min(mev) * 1.15)), min(high, 1000.0)


def _paint_order(points: Sequence[HullPoint]) -> list[HullPoint]:
    """Marks in drawing order, important ones last: short list over phases over the rest."""
    rank = {"short_list": 2, "phase": 1}
    return sorted(points, key=lambda p: (rank.get(p.kind, 0), -p.height_ev_per_atom, p.name))


def _labels(placed: Sequence[tuple[HullPoint, float, float]]) -> list[str]:
    """Formulas of phases and of the short list, once each, where they hide nothing."""
    boxes = [(x - 4, y - 4, x + 4, y + 4) for _, x, y in placed]
    labels, seen = [], set()
    for p, x, y in reversed(placed):  # the short list has the first choice of place
        if p.kind not in LABELLED or p.formula in seen:
            continue
        width = 6.0 * len(p.formula)
        for left, base in ((x + 9, y + 4), (x - width / 2, y - 9), (x - width / 2, y + 17),
                           (x - width - 9, y + 4), (x + 6, y - 9), (x + 6, y + 16)):  # fmt: skip
            box = (left - 3, base - 9, left + width + 3, base + 1)
            if not any(_overlap(box, other) for other in boxes):
                labels.append(text(left, base, p.formula, small=True))
                boxes.append(box)
                seen.add(p.formula)
                break
    return labels


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _marker(point: HullPoint, x: float, y: float, *, coloured: bool = False) -> str:
    """A mark, with a shape for its kind; ids and heights on hover."""
    mev = 1000 * point.height_ev_per_atom
    words = f"{point.formula} {point.name}: {mev:+.0f} meV/atom ({KIND_WORDS[point.kind]})"
    fill = _height_colour(point.height_ev_per_atom) if coloured else "#2a7f8e"
    edge = 'stroke="currentColor" stroke-width="1"'
    shape = {
        "phase": f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"'
        ' fill="currentColor"/>',
        "short_list": f'<path d="M{x:.1f} {y - 7:.1f}l7 7-7 7-7-7z" fill="{fill}" {edge}/>',
        "judged": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{fill}" opacity=".8"/>',
        "rediscovered": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"'
        f' fill="none" {edge}/>',
        "suspect": f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8" fill="none"'
        ' stroke="#c0392b" stroke-width="1.6"/>',
        "below_reference": f'<path d="M{x - 5:.1f} {y - 4:.1f}h10l-5 9z" fill="none" {edge}/>',
    }[point.kind]
    return f"<g><title>{escape(words)}</title>{shape}</g>"


def _key(points: Sequence[HullPoint], x: float, y: float) -> str:
    """The legend of the marks that occur."""
    out, column = [], 0
    for kind in KIND_WORDS:
        count = sum(p.kind == kind for p in points)
        if count:
            sample = HullPoint("", "", {}, 0.0, kind)
            place = (x + 154 * (column % 3), y + 18 * (column // 3))
            out.append(_marker(sample, *place).replace("<title> : +0 meV/atom ", "<title>"))
            out.append(text(place[0] + 10, place[1] + 4, f"{KIND_WORDS[kind]} ({count})"))
            column += 1
    return "".join(out)


def _height_colour(height_ev: float) -> str:
    """Teal on the hull to sand at the cap: distinct in lightness, so also without colour."""
    t = min(max(height_ev / COLOUR_CAP_EV, 0.0), 1.0)
    low, high = (0.04, 0.42, 0.50), (0.93, 0.78, 0.45)
    return hex_colour(tuple(a + (b - a) * t for a, b in zip(low, high, strict=True)))
