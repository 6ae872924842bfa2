"""The crystal of one CIF block, read so that it agrees with everything the block states.

The listed sites are expanded by the symmetry. Formula sum, formula units, multiplicities and atom
types are compared with the result. If the symmetry leaves several settings possible, the block must
decide: by what it states, or because the others would put atoms on top of each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hullward.tools.crystal.files.cif_block import (
    CifSite,
    Contents,
    RefusedError,
    bad,
    parse_block,
    read_cell,
    read_contents,
    read_sites,
)
from hullward.tools.crystal.files.cif_symmetry import Setting, Symmetry, read_symmetry
from hullward.tools.records import Flaw, Reason

SAME_PLACE_A = 0.01
# Images of one atom that are nearer than this are one place if the digits as written allow it.
SAME_PLACE_AS_WRITTEN_A = 0.4
SAME_SHARE = 1e-3  # of an element in the atoms
SAME_COUNT = 0.01  # relative
# Distances over the sum of covalent radii: a reading with shorter ones than CRAMMED gives way to
# one whose shortest is beyond LOOSE.
CRAMMED, LOOSE = 0.75, 0.8
SAME_DISTANCE_A = 2e-3


@dataclass(frozen=True)
class Reading:
    """The sites of a block in one setting."""

    setting: Setting
    species: tuple[str, ...]
    frac_coords: np.ndarray  # (n, 3)
    multiplicities: tuple[int, ...]  # of each listed site


@dataclass(frozen=True)
class AtomList:
    """What a block gives of its atoms, to be read in one setting or another."""

    sites: Sequence[CifSite]
    stated: Contents
    cell: Sequence[float]
    lattice: np.ndarray
    max_sites: int

    def read_in(self, setting: Setting) -> Reading | Flaw:
        """The reading in a setting, or how it contradicts what the block states."""
        if not setting.fits(self.lattice):
            shown = ", ".join(f"{x:g}" for x in self.cell)
            detail = f"the cell {shown} does not have the symmetry of {setting.name}"
            return Flaw(reason=Reason.BAD_CIF, detail=detail)
        orbits: list[np.ndarray] = []
        total = 0
        for site in self.sites:
            orbits.append(_orbit(site, setting, self.lattice))
            total += len(orbits[-1])
            if total > self.max_sites:
                detail = f"at least {total} sites, limit {self.max_sites}"
                return Flaw(reason=Reason.TOO_LARGE, detail=detail)
        species = tuple(
            site.element
            for site, orbit in zip(self.sites, orbits, strict=True)
            for _ in range(len(orbit))
        )
        reading = Reading(setting, species, np.concatenate(orbits), tuple(map(len, orbits)))
        fault = _contradiction(reading, self.sites, self.stated) or self._overlap(reading)
        return Flaw(reason=Reason.BAD_CIF, detail=fault) if fault else reading

    def _overlap(self, reading: Reading) -> str | None:
        """Two listed sites on one place."""
        owners = np.repeat(np.arange(len(self.sites)), reading.multiplicities)
        apart = reading.frac_coords[:, None] - reading.frac_coords
        near = _lengths(apart - np.round(apart), self.lattice) < SAME_PLACE_A
        first, second = np.nonzero(near & (owners[:, None] < owners))
        if not len(first):
            return None
        one, two = (self.sites[int(k)] for k in (owners[first[0]], owners[second[0]]))
        return f"{one.name} and {two.name} occupy one place: occupancy 2"


def read_block(text: str, max_sites: int, max_operators: int) -> dict[str, Any]:
    """One data block as {lattice, species, coords}. Raises RefusedError."""
    tags = parse_block(text)
    cell, lattice = read_cell(tags)
    sites = read_sites(tags, max_sites)
    atoms = AtomList(sites, read_contents(tags), cell, lattice, max_sites)
    symmetry = read_symmetry(tags, cell, max_operators)
    found = [atoms.read_in(setting) for setting in symmetry.settings]
    readings = [reading for reading in found if isinstance(reading, Reading)]
    if not readings:
        raise _refusal([flaw for flaw in found if isinstance(flaw, Flaw)], symmetry)
    readings = _distinct(readings, lattice, by_distance=symmetry.doubt is None)
    if len(readings) > 1:
        raise bad(_undecided(readings, symmetry.doubt))
    (reading,) = readings
    if symmetry.doubt and not _fixes_the_count(sites, atoms.stated):
        misfits = [setting.name for setting in symmetry.settings if not setting.fits(lattice)]
        if misfits and reading.setting is symmetry.settings[0]:
            raise bad(f"{symmetry.doubt}; the cell does not have the symmetry of {misfits[0]}")
        if len(found) == 1:
            raise bad(symmetry.doubt)
    if symmetry.named and _distances(reading, lattice)[1] < CRAMMED:
        for other in map(atoms.read_in, symmetry.named):
            if isinstance(other, Reading) and _distances(other, lattice)[1] >= LOOSE:
                raise bad(
                    f"{reading.setting.name} are not those of {other.setting.name}, which fit"
                )
    return {
        "lattice": lattice.tolist(),
        "species": list(reading.species),
        "coords": reading.frac_coords.tolist(),
    }


def _refusal(flaws: Sequence[Flaw], symmetry: Symmetry) -> RefusedError:
    """Why no setting can be read."""
    several = len(flaws) > 1
    details = [
        f"{setting.name}: {flaw.detail}" if several else flaw.detail
        for setting, flaw in zip(symmetry.settings, flaws, strict=True)
    ]
    alike = {flaw.reason for flaw in flaws}
    reason = alike.pop() if len(alike) == 1 else Reason.BAD_CIF
    return RefusedError(reason, "; ".join([*filter(None, [symmetry.doubt]), *details[:2]]))


def _orbit(site: CifSite, setting: Setting, lattice: np.ndarray) -> np.ndarray:
    """(m, 3) images of a site, exact on a special position if the digits as written are on it."""
    place = np.array(site.frac_coords)
    images = setting.rotations @ place + setting.translations
    apart = images - place
    apart -= np.round(apart)
    distances = _lengths(apart, lattice)
    change = np.abs(setting.rotations - np.eye(3)) @ np.array(site.precision) + 1e-9
    within_digits = (np.abs(apart) <= change).all(axis=1) & (distances < SAME_PLACE_AS_WRITTEN_A)
    fixing = (distances < SAME_PLACE_A) | within_digits
    if fixing.sum() > 1 and distances[fixing].max() > 0:
        place = place + apart[fixing].mean(axis=0)
        images = setting.rotations @ place + setting.translations
    wrapped: np.ndarray = images % 1.0
    wrapped[0] = images[0]
    if fixing.sum() == 1:
        return wrapped
    distinct: list[int] = []
    left = np.arange(len(images))
    while len(left):
        distinct.append(int(left[0]))
        apart = images[left] - images[left[0]]
        left = left[_lengths(apart - np.round(apart), lattice) >= SAME_PLACE_A]
    return wrapped[distinct]


def _lengths(vectors: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Å, of fractional vectors along the last axis."""
    return np.asarray(np.sqrt(((vectors @ lattice) ** 2).sum(axis=-1)))


