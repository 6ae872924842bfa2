"""A fast, smooth pair potential for tests and demonstrations, without real chemistry.

Morse wells (DOI 10.1103/PhysRev.34.57) at the sum of covalent radii, deeper between elements of
different electronegativity, brought smoothly to zero at a short cut-off so that crystals keep
roughly the volume they came with. Forces and stress are analytic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential.neighbours import TooManyNeighboursError, neighbour_pairs
from hullward.models.potential.protocol import (
    Evaluation,
    IsolatedAtomError,
    SequentialPotential,
)

_CUTOFF_A = 5.0
_FADE_FROM_A = 3.0  # the well is untouched below
_STEEPNESS_PER_A = 1.6
_DEPTH_EV = 0.35
_DEPTH_PER_ELECTRONEGATIVITY_EV = 0.45
_ANION_FROM, _ANION_GAP_A = 2.4, 1.5  # anions repel, or oxides would collapse


class ToyPotential(SequentialPotential):
    """Invented energies, in well under a millisecond."""

    def _evaluate_one(self, crystal: Crystal) -> Evaluation | Exception:
        coords = np.array(crystal.frac_coords) @ np.array(crystal.lattice)
        try:
            lattice, centre, other, image, distance = neighbour_pairs(
                np.array(crystal.lattice), coords, _CUTOFF_A
            )
        except TooManyNeighboursError as error:
            return error
        real = (centre != other) | (np.abs(image).sum(axis=1) > 0)  # not the atom itself
        centre, other, image, distance = centre[real], other[real], image[real], distance[real]
        if len(np.unique(centre)) < crystal.n_atoms:
            return IsolatedAtomError(f"an atom has no neighbour within {_CUTOFF_A:g} Å")
        rest_length, depth = _pair_parameters(crystal.species)
        energy, slope = _morse(distance, rest_length[centre, other], depth[centre, other])
        with np.errstate(divide="ignore", invalid="ignore"):
            vectors = coords[other] + image @ lattice - coords[centre]  # towards the neighbour
            pulls = (slope / distance)[:, None] * vectors
        forces = np.zeros_like(coords)
        np.add.at(forces, centre, pulls)
        # every pair is listed from both ends, hence the halves
        return Evaluation(
            energy_ev_per_atom=float(energy.sum() / 2 / crystal.n_atoms),
            forces_ev_per_a=forces,
            stress_ev_per_a3=np.einsum("ei,ej->ij", pulls, vectors) / 2 / crystal.volume_a3,
            magmoms_mu_b=None,
        )


def _pair_parameters(species: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) rest lengths in Å and well depths in eV."""
    from pymatgen.core import Element

    elements = [Element(symbol) for symbol in species]
    # atomic radii are unknown for noble gases; their electronegativity too (nan)
    radius = np.array([float(e.atomic_radius or 1.5) for e in elements])
    chi = np.nan_to_num(np.array([_pauling(e) for e in elements]), nan=2.0)
    apart = np.abs(chi[:, None] - chi[None, :])
    anions = (chi[:, None] > _ANION_FROM) & (chi[None, :] > _ANION_FROM)
    rest_length = radius[:, None] + radius[None, :] + np.where(anions, _ANION_GAP_A, 0.0)
    return rest_length, _DEPTH_EV + _DEPTH_PER_ELECTRONEGATIVITY_EV * apart


def _pauling(element: object) -> float:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pymatgen warns where there is no value
        return float(element.X)  # type: ignore[attr-defined]


def _morse(
    distance: np.ndarray, rest_length: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energy (eV) and slope (eV/Å) of faded Morse wells at distances in Å."""
    decay = np.exp(-_STEEPNESS_PER_A * (distance - rest_length))
    well = depth * (decay**2 - 2 * decay)
    well_slope = 2 * _STEEPNESS_PER_A * depth * (decay - decay**2)
    x = np.clip((distance - _FADE_FROM_A) / (_CUTOFF_A - _FADE_FROM_A), 0.0, 1.0)
    fade = 1 - x**3 * (10 - 15 * x + 6 * x**2)  # twice differentiable at both ends
    fade_slope = -30 * x**2 * (1 - x) ** 2 / (_CUTOFF_A - _FADE_FROM_A)
    return well * fade, well_slope * fade + well * fade_slope
