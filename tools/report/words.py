"""The sentences of a report, and how its numbers are written.

Heights in text are signed and in meV/atom; an unknown value is a dash; a count comes with its
total.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hullward.models.crystal import Crystal
from hullward.tools.records import Basis, Product
from hullward.tools.report.heights import Comparison
from hullward.tools.report.novelty import new_words
from hullward.tools.report.schema import Report, ReportEntry

DASH = "—"
MINUS = "\N{MINUS SIGN}"


def mev(ev: float | None) -> str:
    """A signed height without its unit: '+12', '−3', '0'."""
    if ev is None:
        return DASH
    rounded = round(1000 * ev)
    return f"{rounded:+d}".replace("-", MINUS) if rounded else "0"


def share(count: int, total: int) -> str:
    """'7 of 180 (3.9 %)'."""
    return f"{count:,} of {total:,} ({percent(count, total)})"


def percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else DASH


def products(parts: Sequence[Product]) -> str:
    """'0.67 Li2O + 0.33 MnO2', shares of atoms."""
    return " + ".join(f"{p.fraction:.2f} {p.formula}" for p in parts) or DASH


def decomposition(entry: ReportEntry, hull: str) -> str:
    """What a candidate would decompose into on the hull 'reference' or 'union', and how far.

    A phase of its own composition is a polymorph, and it is its own duplicate's equal.
    """
    parts, height = entry.decomposition_union, entry.e_above_union_ev_per_atom
    if hull == "reference":
        parts, height = entry.decomposition_reference, entry.e_above_reference_ev_per_atom
    if len(parts) != 1 or parts[0].formula != entry.formula:
        return products(parts)
    (other,) = parts
    if other.phase_id == entry.candidate_id:
        return "on the hull itself"
    if other.phase_id == entry.duplicate_after:
        return f"the same structure as {other.phase_id}"
    if height is None or not round(1000 * height):
        return f"same composition: {other.phase_id} is as low"
    where = "lower" if height > 0 else "higher"
    return f"same composition: {other.phase_id} is {abs(round(1000 * height))} meV/atom {where}"


def cell(crystal: Crystal) -> str:
    """'a 4.100, b 4.100, c 4.100 Å, α 90.0, β 90.0, γ 90.0°'."""
    lengths, angles = crystal.parameters
    sides = ", ".join(f"{name} {x:.3f}" for name, x in zip("abc", lengths, strict=True))
    return (
        sides
        + " Å, "
        + ", ".join(f"{name} {x:.1f}" for name, x in zip("αβγ", angles, strict=True))
        + "°"
    )


def reference_name(basis: Basis | None) -> str:
    if basis is None:
        return "no reference"
    return f"reference {basis.reference_id} version {basis.reference_version[:12]}"


def kind(report: Report) -> str:
    return {"campaign": "campaign", "screen": "screening"}[report.campaign.kind]


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def families(count: int) -> str:
    return plural(count, "family", "families")


def headline(report: Report) -> tuple[str, ...]:
    """What was searched, found and best, how certain it is and what to do next."""
    return (_searched(report), _found(report), _best(report), _certainty(report), _next(report))


def _searched(report: Report) -> str:
    funnel, what = report.funnel, report.campaign
    if not funnel["proposed"]:
        return (
            f"Nothing was proposed: the {kind(report)} {what.name!r} stopped before any proposal."
        )
    turns = f" over {plural(len(report.cycles), 'cycle')}" if what.kind == "campaign" else ""
    return (
        f"{_scope(report)}: {plural(funnel['proposed'], 'proposal')}{turns}, "
        f"{share(funnel['relaxed'], funnel['proposed'])} relaxed to convergence, "
        f"{share(report.states['judged'], funnel['proposed'])} judged. {not_made(report)}"
    ).rstrip()


def not_made(report: Report) -> str:
    """How many proposals the plans asked for that nobody made; '' where all were."""
    planned = sum(sum(cycle.quotas.values()) for cycle in report.cycles)
    missing = sum(cycle.not_made for cycle in report.cycles)
    if not missing:
        return ""
    return (
        f"{share(missing, planned)} planned proposals were not made: no operator had another new "
        "structure, or a model did not answer."
    )


def progress_sentence(report: Report) -> str:
    """How the best height and the number of families changed with the cycles."""
    steps = [cycle.progress for cycle in report.cycles]
    if not steps or not steps[-1].families_so_far:
        return ""
    best = [step.best_so_far_ev_per_atom for step in steps]
    first = next((n for n, height in enumerate(best) if height is not None), 0)
    last = report.cycles[-1].name
    sentence = f"The short list grew to {families(steps[-1].families_so_far)} by cycle {last}"
    if best[first] is None:
        return f"{sentence}."
    lowest = f"lowest height over the reference was {mev(best[first])} meV/atom"
    if mev(best[first]) == mev(best[-1]):
        return f"{sentence}; its {lowest} from cycle {report.cycles[first].name} on."
    return (
        f"{sentence}; its {lowest} after cycle {report.cycles[first].name} and {mev(best[-1])} "
        f"meV/atom after cycle {last}."
    )


def standing(entry: ReportEntry) -> str:
    """'new structure of a known compound; ordering of LiMnO2 (mp-18767)', or a dash."""
    return "; ".join(filter(None, (entry.standing, entry.qualifier))) or DASH


def comparison(other: Comparison, first: str) -> str:
    """How far another potential's energies are from the first one's, in a sentence."""
    shift = 1000 * other.mean_ev_per_atom
    direction = "higher" if shift >= 0 else "lower"
    what = "a second opinion" if other.relaxed else "the energy of the same structure"
    spread = ""
    if other.spread_ev_per_atom is not None:
        spread = f", with a standard deviation of {1000 * other.spread_ev_per_atom:.0f} meV/atom"
    return (
        f"{other.potential} gave {what} for {plural(other.count, 'judged candidate')}: on average "
        f"{abs(shift):.0f} meV/atom {direction} than {first}{spread}."
    )


def _scope(report: Report) -> str:
    settings = report.campaign.settings
    if report.campaign.kind == "screen":
        return f"Screened {settings.get('input_name') or report.campaign.name}"
    if systems := settings.get("systems"):
        return f"Searched in {', '.join(systems)}"
    return f"Searched among {', '.join(settings.get('elements') or ()) or 'all elements'}"


def _found(report: Report) -> str:
    funnel, basis = report.funnel, report.basis
    if basis is None or not funnel["relaxed"]:
        return "Found nothing to judge: no structure was relaxed to convergence."
    if not report.states["judged"]:
        return f"Judged nothing: {reference_name(basis)} has no hull for what was relaxed."
    threshold = round(1000 * basis.metastable_ev_per_atom)
    left = [one for one in report.identities.standings if one.standing != "known structure"]
    near, on_it = sum(one.metastable for one in left), sum(one.stable for one in left)
    return (
        f"Within {threshold} meV/atom of the hull of {reference_name(basis)} + this "
        f"{kind(report)}, known structures and duplicates left out: "
        f"{share(near, funnel['proposed'])}; on that hull: {share(on_it, funnel['proposed'])}. "
        f"{new_words(report.identities)}"
    ).rstrip()


def _best(report: Report) -> str:
    if not report.short_list.total:
        apart = {
            "rediscovered": "rediscovered",
            "suspect": "suspect",
            "below_reference": "below the reference at compositions it does not cover",
        }
        counts = ", ".join(f"{report.funnel[k]} {w}" for k, w in apart.items() if report.funnel[k])
        return "The short list is empty." + (f" Counted separately: {counts}." if counts else "")
    best = report.short_list.entries[0]
    return (
        f"Best: {best.formula}, {best.space_group}, {best.candidate_id}"
        f"{f' ({standing(best)})' if best.standing else ''}: "
        f"{mev(best.e_above_union_ev_per_atom)} meV/atom above the hull "
        f"(reference + this {kind(report)}), "
        f"{mev(best.e_above_reference_ev_per_atom)} meV/atom over the reference alone."
    )


def _certainty(report: Report) -> str:
    basis = report.basis
    if basis is None or not report.cost.relaxations:
        return "No energies were computed, so no claim about stability is made."
    if basis.energy_scheme == "toy":
        return "Energies are those of a made-up potential for tests; they describe no real matter."
    error = typical_error(report)
    size = f"{round(1000 * error)} meV/atom" if error is not None else "not stated by its source"
    return (
        f"Energies are predictions of the machine-learned potential {basis.potential}, not DFT; "
        f"its typical error in the height above the hull is {size}. Smaller differences between "
        "candidates, or from the threshold, are not significant."
    )


def vibrations_sentence(report: Report) -> str:
    """How far the check of vibrations can be trusted; '' without any check."""
    if not any(entry.vibrations for entry in report.short_list.entries):
        return ""
    sentences = (
        "Vibrations are from finite displacements, at the wave vectors that fit the supercell; an "
        "imaginary mode leads to a structure that is lower for this potential."
    )
    if report.basis is not None and report.basis.potential.startswith("chgnet"):
        sentences += (
            " CHGNet's energy surface is systematically too soft (10.1038/s41524-024-01500-6), so "
            "frequencies are too low: a weakly imaginary mode may be an artefact, while the "
            "absence of imaginary modes is stronger evidence."
        )
    return sentences


def typical_error(report: Report) -> float | None:
    """The potential's typical error, eV/atom, as stored with the listed verdicts."""
    listings = (report.short_list, report.rediscovered, report.below_reference, report.suspects)
    known = [e.typical_error_ev_per_atom for listing in listings for e in listing.entries]
    return next((error for error in known if error is not None), None)