def _contradiction(reading: Reading, sites: Sequence[CifSite], stated: Contents) -> str | None:
    """Where a reading disagrees with the block's own statements; None if it agrees."""
    for site, count in zip(sites, reading.multiplicities, strict=True):
        order = len(reading.setting) / count
        if site.multiplicity is not None and site.multiplicity != count:
            return f"{site.name} has multiplicity {site.multiplicity:g}, its images are {count}"
        if site.order is not None and site.order != order:
            return f"{site.name} has a site symmetry of order {site.order:g}, found is {order:g}"
    counts = Counter(reading.species)
    if missing := sorted((stated.listed_types | set(stated.formula_amounts)) - set(counts)):
        return f"{', '.join(missing)} is stated to be in the crystal, but has no sites"
    for element, number in stated.in_cell.items():
        if number != counts[element]:
            return f"{number:g} {element} are stated in the cell, the sites give {counts[element]}"
    return formula_fault(counts, stated)


def formula_fault(counts: Mapping[str, int], stated: Contents) -> str | None:
    """Where counts of atoms in the cell disagree with the formula or the number of its units."""
    atoms, units = sum(counts.values()), stated.units
    repeats = math.gcd(*counts.values())
    found = " ".join(f"{element}{n}" for element, n in counts.items())
    if not stated.formula_amounts:
        if units and (units > repeats or repeats % units):
            return f"{units:g} formula units are stated, the sites give {repeats} of {found}"
        return None
    total = sum(stated.formula_amounts.values())
    for element in sorted({*counts, *stated.formula_amounts}):
        share = stated.formula_amounts.get(element, 0) / total
        if abs(share - counts.get(element, 0) / atoms) > SAME_SHARE:
            return f"the formula is {stated.formula}, the sites give {found}"
    if units is None or abs(units * total - atoms) <= SAME_COUNT * atoms:
        return None
    if repeats % units == 0 and abs(total - atoms) <= SAME_COUNT * atoms:
        return None  # pymatgen writes the atoms of the whole cell as the formula
    return (
        f"{units:g} units of {stated.formula} are {units * total:g} atoms, the sites give {atoms}"
    )


