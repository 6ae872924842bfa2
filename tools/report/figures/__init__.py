"""Figures of a report as SVG text: phase diagrams, heights, progress, potentials, unit cells.

They need no scripts and no outside files. Numbers come from `hullward.tools.report`.
"""

from hullward.tools.report.figures.bars import Bar, heights_figure
from hullward.tools.report.figures.comparison import comparison_figure
from hullward.tools.report.figures.funnel import funnel_figure
from hullward.tools.report.figures.marks import HullPoint, Kind
from hullward.tools.report.figures.phase_diagram import phase_diagram_figure
from hullward.tools.report.figures.progress import progress_figure
from hullward.tools.report.figures.reliability import reliability_figure
from hullward.tools.report.figures.structure import structure_figure

__all__ = [
    "Bar",
    "HullPoint",
    "Kind",
    "comparison_figure",
    "funnel_figure",
    "heights_figure",
    "phase_diagram_figure",
    "progress_figure",
    "reliability_figure",
    "structure_figure",
]
