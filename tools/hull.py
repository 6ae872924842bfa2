"""The convex hull of known phases, with its facets kept: judging many compositions is one product.

The hull energy at a composition is the largest value there of any plane through a lower facet
(10.1021/cm702327g for the construction; Barber et al., 10.1145/235815.235821, for qhull).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.records import Product, Record

# A compound counts only when it is this far below its elements (pymatgen's number), eV/atom.
FORMATION_TOLERANCE = 1e-11
# A facet plane may pass this far above a phase of the hull through rounding, eV/atom.
SUPPORT_TOLERANCE = 1e-9
# Smaller shares of a decomposition are rounding (pymatgen's number).
SHARE_TOLERANCE = 1e-8
# A tie-line point is split into real phases when these explain its energy this well, eV/atom.
TIE_LINE_TOLERANCE = 0.02


class Phase(Record):
    """One known phase, or a point known to lie on the hull (`is_phase` false)."""

    phase_id: str
    formula: str  # reduced
    composition: dict[str, float]  # element: amount, in any multiple
    energy_ev_per_atom: float  # on the reference's energy scheme
    crystal: Crystal | None = None
    source: str  # where it is from, e.g. 'AB_cF8_225_a_b' or a file and row
    is_phase: bool = True

    @cached_property
    def elements(self) -> frozenset[str]:
        return frozenset(el for el, amount in self.composition.items() if amount > 0)


class HullDistance(NamedTuple):
    """Where an energy lies relative to the hull."""

    e_above_hull_ev_per_atom: float  # signed: negative is below
    decomposition: tuple[Product, ...]  # largest share first


class Hull:
    """The lower convex hull of phases of one chemical system.

    Every element of the phases needs a phase of its own: raises InputError where one is missing.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.elements: tuple[str, ...] = tuple(sorted({el for p in phases for el in p.elements}))
        lowest = _lowest_per_composition(phases, self.elements)
        missing = [el for el in self.elements if _vertex(el, self.elements) not in lowest]
        if missing or not phases:
            raise InputError(
                f"no hull for {'-'.join(self.elements) or 'an empty system'}: no phase of "
                f"{', '.join(missing) or 'any element'}; add the elemental phases to the reference"
            )
        terminals = [lowest[_vertex(el, self.elements)] for el in self.elements]
        self.element_energies = np.array([p.energy_ev_per_atom for p in terminals])  # (n,)
        self._build(terminals, [p for p in lowest.values() if len(p.elements) > 1])

    def _build(self, terminals: list[Phase], compounds: list[Phase]) -> None:
        candidates = terminals + compounds
        fractions = np.array([self._fractions(p.composition) for p in candidates])  # (m, n)
        energies = np.array([p.energy_ev_per_atom for p in candidates])
        formation = energies - fractions @ self.element_energies
        formation[: len(terminals)] = 0.0
        keep = formation < -FORMATION_TOLERANCE
        keep[: len(terminals)] = True
        self._phases = [p for p, kept in zip(candidates, keep, strict=True) if kept]
        self._fraction_rows, self._formation = fractions[keep], formation[keep]
        self._facets = _lower_facets(self._fraction_rows, self._formation)  # (f, n) phase numbers
        # Chemical potentials of each facet, relative to the elements: plane at x is x @ potentials.
        corners = self._fraction_rows[self._facets]  # (f, n, n)
        self._potentials = np.linalg.solve(corners, self._formation[self._facets][..., None])[
            ..., 0
        ]
        # A sliver's plane is badly determined and can cut into the hull: it is no supporting plane.
        excess = (self._fraction_rows @ self._potentials.T - self._formation[:, None]).max(axis=0)
        sound = excess <= SUPPORT_TOLERANCE
        self._facets, self._potentials = self._facets[sound], self._potentials[sound]

    @cached_property
    def stable_phases(self) -> tuple[Phase, ...]:
        """The corners of the hull, tie-line points included."""
        return tuple(self._phases[i] for i in np.unique(self._facets))

    def energies(self, fractions: np.ndarray) -> np.ndarray:
        """Hull energy, eV/atom, (m,), of compositions (m, n) in the order of `elements`."""
        formation = (fractions @ self._potentials.T).max(axis=1)
        return np.asarray(formation + fractions @ self.element_energies)

    def distance(self, composition: Mapping[str, float], energy_ev_per_atom: float) -> HullDistance:
        """Signed distance of an energy from the hull, and what the hull holds at its composition.

        Raises InputError for an element outside the hull's system.
        """
        height = self.height(composition, energy_ev_per_atom)
        return HullDistance(height, self.decompose(composition))

    def height(self, composition: Mapping[str, float], energy_ev_per_atom: float) -> float:
        """Signed distance of an energy from the hull alone, eV/atom; raises as `distance`."""
        return float(energy_ev_per_atom - self.energies(self._fractions(composition)[None])[0])

    def decompose(self, composition: Mapping[str, float]) -> tuple[Product, ...]:
        """The phases of lowest energy at a composition, by share of atoms.

        A tie-line point is a height without a phase: it is split further into phases where these
        explain its height, and called '(hull point) X' where they do not.
        """
        shares: dict[str, tuple[Phase, float]] = {}
        for phase, share in self._split(self._fractions(composition)):
            for part, inner in [(phase, 1.0)] if phase.is_phase else self._real_parts(phase):
                shares[part.phase_id] = (
                    part,
                    shares.get(part.phase_id, (part, 0.0))[1] + share * inner,
                )
        ranked = sorted(shares.values(), key=lambda pair: (-pair[1], pair[0].phase_id))
        return tuple(
            Product(phase_id=p.phase_id, formula=_honest_name(p), fraction=min(1.0, share))
            for p, share in ranked
        )

    def _split(self, fractions: np.ndarray) -> list[tuple[Phase, float]]:
        """Corners of the facet that holds a composition, with their shares."""
        values = self._potentials @ fractions
        best: list[tuple[Phase, float]] = []
        least = -np.inf
        for number in np.argsort(-values, kind="stable"):  # the first nearly always holds it
            corners = self._facets[number]
            shares = np.linalg.solve(self._fraction_rows[corners].T, fractions)
            if shares.min() > least:
                least = float(shares.min())
                best = [
                    (self._phases[c], float(s))
                    for c, s in zip(corners, shares, strict=True)
                    if s > SHARE_TOLERANCE
                ]
            if least >= -SHARE_TOLERANCE:
                break
        return best

    @cached_property
    def _phases_only(self) -> Hull:
        return Hull([p for p in self._phases if p.is_phase])

    def _real_parts(self, point: Phase) -> list[tuple[Phase, float]]:
        fractions = self._fractions(point.composition)
        gap = self._phases_only.energies(fractions[None])[0] - point.energy_ev_per_atom
        if gap > TIE_LINE_TOLERANCE:
            return [(point, 1.0)]
        return self._phases_only._split(fractions)

    def _fractions(self, composition: Mapping[str, float]) -> np.ndarray:
        """(n,) atomic fractions in the order of `elements`."""
        outside = {el for el, amount in composition.items() if amount} - set(self.elements)
        total = sum(composition.values())
        if outside or total <= 0:
            raise InputError(
                f"composition {dict(composition)} is not in the system {'-'.join(self.elements)}"
            )
        return np.array([composition.get(el, 0.0) for el in self.elements]) / total


