"""The SVG elements that the figures use; text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape


def document(width: float, height: float, parts: Iterable[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="12"><title>{escape(label)}</title>'
        + "".join(parts) + "</svg>"
    )  # fmt: skip


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
