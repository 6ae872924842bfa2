"""The funnel of a campaign as bars."""

from __future__ import annotations

from collections.abc import Mapping

from hullward.tools.report.figures.svg import document, text


def funnel_figure(funnel: Mapping[str, int]) -> str:
    """Nested counts as bars, each with its share of what was proposed."""
    proposed = funnel.get("proposed", 0)
    row, left, width = 24, 138, 250
    parts = []
    for i, (name, count) in enumerate(funnel.items()):
        y, share = i * row, count / proposed if proposed else 0.0
        rate = f"{100 * share:.1f} %" if proposed else "—"
        parts += [
            text(left - 8, y + 16, name, anchor="end"),
            f'<rect x="{left}" y="{y + 4}" width="{width}" height="16" rx="2" opacity=".08"'
            ' fill="currentColor"/>',
            f'<rect x="{left}" y="{y + 4}" width="{width * share:.1f}" height="16" rx="2"'
            ' fill="#2a7f8e"/>',
            text(left + width + 8, y + 16, f"{count:,} ({rate})"),
        ]
    label = ", ".join(f"{name} {count}" for name, count in funnel.items())
    return document(500, row * len(funnel) + 4, parts, "Funnel: " + label)
