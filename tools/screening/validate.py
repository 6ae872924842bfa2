"""Hard checks that reject a crystal before any force call; those of its geometry also after it.

They run in a fixed order, and the first that fails names the flaw:

1. number of atoms (cheap: it bounds the cost of the checks below)
2. elements: real, known to the potential, within the campaign's rules, their number
3. cell: not flat, volume per atom inside a window, atoms not packed denser than solids are
4. distances: no pair closer than a fraction of its radii, no isolated atom
5. charge balance, only where the campaign asks

The limits were set on 27,618 phases of the Materials Project; `tests/benchmarks/RESULTS.md` gives
the share that passes and the share of spoilt copies that is caught.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
from pydantic import Field

from hullward.models.crystal import Crystal
from hullward.tools.crystal import (
    charge_balance,
    compact_cell,
    nearest_pairs,
    plane_spacings_a,
    space_group,
)
from hullward.tools.records import Candidate, Flaw, Reason, Record

# The heaviest s metals sit in most compounds as cations, well inside their atomic radius.
SHRUNKEN_CATIONS = {"K": 0.85, "Rb": 0.85, "Cs": 0.85, "Ba": 0.9}
SPACE_GROUP_SYMPREC_A = 0.1


class Limits(Record):
    """Limits of the hard checks. None means no limit."""

    min_atoms: int = 1
    max_atoms: int = 200
    min_elements: int | None = None
    max_elements: int | None = None
    required_elements: frozenset[str] = frozenset()
    allowed_elements: frozenset[str] | None = None
    allowed_systems: tuple[frozenset[str], ...] = ()  # all elements within one of them
    whole_systems: bool = False  # and all elements of that one
    forbidden_elements: frozenset[str] = frozenset()
    min_plane_spacing_a: float = Field(default=1.2, gt=0.1)  # between opposite faces of the cell
    min_volume_per_atom_a3: float = 4.0
    max_volume_per_atom_a3: float = 150.0
    max_packing: float = 0.95  # volume of the atomic spheres over that of the cell; fcc has 0.74
    # Of the sum of the radii. Known phases keep above 0.72, but relaxation repairs much of what is
    # closer: see the benchmark.
    min_distance_factor: float = 0.4
    isolation_a: float = Field(default=6.0, gt=0, le=12)  # CHGNet sees no neighbour beyond
    require_charge_balance: bool = False
    allowed_oxidation_states: Mapping[str, tuple[int, ...]] | None = None


class Facts(Record):
    """Facts about a crystal that passed the checks."""

    formula: str
    chemsys: str
    n_atoms: int
    volume_per_atom_a3: float
    min_distance_a: float
    space_group: int | None
    charge_balanced: bool | None
    charge_note: str


def check_crystal(crystal: Crystal, limits: Limits, supported: frozenset[str]) -> Facts | Flaw:
    """Every hard check, in order; never raises for a crystal.

    supported: elements the potential knows.
    """
    if flaw := _size_flaw(crystal, limits) or _element_flaw(crystal, limits, supported):
        return flaw
    if flaw := check_geometry(crystal, limits):
        return flaw
    pairs = nearest_pairs(crystal, limits.isolation_a)
    charge = charge_balance(Counter(crystal.species), limits.allowed_oxidation_states)
    if limits.require_charge_balance and charge.balanced is False:
        return Flaw(reason=Reason.CHARGE_UNBALANCED, detail=f"{crystal.formula}: {charge.note}")
    return Facts(
        formula=crystal.formula,
        chemsys=crystal.chemsys,
        n_atoms=crystal.n_atoms,
        volume_per_atom_a3=crystal.volume_per_atom_a3,
        min_distance_a=float(pairs[2].min()),
        space_group=space_group(crystal, SPACE_GROUP_SYMPREC_A),
        charge_balanced=charge.balanced,
        charge_note=charge.note,
    )


def check_geometry(crystal: Crystal, limits: Limits) -> Flaw | None:
    """The first flaw of cell and distances; the elements must be real."""
    radii = np.array([radius_a(s) for s in crystal.species])
    with np.errstate(all="ignore"):  # absurd cells overflow; what comes of it is compared below
        if flaw := _cell_flaw(crystal, radii, limits):
            return flaw
        pairs = nearest_pairs(crystal, limits.isolation_a)
    return _distance_flaw(crystal, radii, pairs, limits)


def candidate(proposal_id: str, crystal: Crystal, facts: Facts) -> Candidate:
    """The candidate made of a proposal that passed."""
    return Candidate(
        proposal_id=proposal_id,
        candidate_id=crystal.content_id,
        crystal=crystal,
        **facts.model_dump(),
    )


@cache
def radius_a(symbol: str) -> float:
    """Size of an atom, Å: the smaller of its covalent and its metallic radius.

    Covalent radii: 10.1039/b801115j, as shipped with ASE; metallic ones from pymatgen's table.
    The smaller one matters for f elements, whose covalent radii exceed many real contacts.
    """
    from ase.data import atomic_numbers, covalent_radii
    from pymatgen.core import Element

    covalent = float(covalent_radii[atomic_numbers[symbol]])
    metallic = float(Element(symbol).data.get("Metallic radius") or math.inf)
    return min(covalent, metallic) * SHRUNKEN_CATIONS.get(symbol, 1.0)


def _size_flaw(crystal: Crystal, limits: Limits) -> Flaw | None:
    if limits.min_atoms <= crystal.n_atoms <= limits.max_atoms:
        return None
    wanted = f"{limits.min_atoms} to {limits.max_atoms}"
    return Flaw(reason=Reason.ATOM_COUNT, detail=f"{crystal.n_atoms} atoms, wanted {wanted}")


def _element_flaw(crystal: Crystal, limits: Limits, supported: frozenset[str]) -> Flaw | None:
    present = set(crystal.species)
    allowed = present if limits.allowed_elements is None else limits.allowed_elements
    for reason, wrong, why in (
        (Reason.UNKNOWN_ELEMENT, present - _atomic_numbers().keys(), "no such element"),
        (Reason.UNSUPPORTED_ELEMENT, present - supported, "not known to the potential"),
        (Reason.FORBIDDEN_ELEMENT, present & limits.forbidden_elements, "excluded"),
        (Reason.FORBIDDEN_ELEMENT, present - allowed, "outside the palette"),
        (Reason.ELEMENT_COUNT, limits.required_elements - present, "required but absent"),
    ):
        if wrong:
            return Flaw(reason=reason, detail=f"{' '.join(sorted(wrong))}: {why}")
    if limits.allowed_systems and not any(present <= s for s in limits.allowed_systems):
        together = " ".join(sorted(present))
        return Flaw(reason=Reason.FORBIDDEN_ELEMENT, detail=f"{together}: in none of the systems")
    fewest, most = limits.min_elements or 0, limits.max_elements or len(present)
    if fewest <= len(present) <= most:
        if not limits.whole_systems or present in limits.allowed_systems:
            return None
        together = " ".join(sorted(present))
        return Flaw(reason=Reason.ELEMENT_COUNT, detail=f"{together}: part of a system only")
    wanted = f"at least {fewest}" if len(present) < fewest else f"at most {most}"
    return Flaw(reason=Reason.ELEMENT_COUNT, detail=f"{len(present)} elements, wanted {wanted}")


def _cell_flaw(crystal: Crystal, radii: np.ndarray, limits: Limits) -> Flaw | None:
    """Comparisons are written so that an overflow to nan or infinity fails them."""
    volume = crystal.volume_per_atom_a3
    if not math.isfinite(volume):
        return Flaw(reason=Reason.VOLUME_TOO_LARGE, detail="the volume overflows")
    thin = float(plane_spacings_a(compact_cell(np.array(crystal.lattice))).min())
    if not limits.min_plane_spacing_a <= thin:
        return Flaw(reason=Reason.CELL_TOO_FLAT, detail=f"faces {thin:.3g} Å apart")
    if not volume <= limits.max_volume_per_atom_a3:
        return Flaw(reason=Reason.VOLUME_TOO_LARGE, detail=f"{volume:.4g} Å3 per atom")
    if volume < limits.min_volume_per_atom_a3:
        return Flaw(reason=Reason.VOLUME_TOO_SMALL, detail=f"{volume:.4g} Å3 per atom")
    packing = 4 / 3 * math.pi * float((radii**3).mean()) / volume
    if packing > limits.max_packing:
        detail = f"{volume:.4g} Å3 per atom: atomic spheres fill {packing:.2f} of the cell"
        return Flaw(reason=Reason.VOLUME_TOO_SMALL, detail=detail)
    return None


def _distance_flaw(
    crystal: Crystal,
    radii: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    limits: Limits,
) -> Flaw | None:
    i, j, distance = pairs
    ratio = distance / (radii[i] + radii[j])
    worst = int(ratio.argmin())
    if ratio[worst] < limits.min_distance_factor:
        bond = f"{crystal.species[i[worst]]}-{crystal.species[j[worst]]}"
        detail = f"{bond} {distance[worst]:.3f} Å, {ratio[worst]:.2f} of their radii"
        return Flaw(reason=Reason.ATOMS_TOO_CLOSE, detail=detail)
    nearest = np.full(crystal.n_atoms, np.inf)
    np.minimum.at(nearest, i, distance)
    np.minimum.at(nearest, j, distance)
    lonely = int(nearest.argmax())
    if nearest[lonely] > limits.isolation_a:
        detail = f"{crystal.species[lonely]} has no neighbour within {limits.isolation_a:g} Å"
        return Flaw(reason=Reason.ATOM_ISOLATED, detail=detail)
    return None


@cache
def _atomic_numbers() -> Mapping[str, int]:
    from ase.data import atomic_numbers

    return {s: z for s, z in atomic_numbers.items() if z > 0}
