"""Heights above a reference's hull of energies that were computed elsewhere.

Entries and reference must be on one energy scheme. Nothing is added to an energy here, so no
correction can be applied twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.hull import (
    HullDistance,
    OpenHull,
    Phase,
    Reference,
    check_compatible,
    check_scheme,
)
from hullward.tools.records import Product
from hullward.tools.reference.sources import Entries, EntryWithoutEnergy

ROUNDING_EV_PER_ATOM = 1e-12  # a smaller height is zero
OWN_ENERGIES = (
    "this reference was computed with CHGNet, whose errors cancel only among its own energies: "
    "they enter heights of DFT energies, with 0.1 eV/atom for iron and its oxides where these are "
    "total energies"
)


def parse_open(texts: Iterable[str]) -> dict[str, float]:
    """Chemical potentials from 'O2=-1.5' or 'Li=-0.5': eV per atom, relative to the element.

    The potential is per atom whether or not the element is written as a molecule. Raises
    InputError, with the text, for anything else.
    """
    from pymatgen.core import Element

    found: dict[str, float] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([A-Z][a-z]?)(\d*)\s*=\s*(.+?)\s*", text)
        try:
            potential = float(match[3]) if match else np.nan
        except ValueError:
            potential = np.nan
        if not match or not np.isfinite(potential):
            raise InputError(f"--open {text!r}: write ELEMENT=EV_PER_ATOM, e.g. O2=-1.5")
        if not Element.is_valid_symbol(match[1]):
            raise InputError(f"--open {text!r}: {match[1]} is no element")
        if match[1] in found:
            raise InputError(f"--open {text!r}: {match[1]} is given twice")
        found[match[1]] = potential
    return found


def judge_entries(
    entries: Entries, reference: Reference, open_ev_per_atom: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The signed height and decomposition of each entry, in their order, as one document.

    open_ev_per_atom: chemical potentials of open elements relative to the reference's own
    elemental phases; heights and fractions are then per atom of the closed elements. An entry
    that cannot be judged has an `error` instead. Raises PreflightError when entries and
    reference are on different energy schemes, InputError for elements that cannot be opened.
    Formation energies count from the elements of the reference, where it holds them.
    """
    opened = dict(open_ev_per_atom or {})
    _require_comparable(entries, reference)
    _require_closed_elements(entries.phases, reference, opened)
    counted, own_zeros = _from_own_elements(entries, reference)
    systems: dict[frozenset[str], list[int]] = defaultdict(list)
    for row, phase in enumerate(counted):
        systems[phase.elements].append(row)
    results: list[dict[str, Any]] = [{} for _ in counted]
    absolute: dict[str, float] = {}
    for elements, rows in systems.items():
        phases = [counted[row] for row in rows]
        found = _system(elements, phases, reference, opened, absolute)
        for row, result in zip(rows, found, strict=True):
            results[row] = result
    for missed in entries.relaxed.without_energy if entries.relaxed is not None else ():
        results.insert(missed.row, _failed(missed))
    by_dft = entries.relaxed is None and reference.potential_sha256 is not None
    document: dict[str, Any] = {
        "caution": "; ".join(filter(None, (OWN_ENERGIES if by_dft else "", entries.caution))),
        "reference": {
            "id": reference.reference_id,
            "version": reference.version,
            "energy_scheme": reference.energy_scheme,
            "statement": reference.statement,
        },
        "entries": {
            "energy_scheme": entries.energy_scheme,
            "statement": entries.statement,
            "elements_of_the_reference_as_zero": own_zeros,
        },
    }
    if opened:
        document["open"] = {
            el: {"relative_ev_per_atom": opened[el], "absolute_ev_per_atom": absolute[el]}
            for el in sorted(opened)
        }
        document["per_atom_of"] = "the closed elements"
    return document | {"results": results}


def _from_own_elements(entries: Entries, reference: Reference) -> tuple[Sequence[Phase], list[str]]:
    """Entries whose formation energies count from the reference's elements, and these elements.

    Two sources of the same scheme give elements energies that differ by some meV/atom, which would
    be added to every height.
    """
    wanted = {el for phase in entries.phases for el in phase.elements} & entries.zeros.keys()
    own = {
        el: min(phase.energy_ev_per_atom for phase in reference.phases(el)) - entries.zeros[el]
        for el in sorted(wanted - set(reference.missing_elements(frozenset(wanted))))
    }
    if not own:
        return entries.phases, []
    return [_shifted(phase, own) for phase in entries.phases], list(own)


