"""The marks of hull figures: what each kind looks like, its colour, label and legend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from hullward.tools.report.figures.svg import halo_text, hex_colour, text

COLOUR_CAP_EV = 0.2  # heights above it share the last colour
PLAIN_COLOUR = "#2a7f8e"

Kind = Literal[
    "phase", "unstable_phase", "short_list", "judged", "rediscovered", "suspect", "below_reference"
]
KIND_WORDS: dict[Kind, str] = {
    "phase": "stable reference phase",
    "unstable_phase": "reference phase above the hull",
    "short_list": "short list",
    "judged": "other candidate",
    "rediscovered": "rediscovered",
    "suspect": "suspect",
    "below_reference": "below the reference",
}
Placed = tuple["HullPoint", float, float]  # a point and its place in the figure
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class HullPoint:
    """A phase of the reference, or the lowest candidate of a composition."""

    name: str  # id, shown on hover
    formula: str
    composition: Mapping[str, float]  # atomic fractions
    height_ev_per_atom: float
    kind: Kind
    formation_energy_ev_per_atom: float | None = None
    on_hull: bool = False  # a corner of the phase diagram


def marker(point: HullPoint, x: float, y: float, *, coloured: bool = False) -> str:
    """A mark with the shape of its kind; id and height on hover."""
    mev = 1000 * point.height_ev_per_atom
    words = f"{point.formula} {point.name}: {mev:+.0f} meV/atom"
    if point.formation_energy_ev_per_atom is not None:
        words += f", formation energy {point.formation_energy_ev_per_atom:+.3f} eV/atom"
    return _titled(f"{words} ({KIND_WORDS[point.kind]})", _shape(point, x, y, coloured))


def _titled(words: str, shape: str) -> str:
    return f"<g><title>{escape(words)}</title>{shape}</g>"


def _shape(point: HullPoint, x: float, y: float, coloured: bool) -> str:
    fill = height_colour(point.height_ev_per_atom) if coloured else PLAIN_COLOUR
    edge = 'stroke="currentColor" stroke-width="1"'
    return {
        "phase": f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"'
        ' fill="currentColor"/>',
        "unstable_phase": f'<rect x="{x - 2.5:.1f}" y="{y - 2.5:.1f}" width="5" height="5"'
        ' fill="none" stroke="currentColor" stroke-width=".9" opacity=".7"/>',
        "short_list": f'<path d="M{x:.1f} {y - 7:.1f}l7 7-7 7-7-7z" fill="{fill}" {edge}/>',
        "judged": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{fill}" opacity=".85"/>',
        "rediscovered": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" {edge}/>',
        "suspect": f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8" fill="none"'
        ' stroke="#c0392b" stroke-width="1.6"/>',
        "below_reference": f'<path d="M{x - 5:.1f} {y - 4:.1f}h10l-5 9z" fill="none" {edge}/>',
    }[point.kind]


def paint_order(points: Sequence[HullPoint]) -> list[HullPoint]:
    """Marks in drawing order, important ones last: short list over phases over the rest."""
    rank = {"short_list": 2, "phase": 1, "unstable_phase": -1}
    return sorted(points, key=lambda p: (rank.get(p.kind, 0), -p.height_ev_per_atom, p.name))


def labels(placed: Sequence[Placed], size: Box) -> tuple[list[str], list[str]]:
    """Labels of stable phases and of the short list, and a list of those that had no room.

    Each formula has one label. A label hides no mark and no other label and stays within `size`
    (left, top, right, bottom); where no place is left, a number stands at the mark instead, and
    the second list explains it.
    """
    boxes = [(x - 4, y - 4, x + 4, y + 4) for _, x, y in placed]
    named = {p.formula: (p, x, y) for p, x, y in placed if p.on_hull or p.kind == "short_list"}
    crowd = {
        formula: sum(abs(x - u) + abs(y - v) < 60 for _, u, v in placed)
        for formula, (_, x, y) in named.items()
    }
    drawn: list[str] = []
    numbered: list[str] = []
    for formula in sorted(named, key=lambda f: (not named[f][0].on_hull, crowd[f], f)):
        _, x, y = named[formula]
        place = _free(formula, x, y, boxes, size)
        words = formula
        if place is None:
            words = str(len(numbered) + 1)
            place = _free(words, x, y, boxes, size) or (x + 5, y - 5)
            numbered.append(f"{words} {formula}")
        drawn.append(halo_text(*place, words))
        boxes.append(_box(words, *place))
    return drawn, numbered


def _free(
    words: str, x: float, y: float, boxes: Sequence[Box], size: Box
) -> tuple[float, float] | None:
    """The first place near a mark where these words hide nothing."""
    width = 6.0 * len(words)
    for away in (0, 6, 13):
        for left, base in (
            (x + 7 + away, y + 4), (x - width / 2, y - 8 - away), (x - width / 2, y + 16 + away),
            (x - width - 7 - away, y + 4), (x + 5 + away, y - 8 - away), (x + 5 + away, y + 15),
            (x - width - 5 - away, y - 8 - away), (x - width - 5 - away, y + 15),
        ):  # fmt: skip
            box = _box(words, left, base)
            inside = box[0] >= size[0] and box[1] >= size[1] and box[2] <= size[2]
            if inside and box[3] <= size[3] and not any(_overlap(box, other) for other in boxes):
                return left, base
    return None


def _box(words: str, left: float, base: float) -> Box:
    return left - 1, base - 9, left + 6.0 * len(words) + 1, base + 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def key(points: Sequence[HullPoint], x: float, y: float, width: float) -> tuple[list[str], float]:
    """The legend of the marks that occur, in columns, and its height."""
    out = []
    counts = Counter(p.kind for p in points)
    kinds = {
        kind: f"{words} ({counts[kind]})" for kind, words in KIND_WORDS.items() if counts[kind]
    }
    apart = 30 + 6.5 * max(map(len, kinds.values()), default=0)
    columns = max(1, int(width // apart))
    for number, (kind, words) in enumerate(kinds.items()):
        sample = HullPoint("", "", {}, 0.0, kind)
        at = (x + apart * (number % columns), y + 18 * (number // columns))
        out.append(_titled(KIND_WORDS[kind], _shape(sample, *at, coloured=False)))
        out.append(text(at[0] + 12, at[1] + 4, words))
    return out, 18.0 * math.ceil(len(kinds) / columns)


def height_colour(height_ev: float) -> str:
    """Teal on the hull to sand at the cap: distinct in lightness, so also without colour."""
    t = min(max(height_ev / COLOUR_CAP_EV, 0.0), 1.0)
    low, high = (0.04, 0.42, 0.50), (0.93, 0.78, 0.45)
    return hex_colour(tuple(a + (b - a) * t for a, b in zip(low, high, strict=True)))
