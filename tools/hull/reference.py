"""References: sets of known phases on one energy scheme, and what each of them covers.

A missing phase can only move a hull up, so an incomplete reference makes everything look stable.
Each reference therefore has a rule, fixed in code, for the compositions it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from typing import Protocol as Interface

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.formulas import ELEMENTS, element_hint
from hullward.models.potential import PotentialCard
from hullward.tools.hull.convex_hull import Hull, Phase
from hullward.tools.records import Protocol

MP2020 = "mp2020-corrected"  # CHGNet 0.3.0's scale, and that of corrected GGA/GGA+U MP entries

Kind = Literal["embedded", "built", "materials_project", "file"]


class Coverage(NamedTuple):
    """Whether a low height at a composition means stability, and why."""

    covered: bool
    note: str


class PhaseSource(Interface):
    """The phases of a reference, and the rule for the compositions they cover."""

    @property
    def elements(self) -> frozenset[str]:
        """Elements with a phase of their own."""

    def within(self, elements: frozenset[str]) -> Sequence[Phase]:
        """Every phase made of these elements alone."""

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """The rule, called only where all elements are present; phases: those of the system."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Known phases on one energy scheme."""

    reference_id: str
    version: str  # hash of the content
    kind: Kind
    energy_scheme: str
    statement: str  # what it is and what it covers, in words
    source: PhaseSource = field(repr=False)
    potential_sha256: str | None = None  # set where a potential computed it
    protocol: Protocol | None = None  # set where a potential computed it
    # why a system is not here ('' where it is); None: it is where all its elements are
    absent: Callable[[frozenset[str]], str] | None = field(default=None, repr=False, compare=False)
    _phases: dict[frozenset[str], tuple[Phase, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _hulls: dict[frozenset[str], Hull] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def elements(self) -> frozenset[str]:
        return self.source.elements

    def phases(self, chemsys: str) -> tuple[Phase, ...]:
        """All phases of the system 'A-B-…' and its subsystems, tie-line points included."""
        key = split_chemsys(chemsys)
        if key not in self._phases:
            self._phases[key] = tuple(self.source.within(key))
        return self._phases[key]

    def hull(self, chemsys: str) -> Hull:
        """The system's hull, built once; raises InputError when an element has no phase."""
        key = split_chemsys(chemsys)
        if key not in self._hulls:
            if why := self.lacking(key):
                raise InputError(f"reference {self.reference_id!r}: {why}; {self._remedy(chemsys)}")
            self._hulls[key] = Hull(self.phases(chemsys))
        return self._hulls[key]

    def missing_elements(self, elements: frozenset[str]) -> list[str]:
        return sorted(elements - self.elements)

    def lacking(self, elements: frozenset[str]) -> str:
        """Why there is no hull of these elements; '' where there is one."""
        if self.absent is not None:
            return self.absent(elements)
        missing = self.missing_elements(elements)
        return f"no phase of {', '.join(missing)}" if missing else ""

    def _remedy(self, chemsys: str) -> str:
        if self.absent is not None:
            return f"`hullward reference fetch {chemsys}`"
        return f"choose a reference that covers {chemsys}"

    def coverage(self, composition: Mapping[str, float]) -> Coverage:
        """Whether the reference covers a composition, so that its hull there is low enough."""
        elements = frozenset(el for el, amount in composition.items() if amount > 0)
        if why := self.lacking(elements):
            return Coverage(False, why)
        return self.source.coverage(composition, self.phases("-".join(sorted(elements))))

    def library_entries(self, chemsys: str) -> list[tuple[str, Crystal]]:
        """(phase id, structure) of all phases with a structure, to match candidates against."""
        return [
            (p.phase_id, p.crystal)
            for p in self.phases(chemsys)
            if p.is_phase and p.crystal is not None
        ]


def split_chemsys(chemsys: str) -> frozenset[str]:
    """The elements of 'Li-Mn-O'; raises InputError for any other text."""
    parts = chemsys.split("-")
    if unknown := [part for part in parts if part not in ELEMENTS]:
        lone = chemsys if len(unknown) > 1 or not unknown[0] else unknown[0]
        what = ", ".join(map(repr, unknown)) + (" is" if len(unknown) == 1 else " are")
        hint = element_hint(lone) or "; write it as Li-Mn-O"
        raise InputError(f"{chemsys!r} is no chemical system: {what} no element{hint}")
    return frozenset(parts)


def check_scheme(reference: Reference, scheme: str, owner: str, otherwise: str) -> None:
    """Raise PreflightError where a reference is not on an energy scheme.

    owner: the energies on the scheme, with a verb.  otherwise: what to do but change the reference.
    """
    if reference.energy_scheme != scheme:
        raise PreflightError(
            f"energies do not compare: reference {reference.reference_id!r} is on "
            f"{reference.energy_scheme!r}, {owner} {scheme!r}. Choose a reference on {scheme!r}"
            + (" ('embedded' is)" if scheme == MP2020 else "")
            + f", or {otherwise}"
        )


def check_compatible(reference: Reference, card: PotentialCard, protocol: Protocol) -> None:
    """Raise PreflightError where energies of a potential do not compare with a reference.

    That is for another energy scheme, a reference computed with another potential, or one relaxed
    more loosely than the candidates will be: its phases would be too high.
    """
    name = reference.reference_id
    otherwise = f"a potential that predicts {reference.energy_scheme!r}"
    check_scheme(reference, card.energy_scheme, f"potential {card.name} predicts", otherwise)
    if reference.potential_sha256 not in (None, card.weights_sha256):
        raise PreflightError(
            f"reference {name!r} was relaxed with weights {str(reference.potential_sha256)[:12]}, "
            f"the campaign's {card.name} has {card.weights_sha256[:12]}. Use the same checkpoint, "
            f"or rebuild the reference with this one"
        )
    loose = reference.protocol
    if loose is not None and loose.fmax_ev_per_a > protocol.fmax_ev_per_a * (1 + 1e-9):
        raise PreflightError(
            f"reference {name!r} was relaxed to fmax {loose.fmax_ev_per_a} eV/Å, candidates to "
            f"{protocol.fmax_ev_per_a}: its phases would be too high. Relax candidates to "
            f"{loose.fmax_ev_per_a} (protocol.fmax_ev_per_a), or rebuild the reference tighter"
        )


def height_over(reference: Reference) -> Callable[[Crystal, float], float]:
    """Heights above a reference's hull, eV/atom; infinite where it has none."""

    def height(crystal: Crystal, energy_ev_per_atom: float) -> float:
        amounts = crystal.amounts
        if reference.lacking(frozenset(amounts)):
            return float("inf")
        return reference.hull(crystal.chemsys).height(amounts, energy_ev_per_atom)

    return height


HIGHEST_EV_PER_ATOM = 0.05  # above the reference's own hull; higher phases can hardly be made


def low_structures(reference: Reference, max_atoms: int) -> list[tuple[str, Crystal]]:
    """(phase id, structure) of all phases near the reference's own hull, in order of their ids.

    Elements, phases without a structure (as in tables) and cells larger than `max_atoms` are left
    out. Of the Materials Project only fetched phases are known.
    """
    found = {}
    for phase in reference.source.within(reference.elements):
        crystal = phase.crystal
        if crystal is None or not phase.is_phase or crystal.n_atoms > max_atoms:
            continue
        if len(phase.elements) < 2 or reference.lacking(phase.elements):
            continue
        hull = reference.hull(crystal.chemsys)
        if hull.height(phase.composition, phase.energy_ev_per_atom) <= HIGHEST_EV_PER_ATOM:
            found[phase.phase_id] = crystal
    return sorted(found.items())