def _next(report: Report) -> str:
    commands, funnel = report.commands, report.funnel
    if report.short_list.total:
        few = min(report.short_list.total, 5)
        which = f"the first {few} entries" if few > 1 else "the one entry"
        return (
            f"Next: check {which} of the short list with DFT "
            f"(`{commands['export']} --format poscar`), with the competing phases relaxed alike."
        )
    last = report.campaign.settings.get("stop_after", "judged")
    if report.states["pending"] and last != "judged":
        return (
            f"Next: this screening was to stop at {last!r}; to continue with "
            f"{plural(report.states['pending'], 'proposal')}, screen the same file into this "
            "directory again without `--stop-after`."
        )
    if report.states["pending"] or not funnel["proposed"]:
        return f"Next: continue where it stopped: `{commands['resume']}`."
    basis, waiting = report.basis, report.states["hull_pending"]
    if waiting and basis is not None and basis.reference_kind == "materials_project":
        return (
            f"Next: {plural(waiting, 'candidate')} without a hull: `hullward reference fetch "
            f"SYSTEM` for each system, then `{commands['rejudge']}`."
        )
    if funnel["below_reference"] or report.states["hull_pending"]:
        return (
            "Next: judge again with a reference that covers these compositions, without relaxing "
            f"anything again: {_covering(report)}."
        )
    if report.stops:
        worst = report.stops[0]
        lost = share(worst.count, funnel["proposed"])
        return f"Next: find out why most proposals stopped: {worst.reason}, {lost}."
    return "Next: widen the search: more cycles, other systems or another seed."


