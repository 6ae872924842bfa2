"""The histogram of heights above the hull."""

from __future__ import annotations

from collections.abc import Sequence

from hullward.tools.report.figures.marks import PLAIN_COLOUR
from hullward.tools.report.figures.svg import count_axis, document, line, text

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640.0, 44.0, 624.0, 34.0, 216.0

Bar = tuple[int | None, int | None, int, int, int]  # from, to (meV); reference, union, new in union


def heights_figure(bars: Sequence[Bar], threshold_mev: float | None) -> str:
    """Structures by height: bars above the hull of everything, an outline over the reference.

    threshold_mev: up to which a structure counts as metastable, drawn as a line.
    """
    most = max(max(reference, union) for *_, reference, union, _ in bars) or 1
    step = (RIGHT - LEFT) / len(bars)
    scale, parts = count_axis(most, LEFT, RIGHT, TOP, BOTTOM)
    outline = [(LEFT, BOTTOM)]
    for place, (low, high, reference, union, new) in enumerate(bars):
        x, y = LEFT + place * step, BOTTOM - union * scale
        span = f"{_signed(low)} to {_signed(high)}" if low is not None else f"below {_signed(high)}"
        span = f"from {_signed(low)}" if high is None else span
        words = f"{span} meV/atom: {union} ({new} new); over the reference alone {reference}"
        parts.append(
            f"<g><title>{words}</title>"
            f'<rect x="{x + 1:.1f}" y="{TOP:g}" width="{step - 2:.1f}" height="{BOTTOM - TOP:g}"'
            ' fill="none" pointer-events="all"/>'
            f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{BOTTOM - y:.1f}"'
            f' fill="{PLAIN_COLOUR}" opacity=".35"/>'
            f'<rect x="{x + 1:.1f}" y="{BOTTOM - new * scale:.1f}" width="{step - 2:.1f}"'
            f' height="{new * scale:.1f}" fill="{PLAIN_COLOUR}"/></g>'
        )
        outline += [(x, BOTTOM - reference * scale), (x + step, BOTTOM - reference * scale)]
        if place > 1 and low is not None and high is not None and low % 100 == 0:
            parts.append(line(x, BOTTOM, x, BOTTOM + 4, 'stroke-width=".8"'))
            parts.append(text(x, BOTTOM + 17, _signed(low), "middle"))
    parts += _threshold(bars, step, threshold_mev)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*outline, (RIGHT, BOTTOM)])
    parts.append(f'<path d="M{path}" fill="none" stroke="currentColor" stroke-width="1.3"/>')
    parts.append(line(LEFT, BOTTOM, RIGHT, BOTTOM, 'stroke-width="1"'))
    parts += _ends(bars, step)
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 34, "height, meV/atom", "middle"))
    parts += _key()
    total = sum(union for *_, union, _ in bars)
    below = sum(reference for _, high, reference, *_ in bars if high is not None and high <= 0)
    within = sum(u for low, high, _, u, _ in bars if high is not None and high <= 100)
    words = (
        f"{within} of {total} structures lie less than 100 meV/atom above the hull of reference "
        f"and campaign; {below} lie below the hull of the reference alone."
    )
    return document(WIDTH, BOTTOM + 40, parts, "Heights above the hull", words)


def _threshold(bars: Sequence[Bar], step: float, threshold_mev: float | None) -> list[str]:
    """The height up to which a structure is metastable."""
    for place, (low, high, *_) in enumerate(bars):
        if low is None or high is None or threshold_mev is None:
            continue
        if low <= threshold_mev < high:
            x = LEFT + step * (place + (threshold_mev - low) / (high - low))
            return [
                line(x, TOP, x, BOTTOM, 'stroke-width="1" stroke-dasharray="4 3"'),
                text(x + 5, TOP + 9, "metastable up to here", small=True),
            ]
    return []


def _ends(bars: Sequence[Bar], step: float) -> list[str]:
    """What the first and the last bar hold."""
    low, high = bars[0][1], bars[-1][0]
    return [
        text(LEFT + step / 2, BOTTOM + 17, f"< {_signed(low)}", "middle"),
        text(RIGHT - step / 2, BOTTOM + 17, f"≥ {_signed(high)}", "middle"),
    ]


def _key() -> list[str]:
    square = '<rect x="{x}" y="8" width="11" height="11" fill="{fill}" opacity="{opacity}"/>'
    return [
        square.format(x=LEFT, fill=PLAIN_COLOUR, opacity="1"),
        text(LEFT + 17, 18, "new"),
        square.format(x=LEFT + 70, fill=PLAIN_COLOUR, opacity=".35"),
        text(LEFT + 87, 18, "known, or novelty not judged"),
        line(LEFT + 286, 14, LEFT + 306, 14, 'stroke-width="1.3"'),
        text(LEFT + 313, 18, "all of them, over the reference alone"),
    ]


def _signed(mev: float | None) -> str:
    return f"{mev:.0f}".replace("-", "\N{MINUS SIGN}") if mev is not None else ""
