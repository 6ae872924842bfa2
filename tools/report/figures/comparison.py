"""Heights by two potentials against each other."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from hullward.tools.report.figures.marks import PLAIN_COLOUR
from hullward.tools.report.figures.svg import document, line, number, text, ticks, vertical_text

SIDE, LEFT, TOP = 300.0, 64.0, 14.0

Pair = tuple[str, float, float]  # name, first and second height (meV/atom)


def comparison_figure(pairs: Sequence[Pair], first: str, second: str) -> str:
    """One mark an entry, its height by the second potential over that by the first."""
    values = [value for _, *both in pairs for value in both]
    low, high = min([0.0, *values]), max([20.0, *values])
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        return (value - low) / (high - low) * SIDE

    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = []
    for value in ticks(low, high):
        x, y = LEFT + at(value), bottom - at(value)
        parts.append(line(LEFT, y, right, y, 'stroke-width=".5" opacity=".2"'))
        parts.append(line(x, TOP, x, bottom, 'stroke-width=".5" opacity=".2"'))
        parts.append(text(LEFT - 6, y + 4, number(value), "end"))
        parts.append(text(x, bottom + 16, number(value), "middle"))
    parts.append(line(LEFT, bottom, right, TOP, 'stroke-width="1" stroke-dasharray="4 3"'))
    for name, x, y in pairs:
        words = f"{name}: {number(x)} by {first}, {number(y)} by {second}, meV/atom"
        parts.append(
            f"<g><title>{escape(words)}</title>"
            f'<circle cx="{LEFT + at(x):.1f}" cy="{bottom - at(y):.1f}" r="4"'
            f' fill="{PLAIN_COLOUR}" opacity=".75"/></g>'
        )
    parts.append(text(LEFT + SIDE / 2, bottom + 34, f"by {first}, meV/atom", "middle"))
    parts.append(vertical_text(14, TOP + SIDE / 2, f"by {second}, meV/atom"))
    apart = [abs(y - x) for _, x, y in pairs]
    described = f"{len(pairs)} entries; they differ by up to {max(apart):.0f} meV/atom."
    return document(right + 16, bottom + 42, parts, f"Heights by {first} and {second}", described)
