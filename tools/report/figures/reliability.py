"""The reliability curve of a calibrator: predicted probabilities against what DFT found."""

from __future__ import annotations

from collections.abc import Sequence

from hullward.tools.records import Check
from hullward.tools.report.figures.svg import document, line, text, vertical_text

COLOURS = ("#2a7f8e", "#c77b30")
SIDE, LEFT, TOP = 260.0, 60.0, 14.0


def reliability_figure(checks: Sequence[Check]) -> str:
    """One curve a threshold over left-out generators, bins of equal mass, with 95 % bars.

    A bar is Wilson's interval of the fraction found (10.1080/01621459.1927.10502953); on the
    diagonal, predictions and results agree.
    """

    def place(predicted: float, found: float) -> tuple[float, float]:
        return LEFT + predicted * SIDE, TOP + (1 - found) * SIDE

    parts = [line(*place(0, 0), *place(1, 1), 'stroke-width=".8" stroke-dasharray="4 3"')]
    for tenth in range(0, 11, 2):
        x, y = place(tenth / 10, 0)[0], place(0, tenth / 10)[1]
        parts.append(line(LEFT, y, LEFT + SIDE, y, 'stroke-width=".5" opacity=".25"'))
        parts.append(text(LEFT - 6, y + 4, f"{10 * tenth} %", "end", small=True))
        parts.append(text(x, TOP + SIDE + 14, f"{10 * tenth} %", "middle", small=True))
    parts.append(text(LEFT + SIDE / 2, TOP + SIDE + 32, "predicted", "middle"))
    parts.append(vertical_text(13, TOP + SIDE / 2, "found by DFT"))
    for number, one in enumerate(checks):
        colour = COLOURS[number % len(COLOURS)]
        points = []
        for predicted, found, rows in zip(
            one.curve.said, one.curve.found, one.curve.rows, strict=True
        ):
            x, y = place(predicted, found)
            low, high = wilson(found, rows)
            points.append(f"{x:.1f},{y:.1f}")
            parts.append(
                f'<path d="M{x:.1f} {place(0, high)[1]:.1f}V{place(0, low)[1]:.1f}"'
                f' stroke="{colour}" opacity=".55"/>'
                f"<g><title>predicted {100 * predicted:.1f} %, "
                f"found {100 * found:.1f} % of {rows}</title>"
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/></g>'
            )
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"'
            ' stroke-width="1.6"/>'
        )
        y = TOP + 14 + 56 * number
        parts.append(f'<circle cx="342" cy="{y - 4:.1f}" r="4" fill="{colour}"/>')
        mev = round(1000 * one.threshold_ev_per_atom)
        parts += [
            text(352, y, f"within {mev} meV/atom"),
            text(352, y + 15, f"error {100 * one.calibration_error:.1f} %", small=True),
            text(352, y + 29, f"{one.rows:,} rows", small=True),
        ]
    label = "Reliability: predicted probabilities against fractions found"
    return document(480, TOP + SIDE + 42, parts, label)


def wilson(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """Ends of the 95 % interval of a share found in so many rows."""
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5 / (1 + z * z / rows)
    return max(centre - half, 0.0), min(centre + half, 1.0)
