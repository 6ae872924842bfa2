"""The report of a campaign in HTML, Markdown and JSON, its figures, and structure files.

Everything comes from one published snapshot; nothing is computed beyond what is stored. Start
with `write_report` and `export_structures`. The path of a number into the report: a field in
`schema`, filled in `gather` (or `systems`, `novelty`, `requests`, `opinions`, `uncertainty`,
`heights`, `lineage`), put into a sentence in `words`, shown by the two templates that `render`
fills.
"""

from hullward.tools.report.export import export_structures
from hullward.tools.report.novelty import gather_identities, new_words
from hullward.tools.report.render import ReportPaths, write_report
from hullward.tools.report.requests import count_requests, requests_line

__all__ = [
    "ReportPaths",
    "count_requests",
    "export_structures",
    "gather_identities",
    "new_words",
    "requests_line",
    "write_report",
]
