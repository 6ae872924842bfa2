"""The report of a campaign or a screening: one HTML file, the same in Markdown, the same in JSON.

Everything comes from the published snapshot. The HTML loads nothing and runs nothing: styles and
pictures are inside it, scripts and requests are forbidden by its own policy, and every word that a
model, a file or a user wrote is escaped.
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
from hullward.tools.report.export import write_atomically
from hullward.tools.report.figures import (
    HullPoint,
    funnel_figure,
    hull_figure,
    reliability_figure,
    structure_figure,
)
from hullward.tools.report.gather import gather
from hullward.tools.report.schema import Report, ReportEntry
from hullward.tools.report.systems import System
from hullward.tools.report.words import (
    backends_sentence,
    chance_words,
    opinion_words,
    short_chance,
    trust_words,
)
from hullward.tools.store import APART, NESTED, NOVEL, open_snapshot

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class ReportPaths:
    """Where the three files are."""

    html: Path
    markdown: Path
    json: Path


def write_report(directory: Path, out: Path | None = None) -> ReportPaths:
    """Write report.html, report.md and report.json into `out` (DIR/report unless told otherwise).

    Raises InputError when the directory holds no campaign or `out` is no folder.
    """
    with open_snapshot(directory) as connection:
        report = gather(connection, directory)
    told = {"headline": words.headline(report), "backends": backends_sentence(report)}
    report = report.model_copy(update=told)
    folder = out or directory / "report"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the report")
    folder.mkdir(parents=True, exist_ok=True)
    return ReportPaths(
        html=write_atomically(folder / "report.html", render(report, "report.html.j2")),
        markdown=write_atomically(folder / "report.md", render(report, "report.md.j2")),
        json=write_atomically(folder / "report.json", report.model_dump_json(indent=1) + "\n"),
    )


def render(report: Report, template: str) -> str:
    """Fill one template. HTML is escaped by jinja, Markdown by the filter `md`."""
    return _template(template).render(
        r=report,
        share=words.share,
        percent=words.percent,
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
            funnel_figure({k: report.funnel[k] for k in NESTED + NOVEL})
        ),
        structure_figure=_structure,
        reliability_figure=lambda checks: _trusted(reliability_figure(checks)),
        hull_figure=_hull,
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
        "products": words.products,
        "notes": words.notes,
        "chances": chance_words,
        "opinion": opinion_words,
        "chance": short_chance,
        "flat": words.flat,
        "sub": subscripts,
        "md": markdown_text,
        "code": _backticks_as_code,
        "words": lambda name: name.replace("_", " "),
        "data_uri": _data_uri,
    }
    return environment.get_template(name)


def subscripts(formula: str) -> Markup:
    """'Li2O' with its numbers lowered; anything else in it escaped."""
    return _trusted(re.sub(r"(?<=[A-Za-z)])(\d+\.?\d*)", r"<sub>\1</sub>", str(escape(formula))))


def markdown_text(value: Any) -> str:
    """One line of inert text: nothing in it can be markup, a link, an image or a table cell."""
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*_\[\]!|~#])", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("://", ":\\//").replace("www.", "www\\.")  # no automatic links


def _backticks_as_code(sentence: str) -> Markup:
    """Commands that our own sentences put between backticks."""
    return _trusted(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(sentence))))


def _structure(entry: ReportEntry) -> Markup:
    return _trusted(structure_figure(entry.crystal) if entry.crystal else "")


def _hull(system: System) -> Markup:
    points = [HullPoint(**dict(p)) for p in system.points]
    at = {p.name: p.composition for p in system.points}
    lines = [(at[a], at[b]) for a, b in system.tie_lines]
    return _trusted(hull_figure(points, system.chemsys.split("-"), lines) or "")


def _data_uri(text: str) -> str:
    return "data:text/plain;base64," + base64.b64encode(text.encode()).decode("ascii")


def _trusted(markup: str) -> Markup:
    """The only door past escaping: for markup that our own functions built and escaped."""
    return Markup(markup)  # noqa: S704
