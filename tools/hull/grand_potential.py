"""The hull of a system open to some elements, held at chemical potentials (grand potential).

Open to X at μ, a phase of energy E with n atoms of X counts E − μ·n, over its other atoms alone:
10.1021/cm702327g. Potentials are given relative to the reference's own phase of the element,
so that 0 is equilibrium with it and −1.5 means an atom of X is 1.5 eV lower there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.hull.convex_hull import Hull, HullDistance, Phase


class OpenHull:
    """The lower hull of grand potentials over the closed elements.

    phases: every phase of the system, the open elements included.  relative_ev_per_atom: per
    open element, its chemical potential minus the energy per atom of its lowest elemental phase
    among them; pymatgen's GrandPotentialPhaseDiagram takes the sum, `absolute_ev_per_atom`.
    Raises InputError where an open element is not in the system, or no element stays closed.
    """

    def __init__(self, phases: Sequence[Phase], relative_ev_per_atom: Mapping[str, float]) -> None:
        zeros: dict[str, float] = {}
        for phase in phases:
            if len(phase.elements) == 1:
                (element,) = phase.elements
                zeros[element] = min(zeros.get(element, np.inf), phase.energy_ev_per_atom)
        if absent := sorted(set(relative_ev_per_atom) - set(zeros)):
            raise InputError(
                f"cannot open the system to {', '.join(absent)}: the reference has no phase of it"
            )
        self.absolute_ev_per_atom = {
            el: zeros[el] + relative for el, relative in relative_ev_per_atom.items()
        }
        closed = [self._closed(p) for p in phases if not self.is_open(p.composition)]
        if not closed:
            raise InputError(
                f"all elements of {'-'.join(sorted(zeros))} are open: at least one must be closed"
            )
        self._hull = Hull(closed)
        self.elements = self._hull.elements

    def is_open(self, composition: Mapping[str, float]) -> bool:
        """Whether a composition has no closed element, and so no height."""
        return all(el in self.absolute_ev_per_atom for el, n in composition.items() if n > 0)

    def distances(
        self, compositions: Sequence[Mapping[str, float]], energies_ev_per_atom: Sequence[float]
    ) -> list[HullDistance]:
        """Signed distances in eV per atom of the closed elements, and the phases in equilibrium.

        energies_ev_per_atom: of all atoms, as they are.  Fractions of a decomposition are of
        closed atoms too.  Raises InputError for a composition of open elements alone.
        """
        if idle := [c for c in compositions if self.is_open(c)]:
            raise InputError(f"composition {dict(idle[0])} consists of open elements alone")
        heights = [
            self._potential(c, e) for c, e in zip(compositions, energies_ev_per_atom, strict=True)
        ]
        return self._hull.distances(
            self._hull.fractions([self._rest(c) for c in compositions]), np.array(heights)
        )

    def _rest(self, composition: Mapping[str, float]) -> dict[str, float]:
        return {el: n for el, n in composition.items() if el not in self.absolute_ev_per_atom}

    def _potential(self, composition: Mapping[str, float], energy_ev_per_atom: float) -> float:
        """Grand potential, eV per closed atom."""
        total = energy_ev_per_atom * sum(composition.values())
        exchanged = sum(
            composition.get(el, 0.0) * mu for el, mu in self.absolute_ev_per_atom.items()
        )
        return (total - exchanged) / sum(self._rest(composition).values())

    def _closed(self, phase: Phase) -> Phase:
        potential = self._potential(phase.composition, phase.energy_ev_per_atom)
        return Phase(
            phase_id=phase.phase_id,
            formula=phase.formula,
            composition=self._rest(phase.composition),
            energy_ev_per_atom=potential,
            source=phase.source,
            is_phase=phase.is_phase,
        )
