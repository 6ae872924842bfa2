"""Figures of a report as SVG text: hull, funnel, reliability, unit cells.

They need no scripts and no outside files. Numbers come from `hullward.tools.report`.
"""

from hullward.tools.report.figures.hull import HullPoint, Kind, funnel_figure, hull_figure
from hullward.tools.report.figures.reliability import reliability_figure
from hullward.tools.report.figures.structure import structure_figure

__all__ = [
    "HullPoint",
    "Kind",
    "funnel_figure",
    "hull_figure",
    "reliability_figure",
    "structure_figure",
]