def _covering(report: Report) -> str:
    """The commands that build what the reference lacks, and judge by it."""
    rejudge = report.commands["rejudge"]
    systems = report.campaign.settings.get("systems") or ()
    if report.basis is None or report.basis.reference_kind != "embedded" or not systems:
        return f"`{rejudge}`"
    name = report.campaign.name
    return (
        f"`hullward reference build {' '.join(systems)} --name {name}`, then "
        f"`{rejudge.replace(' REF', f' built:{name}')}`"
    )


def notes(entry: ReportEntry) -> str:
    """What a reader should know of an entry, in a few phrases, its standing among them."""
    return remarks(entry, entry.novelty)


def remarks(entry: ReportEntry, novelty: str = "") -> str:
    """The same without the standing, for where it has a line of its own."""
    novelty = novelty or entry.novelty.removeprefix(standing(entry)).removeprefix("; ")
    parts = [s.replace("_", " ") for s in entry.suspicions]
    if entry.suspect_because:
        parts = [f"{', '.join(parts)}: {'; '.join(entry.suspect_because)}"]
    if entry.second_look not in (None, "not_needed"):
        parts.append(f"second relaxation: {entry.second_look}")
    if entry.covered is False and entry.coverage_note:
        parts.append(f"not covered: {entry.coverage_note}")
    if entry.second_label is not None:
        parts.append(_second(entry))
    family = entry.family.words if entry.family else None
    further = filter(None, (family, entry.disorder, entry.vibrations, entry.training))
    # what it was compared with stands once, below; on a known lattice no type is called new
    if entry.qualifier:
        novelty = re.sub("new prototype: none of [^;]*(; earlier candidate [^;]*)?", "", novelty)
    novelty = re.sub("new prototype: none of [^;]*", "new structure type", novelty)
    return "; ".join([*parts, *further, *filter(None, novelty.split("; "))])