def _lowest_per_composition(
    phases: Sequence[Phase], elements: tuple[str, ...]
) -> dict[tuple[float, ...], Phase]:
    """Lowest energy a composition; real phases before tie-line points, then by id."""
    lowest: dict[tuple[float, ...], Phase] = {}
    for phase in sorted(phases, key=lambda p: (p.energy_ev_per_atom, not p.is_phase, p.phase_id)):
        total = sum(phase.composition.values())
        key = tuple(round(phase.composition.get(el, 0.0) / total, 8) for el in elements)
        lowest.setdefault(key, phase)
    return lowest


def _vertex(element: str, elements: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(1.0 if el == element else 0.0 for el in elements)


def _lower_facets(fractions: np.ndarray, formation: np.ndarray) -> np.ndarray:
    """(f, n) numbers of the points at the corners of every lower facet.

    fractions: (m, n), the n elements first.  formation: (m,) eV/atom, none above zero.
    """
    from scipy.spatial import ConvexHull

    n = fractions.shape[1]
    if len(fractions) == n:
        return np.arange(n)[None]
    # A point high above the middle closes the body, so every facet without it is a lower one.
    points = np.column_stack([fractions[:, 1:], formation])
    lid = np.append(np.full(n - 1, 1.0 / n), 1.0)
    simplices = ConvexHull(np.vstack([points, lid]), qhull_options="Qt").simplices
    simplices = simplices[(simplices < len(points)).all(axis=1)]
    # Facets of no extent in composition stand upright: sides of the body, not its floor.
    extent = np.abs(np.linalg.det(fractions[simplices]))
    return np.asarray(simplices[extent > 1e-14])


def _honest_name(phase: Phase) -> str:
    return phase.formula if phase.is_phase else f"(hull point) {phase.formula}"
