"""Figures of a report as SVG text, without scripts and without outside files."""

from hullward.tools.report.figures.hull import HullPoint, funnel_figure, hull_figure
from hullward.tools.report.figures.reliability import reliability_figure
from hullward.tools.report.figures.structure import structure_figure

__all__ = ["HullPoint", "funnel_figure", "hull_figure", "reliability_figure", "structure_figure"]