def _second(entry: ReportEntry) -> str:
    """The verdict over the second reference, and whether the two disagree."""
    if entry.e_above_second_reference_ev_per_atom is None:
        return "second reference: no hull yet"
    words = f"second reference: {mev(entry.e_above_second_reference_ev_per_atom)} meV/atom, "
    words += (entry.second_label or DASH).replace("_", " ")
    if entry.second_rediscovered:
        words += f", known there as {entry.second_rediscovered}"
    if entry.references_disagree:
        words += (
            f"; THE REFERENCES DISAGREE by {mev(entry.second_minus_first_ev_per_atom)} meV/atom"
        )
    return words


def second_sentence(report: Report) -> str:
    """Which second reference was used, and how often the two disagree."""
    second = report.second_reference
    if second is None:
        return ""
    flagged = share(report.references_disagree.total, report.states["judged"])
    return (
        f"Second reference: {second.reference_id} version {second.reference_version[:12]}; it "
        "does not affect any verdict. Heights that differ by more than "
        f"{round(1000 * second.disagreement_ev_per_atom)} meV/atom are flagged: {flagged} judged."
    )


def flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) rows, without the empty and unset ones."""
    found: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if value:
                found.append((prefix + key, ", ".join(map(str, value))))
        elif value not in (None, ""):
            found.append((prefix + key, str(value)))
    return found


def probability_words(entry: ReportEntry) -> str:
    """'41 % (30–52 %) within 50 meV/atom, 70 % (58–80 %) within 100', or why there is none."""
    if entry.p_below_50mev is None:
        return "none: " + (entry.probability_note or "not computed")
    parts = []
    for words, p, low, high in (
        ("within 50 meV/atom", entry.p_below_50mev, entry.p_below_50mev_low,
         entry.p_below_50mev_high),
        ("within 100", entry.p_below_100mev, entry.p_below_100mev_low, entry.p_below_100mev_high),
    ):  # fmt: skip
        ends = "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f} %)"
        parts.append(f"{percentage(p)}{ends} {words}")
    return ", ".join(parts) + _second_energy(entry)


def _second_energy(entry: ReportEntry) -> str:
    """'; its energy by sevennet-l3i5 is 35 meV/atom higher than …', or nothing."""
    if entry.read_by is None or entry.read_higher_ev_per_atom is None:
        return ""
    off = 1000 * entry.read_higher_ev_per_atom
    difference = f"{abs(off):.0f} meV/atom {'higher' if off >= 0 else 'lower'}"
    return f"; its energy by {entry.read_by} is {difference} than by the potential that relaxed it"


def percentage(p: float | None) -> str:
    """'41 %', or a dash for None."""
    return DASH if p is None else f"{100 * p:.0f} %"
