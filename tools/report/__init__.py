"""What leaves a campaign: the report in HTML, Markdown and JSON, figures, structure files.

It reads one published snapshot and computes nothing that the store does not hold.
"""

from hullward.tools.report.export import export_structures
from hullward.tools.report.render import ReportPaths, write_report
from hullward.tools.report.requests import count_requests
from hullward.tools.report.words import requests_line

__all__ = [
    "ReportPaths",
    "count_requests",
    "export_structures",
    "requests_line",
    "write_report",
]