def _shifted(phase: Phase, by_ev_per_atom: Mapping[str, float]) -> Phase:
    amounts = phase.composition
    shift = sum(by_ev_per_atom.get(el, 0.0) * n for el, n in amounts.items())
    energy = phase.energy_ev_per_atom + shift / sum(amounts.values())
    return phase.model_copy(update={"energy_ev_per_atom": energy})


def _require_comparable(entries: Entries, reference: Reference) -> None:
    """Raise PreflightError where energies of the entries do not compare with the reference's."""
    if entries.relaxed is not None:
        check_compatible(reference, entries.relaxed.card, entries.relaxed.protocol)
    otherwise = (
        f"compute the entries on {reference.energy_scheme!r}; a second correction does not convert "
        "one into the other"
    )
    check_scheme(reference, entries.energy_scheme, "the entries are on", otherwise)


def _require_closed_elements(
    phases: Sequence[Phase], reference: Reference, opened: Mapping[str, float]
) -> None:
    """Raise InputError where the reference lacks an open element, or no element stays closed."""
    if absent := reference.missing_elements(frozenset(opened)):
        raise InputError(
            f"cannot open the system to {', '.join(absent)}: reference "
            f"{reference.reference_id!r} has no phase of it"
        )
    if phases and all(p.elements <= opened.keys() for p in phases):
        raise InputError(
            f"every entry consists of open elements alone ({', '.join(sorted(opened))}); at least "
            "one element must stay closed"
        )


def _system(
    elements: frozenset[str],
    phases: Sequence[Phase],
    reference: Reference,
    opened: Mapping[str, float],
    absolute: dict[str, float],
) -> list[dict[str, Any]]:
    """The results of entries of the same elements; `absolute` collects potentials."""
    if missing := reference.missing_elements(elements):
        error = f"reference {reference.reference_id!r} has no phase of {', '.join(missing)}"
        return [_result(p, reference, error=error) for p in phases]
    if not opened:
        hull = reference.hull("-".join(sorted(elements)))
        found = hull.distances(
            hull.fractions([p.composition for p in phases]),
            np.array([p.energy_ev_per_atom for p in phases]),
        )
        return [_result(p, reference, d) for p, d in zip(phases, found, strict=True)]
    if elements <= opened.keys():
        return [_result(p, reference, error="consists of open elements alone") for p in phases]
    known = reference.phases("-".join(sorted(elements | opened.keys())))
    grand = OpenHull(known, opened)
    absolute |= grand.absolute_ev_per_atom
    whole = {p.phase_id: p for p in known}
    found = grand.distances([p.composition for p in phases], [p.energy_ev_per_atom for p in phases])
    return [
        _result(p, reference, d, at_equilibrium=_total(d.decomposition, whole, opened))
        for p, d in zip(phases, found, strict=True)
    ]


def _result(
    phase: Phase,
    reference: Reference,
    distance: HullDistance | None = None,
    *,
    error: str | None = None,
    at_equilibrium: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    coverage = reference.coverage(phase.composition)
    if at_equilibrium is not None and coverage.covered:
        # With an open element the hull is made of other compositions, which must be covered too.
        coverage = reference.coverage(at_equilibrium)
    height = distance.e_above_hull_ev_per_atom if distance else None
    if height is not None and abs(height) < ROUNDING_EV_PER_ATOM:
        height = 0.0
    products = distance.decomposition if distance else ()
    return {
        "id": phase.phase_id,
        "formula": phase.formula,
        "chemsys": "-".join(sorted(phase.elements)),
        "energy_ev_per_atom": phase.energy_ev_per_atom,
        "e_above_hull_ev_per_atom": height,
        "decomposition": [product.model_dump() for product in products],
        "covered": coverage.covered,
        "coverage_note": coverage.note,
        "error": error,
    }


def _failed(missed: EntryWithoutEnergy) -> dict[str, Any]:
    """The result of a relaxation that gave no energy to judge."""
    elements = re.findall("[A-Z][a-z]?", missed.formula)
    return {
        "id": missed.name,
        "formula": missed.formula,
        "chemsys": "-".join(sorted(elements)),
        "energy_ev_per_atom": None,
        "e_above_hull_ev_per_atom": None,
        "decomposition": [],
        "covered": False,
        "coverage_note": "",
        "error": missed.reason,
    }


def _total(
    products: Sequence[Product], whole: Mapping[str, Phase], opened: Mapping[str, float]
) -> dict[str, float]:
    """The total composition, open elements included, of the phases in equilibrium."""
    total: dict[str, float] = defaultdict(float)
    for product in products:
        amounts = whole[product.phase_id].composition
        closed = sum(n for el, n in amounts.items() if el not in opened)
        for el, n in amounts.items():
            total[el] += product.fraction * n / closed
    return dict(total)