def _fixes_the_count(sites: Sequence[CifSite], stated: Contents) -> bool:
    """Whether a block states how many atoms are in its cell."""
    by_sum = bool(stated.formula_amounts) and stated.units is not None
    return by_sum or bool(stated.in_cell) or all(site.multiplicity is not None for site in sites)


def _distinct(
    readings: Sequence[Reading], lattice: np.ndarray, *, by_distance: bool
) -> list[Reading]:
    """One reading of each crystal; by distance: without crammed ones where another is loose."""
    if len(readings) == 1:
        return list(readings)
    measured = [(reading, *_distances(reading, lattice)) for reading in readings]
    if by_distance and max(closest for *_, closest in measured) >= LOOSE:
        measured = [m for m in measured if m[2] >= CRAMMED]
    kept: list[tuple[Reading, np.ndarray]] = []
    for reading, fingerprint, _ in measured:
        same = (
            len(fingerprint) == len(other)
            and bool((np.abs(fingerprint - other) < SAME_DISTANCE_A).all())
            for _, other in kept
        )
        if not any(same):
            kept.append((reading, fingerprint))
    return [reading for reading, _ in kept]


def _distances(reading: Reading, lattice: np.ndarray) -> tuple[np.ndarray, float]:
    """Sorted distances of pairs by element, and the shortest over its covalent radii."""
    import gemmi

    numbers = np.array([gemmi.Element(symbol).atomic_number for symbol in reading.species])
    radii = np.array([gemmi.Element(symbol).covalent_r for symbol in reading.species])
    i, j = np.triu_indices(len(numbers), k=1)
    apart = reading.frac_coords[i] - reading.frac_coords[j]
    apart -= np.round(apart)
    shifts = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    nearest = np.full(len(i), np.inf)
    for shift in shifts:
        nearest = np.minimum(nearest, _lengths(apart + shift, lattice))
    pairs = np.sort(np.stack([numbers[i], numbers[j]]), axis=0)
    # kinds of pairs are far apart on the scale of distances
    fingerprint = np.sort((pairs[0] * 1000 + pairs[1]) * 1e4 + nearest)
    closest = float((nearest / (radii[i] + radii[j])).min()) if len(i) else math.inf
    return np.concatenate([np.sort(numbers) * -1.0, fingerprint]), closest


def _undecided(readings: Sequence[Reading], doubt: str | None) -> str:
    shown = "; ".join(
        f"{r.setting.name}: {' '.join(f'{el}{n}' for el, n in Counter(r.species).items())}"
        for r in readings[:3]
    )
    missing = doubt or "the choice of origin or axes is not stated"
    return f"{missing}; formula, units and multiplicities do not decide: {shown}"
