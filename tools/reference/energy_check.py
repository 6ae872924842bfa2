"""Check that the potential's energies still match those that the references were made with.

*Canaries* are phases of the embedded reference whose energy is stored: the same weights and
libraries reproduce it, changed ones do not. *Element offsets* are the differences between the
potential's elements and the Materials Project's: they cancel within a reference of the potential's
own phases, but not over the Materials Project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hullward.models.errors import PreflightError
from hullward.models.potential import Evaluation, Potential, PotentialCard, load_potential
from hullward.tools.hull import Phase, Reference
from hullward.tools.records import Product, Record
from hullward.tools.reference.names import read_embedded_once
from hullward.tools.reference.sources import mp2020_elements

# Salts, oxides, a sulphide, a nitride, a metal: each tests other parts of the network.
CANARIES = ("NaCl", "MgO", "Fe2O3", "CaF2", "ZnS", "AlN", "Cu")
CANARY_TOLERANCE_EV_PER_ATOM = 1e-3  # other processors and thread counts move energies by 1e-5
NOTABLE_OFFSET_EV_PER_ATOM = 0.05


class Canary(Record):
    """One canary: its stored energy and its energy now."""

    formula: str
    phase_id: str
    stored_ev_per_atom: float
    found_ev_per_atom: float | None  # None: it could not be evaluated
    trouble: str = ""

    @property
    def alive(self) -> bool:
        found = self.found_ev_per_atom
        return (
            found is not None
            and abs(found - self.stored_ev_per_atom) < CANARY_TOLERANCE_EV_PER_ATOM
        )


def canary_phases() -> list[Phase]:
    """The canary phases of the embedded reference, each the lowest of its formula."""
    from pymatgen.core import Composition

    found = []
    for formula in CANARIES:
        phases = read_embedded_once().phases(Composition(formula).chemical_system)
        same = [p for p in phases if p.formula == formula]
        found.append(min(same, key=lambda p: p.energy_ev_per_atom))
    return found


def check_canaries(potential: Potential) -> list[Canary]:
    """Compute the energy of every canary; takes a tenth of a second."""
    phases = canary_phases()
    answers = potential.evaluate([p.crystal for p in phases if p.crystal is not None])
    return [
        Canary(
            formula=phase.formula,
            phase_id=phase.phase_id,
            stored_ev_per_atom=phase.energy_ev_per_atom,
            found_ev_per_atom=answer.energy_ev_per_atom if isinstance(answer, Evaluation) else None,
            trouble="" if isinstance(answer, Evaluation) else f"{type(answer).__name__}: {answer}",
        )
        for phase, answer in zip(phases, answers, strict=True)
    ]


def has_canaries(card: PotentialCard) -> bool:
    """Whether the embedded reference was computed with these very weights."""
    return read_embedded_once().potential_sha256 == card.weights_sha256


def require_canaries(potential: Potential) -> None:
    """Raise PreflightError where a canary's energy has changed: new energies would not compare."""
    dead = [canary for canary in check_canaries(potential) if not canary.alive]
    if dead:
        found = "; ".join(
            f"{r.formula} {r.found_ev_per_atom:.4f} instead of {r.stored_ev_per_atom:.4f} eV/atom"
            if r.found_ev_per_atom is not None
            else f"{r.formula} fails ({r.trouble})"
            for r in dead
        )
        raise PreflightError(
            f"{potential.card.name} does not reproduce the stored energies of the references: "
            f"{found}. A library or the checkpoint has changed; `hullward doctor` names it, and "
            "`pip install --force-reinstall hullward` restores the tested versions"
        )


def require_known_energies(card: PotentialCard) -> None:
    """`require_canaries`, where there are canaries for these weights."""
    if has_canaries(card):
        require_canaries(load_potential(card.name))


@cache
def element_offsets() -> dict[str, float]:
    """CHGNet's energy of each element in the embedded reference minus MP2020's, eV/atom."""
    embedded, theirs = read_embedded_once(), mp2020_elements()
    return {
        el: min(p.energy_ev_per_atom for p in embedded.phases(el)) - theirs[el]
        for el in sorted(embedded.elements & theirs.keys())
    }


def offset_note(decomposition: Sequence[Product], reference: Reference) -> str:
    """A warning where a decomposition holds an element whose energy the potential gets wrong.

    '' where no element is off by more than 50 meV/atom, or where the reference was computed with
    the potential itself, so that the error cancels.
    """
    if reference.potential_sha256 is not None:
        return ""
    offsets = element_offsets()
    elements = [part.formula.rstrip("0123456789") for part in decomposition]  # O2, S8, …
    far = [
        f"{el} ({1000 * offsets[el]:+.0f} meV/atom)"
        for el in elements
        if abs(offsets.get(el, 0.0)) > NOTABLE_OFFSET_EV_PER_ATOM
    ]
    return f"decomposes into an element that CHGNet gets wrong: {', '.join(far)}" if far else ""
