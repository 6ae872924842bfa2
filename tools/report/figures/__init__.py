"""Figures of a report as SVG text: phase diagrams, funnel, reliability, unit cells.

They need no scripts and no outside files. Numbers come from `hullward.tools.report`.
"""

from hullward.tools.report.figures.funnel import funnel_figure
from hullward.tools.report.figures.marks import HullPoint, Kind
from hullward.tools.report.figures.phase_diagram import phase_diagram_figure
from hullward.tools.report.figures.reliability import reliability_figure
from hullward.tools.report.figures.structure import structure_figure

__all__ = [
    "HullPoint",
    "Kind",
    "funnel_figure",
    "phase_diagram_figure",
    "reliability_figure",
    "structure_figure",
]
