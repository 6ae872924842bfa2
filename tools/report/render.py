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
from hullward.tools.report.figures import (
    comparison_figure,
    funnel_figure,
    heights_figure,
    phase_diagram_figure,
    progress_figure,
    reliability_figure,
    structure_figure,
)
from hullward.tools.report.gather import gather
from hullward.tools.report.glossary import anchor
from hullward.tools.report.lineage import Lineage, lineage_words
from hullward.tools.report.names import reflections, search_links, short_id, space_group
from hullward.tools.report.opinions import opinion_words
from hullward.tools.report.requests import backends_sentence
from hullward.tools.report.schema import Report, ReportEntry
from hullward.tools.report.systems import System
from hullward.tools.report.uncertainty import trust_words
from hullward.tools.report.words import percentage, probability_words
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
        not_made=words.not_made(report),
        progress=words.progress_sentence(report),
        typical_error=words.typical_error(report),
        nested=NESTED,
        novel=NOVEL,
        apart=APART,
        funnel_figure=lambda: _trusted(
            funnel_figure({stage_words(k): report.funnel[k] for k in NESTED + NOVEL})
        ),
        heights_figure=lambda: _heights(report),
        progress_figure=lambda: _progress(report),
        comparison_figures=lambda: _comparisons(report),
        search_links=search_links,
        anchor=anchor,
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
        "remarks": words.remarks,
        "cell": words.cell,
        "reflections": reflections,
        "standing": words.standing,
        "lineage": _lineage,
        "comparison": words.comparison,
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


def _heights(report: Report) -> Markup:
    bars = [(b.from_mev, b.to_mev, b.reference, b.union, b.union_new) for b in report.heights.bins]
    threshold = 1000 * report.basis.metastable_ev_per_atom if report.basis else None
    return _trusted(heights_figure(bars, threshold) if bars else "")


def _progress(report: Report) -> Markup:
    """The short list by cycle; '' where there is nothing to follow."""
    steps = [
        (c.name, None if (best := c.progress.best_so_far_ev_per_atom) is None else 1000 * best,
         c.progress.families_so_far)
        for c in report.cycles
    ]  # fmt: skip
    return _trusted(progress_figure(steps) if len(steps) > 1 and steps[-1][2] else "")


def _comparisons(report: Report) -> list[Markup]:
    """The short list's heights by each other potential against those by the first."""
    first = report.basis.potential if report.basis else ""
    pairs: dict[str, list[tuple[str, float, float]]] = {}
    for e in report.short_list.entries:
        if None not in (e.read_by, e.read_higher_ev_per_atom, e.e_above_reference_ev_per_atom):
            height = 1000 * (e.e_above_reference_ev_per_atom or 0.0)
            second = height + 1000 * (e.read_higher_ev_per_atom or 0.0)
            name = f"{e.formula} {short_id(e.candidate_id)}"
            pairs.setdefault(f"{e.read_by}, same structure", []).append((name, height, second))
    for o in report.opinions.said:
        if o.first_ev_per_atom is not None and o.second_ev_per_atom is not None:
            both = (1000 * o.first_ev_per_atom, 1000 * o.second_ev_per_atom)
            name = f"{o.formula} {short_id(o.candidate_id)}"
            pairs.setdefault(f"{o.potential}, relaxed by it", []).append((name, *both))
    return [_trusted(comparison_figure(found, first, name)) for name, found in pairs.items()]


def _lineage(entry: ReportEntry) -> str:
    known = entry.lineage or Lineage()
    return lineage_words(entry.operator, entry.cycle, entry.parents, known)


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
