"""Features of a calibrator: from a relaxed structure, its energy and the hull below it.

Only the relaxed state counts, never the way there: how far a structure fell
depends on where it started, and the starts of a campaign are not those a calibrator was fitted on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cache

import numpy as np

from hullward.tools.hull import HullDistance
from hullward.tools.records import Relaxation

GROUPS = {
    "oxygen": ("O",),
    "fluorine": ("F",),
    "halogens": ("Cl", "Br", "I"),
    "chalcogens": ("S", "Se", "Te"),
    "pnictogens": ("N", "P", "As", "Sb"),
    "hydrogen": ("H",),
    "carbon_group": ("B", "C", "Si"),
    "late_metals": ("Tc", "Re", "Fe", "Ru", "Os", "Co", "Rh", "Ir", "Ni"),
}
STATE = (
    "e_above_hull_ev_per_atom",
    "below_hull_ev_per_atom",
    "beyond_100mev_ev_per_atom",
    "formation_energy_ev_per_atom",
    "n_elements",
    "phase_known_here",  # the hull holds a phase of this very composition
    "triclinic",  # space groups 1 and 2 at 0.1 Å
    "axial_or_cubic",  # from 75 on: tetragonal, hexagonal, cubic
    "magnetic",  # a moment of more than half a Bohr magneton
    "electronegativity",
    "electronegativity_spread",
    "period",
    "transition_metals",
    "rare_earths",
    "s_block_metals",
    *GROUPS,
)
LOWEST_EV, HIGHEST_EV, BEND_EV = -0.3, 1.0, 0.1
MAGNETIC_MU_B = 0.5


def state_features(
    relaxation: Relaxation,
    amounts: Mapping[str, float],
    distance: HullDistance,
    formula: str,
    hull_energy_of_elements_ev_per_atom: float,
) -> dict[str, float]:
    """The numbers of STATE for one relaxed candidate.

    amounts: atoms of each element.  distance: over the reference.  formula: reduced.
    hull_energy_of_elements_ev_per_atom: of the bare elements in these proportions.
    """
    assert relaxation.energy_ev_per_atom is not None  # a converged relaxation has one
    height = min(max(distance.e_above_hull_ev_per_atom, LOWEST_EV), HIGHEST_EV)
    formation = relaxation.energy_ev_per_atom - hull_energy_of_elements_ev_per_atom
    parts = distance.decomposition
    moments = relaxation.magmoms_mu_b or (0.0,)
    group = relaxation.space_group_loose or 1
    return {
        "e_above_hull_ev_per_atom": height,
        "below_hull_ev_per_atom": min(height, 0.0),
        "beyond_100mev_ev_per_atom": max(height - BEND_EV, 0.0),
        "formation_energy_ev_per_atom": min(max(formation, -4.0), 1.0),
        "n_elements": float(min(len(amounts), 6)),
        "phase_known_here": float(len(parts) == 1 and parts[0].formula == formula),
        "triclinic": float(group <= 2),
        "axial_or_cubic": float(group >= 75),
        "magnetic": float(max(map(abs, moments)) > MAGNETIC_MU_B),
        **_chemistry(amounts),
    }


def _chemistry(amounts: Mapping[str, float]) -> dict[str, float]:
    """Means over the atoms."""
    total = sum(amounts.values())
    shares = {el: n / total for el, n in amounts.items()}
    rows = np.array([_element(el) for el in shares])
    weights = np.array(list(shares.values()))
    chi, period, transition, rare_earth, s_block = weights @ rows
    spread = weights @ (rows[:, 0] - chi) ** 2
    groups = {name: sum(shares.get(el, 0.0) for el in members) for name, members in GROUPS.items()}
    return {
        "electronegativity": float(chi),
        "electronegativity_spread": math.sqrt(max(float(spread), 0.0)),
        "period": float(period),
        "transition_metals": float(transition),
        "rare_earths": float(rare_earth),
        "s_block_metals": float(s_block),
        **groups,
    }


@cache
def _element(symbol: str) -> tuple[float, float, float, float, float]:
    """Electronegativity, period, and whether transition metal, rare earth, s-block metal."""
    from pymatgen.core import Element

    element = Element(symbol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pymatgen warns where Pauling gave none
        chi = float(element.X)
    return (
        2.0 if math.isnan(chi) else chi,
        float(element.row),
        float(element.is_transition_metal),
        float(element.is_rare_earth),
        float(element.is_alkali or element.is_alkaline),
    )


def share_roots(amounts: Mapping[str, float], elements: tuple[str, ...]) -> np.ndarray:
    """(len(elements),) square roots of atomic fractions, so that traces keep some weight.

    Raises KeyError for an element that is not among them.
    """
    place = {el: k for k, el in enumerate(elements)}
    total = sum(amounts.values())
    roots = np.zeros(len(elements))
    for el, n in amounts.items():
        roots[place[el]] = math.sqrt(n / total)
    return roots
