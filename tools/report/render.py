"""The report of a campaign or a screening: one HTML file, the same in Markdown, the same in JSON.

Everything comes from the published snapshot. The HTML loads and runs nothing: styles and pictures
are inside it, its own policy forbids scripts and requests, and all text from a model, a file or a
user is escaped.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from hullward.models.errors import InputError
from hullward.tools.report import words
from hullward.tools.report.backends import backends_sentence
from hullward.tools.report.figures import (
    funnel_figure,
    phase_diagram_figure,
    reliability_figure,
    structure_figure,
)
from hullward.tools.report.gather import gather
from hullward.tools.report.names import short_id, space_group
from hullward.tools.report.schema import Report, ReportEntry
from hullward.tools.report.systems import System
from hullward.tools.report.words import (
    opinion_words,
    percentage,
    probability_words,
    trust_words,
)
from hullward.tools.store import (
    APART,
    NESTED,
    NOVEL,
    open_snapshot,
    stage_words,
    write_whole,
)

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class ReportPaths:
    """The three files of a report."""

    html: Path
    markdown: Path
    json: Path


def write_report(directory: Path, out: Path | None = None) -> ReportPaths:
    """Write report.html, report.md and report.json into `out` (DIR/report by default).

    Raises InputError when the directory holds no campaign or `out` is no folder.
    """
    with open_snapshot(directory) as connection:
        report = gather(connection, directory)
    sentences = {"headline": words.headline(report), "backends": backends_sentence(report)}
    report = report.model_copy(update=sentences)
    folder = out or directory / "report"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the report")
    folder.mkdir(parents=True, exist_ok=True)
    return ReportPaths(
        html=write_whole(folder / "report.html", render(report, "report.html.j2")),
        markdown=write_whole(folder / "report.md", render(report, "report.md.j2")),
        json=write_whole(folder / "report.json", report.model_dump_json(indent=1) + "\n"),
    )


def render(report: Report, template: str) -> str:
    """Fill one template. HTML is escaped by jinja, Markdown by the filter `md`."""
    return _template(template).render(
        r=report,
        share=words.share,
        percent=words.percent,
        families=words.families,
        kind=words.kind(report),
        reference=words.reference_name(report.basis),
        second=words.second_sentence(report),
        vibrations=words.vibrations_sentence(report),
        trust=trust_words(report.trust),
        typical_error=words.typical_error(report),
        nested=NESTED,
        novel=NOVEL,
        apart=APART,
        funnel_figure=lambda: _trusted(
            funnel_figure({stage_words(k): report.funnel[k] for k in NESTED + NOVEL})
        ),
        structure_figure=_structure,
        reliability_figure=lambda checks: _trusted(reliability_figure(checks)),
        phase_diagram=_diagram,
        space_group=space_group,
        short=short_id,
        carded={e.candidate_id for e in report.short_list.entries if e.cif},
        any_p=bool(report.trust.with_probability),
        any_read=any(e.read_higher_ev_per_atom is not None for e in report.short_list.entries),
    )


@cache
def _template(name: str) -> Template:
    """One template, compiled once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "mev": words.mev,
        "decomposition": words.decomposition,
        "notes": words.notes,
        "cell": words.cell,
        "probabilities": probability_words,
        "opinion": opinion_words,
        "percentage": percentage,
        "flat": words.flat,
        "sub": subscripts,
        "md": markdown_text,
        "code": _backticks_as_code,
        "words": stage_words,
        "data_uri": _data_uri,
    }
    return environment.get_template(name)


def subscripts(formula: str) -> Markup:
    """'Li2O' with its numbers as subscripts; anything else in it is escaped."""
    return _trusted(re.sub(r"(?<=[A-Za-z)])(\d+\.?\d*)", r"<sub>\1</sub>", str(escape(formula))))


def markdown_text(value: Any) -> str:
    """One line of inert text: nothing in it can be markup, a link, an image or a table cell."""
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*_\[\]!|~#])", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("://", ":\\//").replace("www.", "www\\.")  # no automatic links


def _backticks_as_code(sentence: str) -> Markup:
    """A sentence with its commands in backticks as code."""
    return _trusted(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(sentence))))


def _structure(entry: ReportEntry) -> Markup:
    return _trusted(structure_figure(entry.crystal) if entry.crystal else "")


def _diagram(system: System) -> Markup:
    """The phase diagram; '' without a stored one, or for other than two to four elements."""
    if not system.facets:
        return _trusted("")
    elements = system.chemsys.split("-")
    drawn = phase_diagram_figure(system.points, elements, system.facets, system.apex)
    return _trusted(drawn or "")


def _data_uri(text: str) -> str:
    return "data:text/plain;base64," + base64.b64encode(text.encode()).decode("ascii")


def _trusted(markup: str) -> Markup:
    """Mark text as markup; only for what our own functions built and escaped."""
    return Markup(markup)  # noqa: S704
