"""The SVG elements that the figures use; text from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape


def document(
    width: float, height: float, parts: Iterable[str], label: str, described: str = ""
) -> str:
    """A picture with its name and, for those who cannot see it, what it shows."""
    desc = f"<desc>{escape(described)}</desc>" if described else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="12"><title>{escape(label)}</title>{desc}'
        + "".join(parts) + "</svg>"
    )  # fmt: skip


def round_step(span: float) -> float:
    """A round distance of some five ticks: 1, 2 or 5 times a power of ten.

    >>> round_step(430), round_step(7)
    (100.0, 2.0)
    """
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= span / 5)


def ticks(low: float, high: float) -> list[float]:
    """Round values between two ends."""
    step = round_step(high - low)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def number(value: float) -> str:
    """A whole number with a real minus sign.

    >>> number(-12.4)
    '−12'
    """
    return f"{round(value)}".replace("-", "\N{MINUS SIGN}")


def count_axis(
    most: int, left: float, right: float, top: float, bottom: float
) -> tuple[float, list[str]]:
    """The height of one count, and the axis of counts from 0 to `most`, whole numbers only."""
    scale = (bottom - top) / most
    parts = []
    for value in ticks(0, most) if most > 4 else range(most + 1):
        y = bottom - value * scale
        parts.append(line(left, y, right, y, 'stroke-width=".5" opacity=".25"'))
        parts.append(text(left - 6, y + 4, f"{value:g}", "end"))
    return scale, parts


def line(x1: float, y1: float, x2: float, y2: float, attributes: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" {attributes}/>'


def text(x: float, y: float, words: str, anchor: str = "start", *, small: bool = False) -> str:
    size = ' font-size="10"' if small else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{size} fill="currentColor">'
        f"{escape(words)}</text>"
    )


def halo_text(x: float, y: float, words: str) -> str:
    """Small words that stay readable over lines: edged in the colour of the page."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="10" fill="currentColor" paint-order="stroke"'
        f' style="stroke:var(--paper,#fff)" stroke-width="3">{escape(words)}</text>'
    )


def vertical_text(x: float, y: float, words: str) -> str:
    """Words that run upwards, centred on a point."""
    return f'<g transform="rotate(-90 {x:g} {y:g})">{text(x, y + 4, words, "middle")}</g>'


def hex_colour(colour: Sequence[float], darken: float = 1.0) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, c * darken)):02x}" for c in colour)
