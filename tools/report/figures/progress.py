"""How the best height and the number of families of a short list changed with the cycles."""

from __future__ import annotations

from collections.abc import Sequence

from hullward.tools.report.figures.marks import PLAIN_COLOUR
from hullward.tools.report.figures.svg import (
    count_axis,
    document,
    line,
    number,
    round_step,
    text,
    ticks,
)

WIDTH, TOP, BOTTOM = 640.0, 30.0, 176.0
MOST_NAMES = 10  # cycles named at the axis

Step = tuple[str, float | None, int]  # cycle, best height so far (meV/atom), families so far


def progress_figure(steps: Sequence[Step]) -> str:
    """Two panels over the cycles: lowest height so far, and families so far."""
    parts = _best(steps, 52.0, 300.0) + _families(steps, 376.0, 624.0)
    known = [best for _, best, _ in steps if best is not None]
    words = f"{steps[-1][2]} families after {len(steps)} cycles"
    if known:
        words += f"; best height from {number(known[0])} to {number(known[-1])} meV/atom"
    return document(WIDTH, BOTTOM + 38, parts, "The short list by cycle", words + ".")


def _places(steps: Sequence[Step], left: float, right: float) -> list[float]:
    apart = (right - left) / len(steps)
    return [left + (k + 0.5) * apart for k in range(len(steps))]


def _best(steps: Sequence[Step], left: float, right: float) -> list[str]:
    parts = [text(left, 16, "lowest height over the reference so far, meV/atom", small=True)]
    places = _places(steps, left, right)
    found = [(x, best) for x, (_, best, _) in zip(places, steps, strict=True) if best is not None]
    if found:
        low, high = min(y for _, y in found), max(y for _, y in found)
        step = round_step(max(high - low, 4.0))
        low, high = min(low, 0.0) - step / 2, max(high, 0.0) + step / 2
        scale = (BOTTOM - TOP) / (high - low)
        for value in ticks(low, high):
            y = BOTTOM - (value - low) * scale
            parts.append(line(left, y, right, y, 'stroke-width=".5" opacity=".25"'))
            parts.append(text(left - 6, y + 4, number(value), "end"))
        points = [(x, BOTTOM - (y - low) * scale) for x, y in found]
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(
            f"H{x:.1f}V{y:.1f}" for x, y in points[1:]
        )
        parts.append(f'<path d="{path}" fill="none" stroke="{PLAIN_COLOUR}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{PLAIN_COLOUR}"/>' for x, y in points
        ]
    else:
        parts.append(text((left + right) / 2, (TOP + BOTTOM) / 2, "no entry yet", "middle"))
    return parts + _cycles(steps, places, left, right)


def _families(steps: Sequence[Step], left: float, right: float) -> list[str]:
    parts = [text(left, 16, "families on the short list so far", small=True)]
    scale, axis = count_axis(max(n for *_, n in steps) or 1, left, right, TOP, BOTTOM)
    places = _places(steps, left, right)
    wide = min(40.0, 0.7 * (right - left) / len(steps))
    for x, (cycle, _, total) in zip(places, steps, strict=True):
        axis.append(
            f"<g><title>cycle {cycle}: {total}</title>"
            f'<rect x="{x - wide / 2:.1f}" y="{BOTTOM - total * scale:.1f}" width="{wide:.1f}"'
            f' height="{total * scale:.1f}" fill="{PLAIN_COLOUR}"/></g>'
        )
    return parts + axis + _cycles(steps, places, left, right)


def _cycles(steps: Sequence[Step], places: list[float], left: float, right: float) -> list[str]:
    every = -(-len(steps) // MOST_NAMES)
    names = [
        text(x, BOTTOM + 15, cycle, "middle")
        for k, (x, (cycle, *_)) in enumerate(zip(places, steps, strict=True))
        if k % every == 0
    ]
    return [
        line(left, BOTTOM, right, BOTTOM, 'stroke-width="1"'),
        *names,
        text((left + right) / 2, BOTTOM + 31, "cycle", "middle"),
    ]
