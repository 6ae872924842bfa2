"""Known structure types, decorated with other elements.

The types are AFLOW's list as pymatgen ships it (10.1016/j.commatsci.2017.01.017) and our own
`data/prototypes.yaml` and `data/prototypes_more.yaml`. Elements are placed by Wyckoff orbit, not by
the original species, so a binary type can also hold ternaries, and orbits of a ternary may share an
element. Types from `hullward.tools.prototypes.nano_types` keep each species together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal import (
    States,
    bond_scale,
    charge_balance,
    find_symmetry,
    has_bonded_carbon,
    is_anion,
    packing_fraction,
    parse_formula,
)
from hullward.tools.prototypes.aflow import aflow_types

MAX_ORBITS = 8  # more give thousands of decorations; larger own types keep each species together
MOST_OPEN_ELEMENT = 1.5  # volume per atom over the median; above: molecular cells
LEAST_PACKING = 0.2  # share of the cell inside the ions; solids have 0.4 to 0.75
OWN_TYPES = ("prototypes.yaml", "prototypes_more.yaml")
NEAREST_SLACK = 1.05  # a neighbour farther by this factor still counts as nearest


@dataclass(frozen=True)
class Prototype:
    """One structure type in a primitive cell."""

    prototype_id: str
    lattice: np.ndarray  # (3, 3) Å, of the type's first compound
    frac_coords: np.ndarray  # (n, 3)
    species: tuple[str, ...]  # of the type's first compound
    orbits: np.ndarray  # (n,) number of the Wyckoff orbit of each site
    labels: tuple[str, ...]  # of each orbit: species, Wyckoff letter, e.g. 'Mg-a'
    distances: np.ndarray  # (n, n) Å, shortest over periodic images; diagonal: to own images

    @property
    def n_atoms(self) -> int:
        return len(self.species)

    @property
    def crystal(self) -> Crystal:
        """The type's first compound."""
        return Crystal.from_arrays(self.lattice, self.species, self.frac_coords)


@dataclass(frozen=True)
class Decorated:
    """A structure type with elements on its orbits."""

    prototype_id: str
    crystal: Crystal
    assignment: tuple[tuple[str, str], ...]  # (orbit label, element)


@cache
def prototype_library() -> tuple[Prototype, ...]:
    """Every structure type: AFLOW's 288, then ours."""
    found: list[Prototype] = []
    seen: dict[str, int] = {}
    for entry in aflow_types():
        seen[entry.label] = seen.get(entry.label, 0) + 1
        number = seen[entry.label]
        name = f"{entry.label}#{number}" if number > 1 else entry.label  # polytypes
        found.append(make_prototype(name, Crystal.from_structure(entry.structure)))
    found += [make_prototype(f"own:{name}", crystal) for name, crystal in textbook().items()]
    return tuple(found)


@cache
def textbook() -> Mapping[str, Crystal]:
    """Our own types by name, each with the atoms of its first compound, in a primitive cell."""
    import yaml

    types = {}
    for name in OWN_TYPES:
        text = (files("hullward.data") / name).read_text(encoding="utf-8")
        for entry in yaml.safe_load(text):
            if entry["id"] in types:
                raise InputError(f"data/{name}: {entry['id']!r} occurs twice; rename one")
            types[entry["id"]] = build_type(entry)
    return types


def build_type(entry: Mapping[str, Any]) -> Crystal:
    """The primitive cell of an entry with `spacegroup`, `cell`, `sites` and perhaps `setting`."""
    from ase.spacegroup import Spacegroup
    from ase.spacegroup import crystal as build

    group = Spacegroup(entry["spacegroup"], entry.get("setting", 1))
    atoms = build(
        [site[0] for site in entry["sites"]],
        basis=[site[1:] for site in entry["sites"]],
        spacegroup=group,
        cellpar=entry["cell"],
        # ASE's cut can lose atoms on the faces of a cell that is primitive already
        primitive_cell=not group.symbol.startswith("P"),
    )
    return Crystal.from_ase(atoms)


def decorate(
    elements: Sequence[str],
    formulas: Iterable[str] | None = None,
    max_atoms: int = 20,
    *,
    charge_balanced: bool = True,
    keep_unbalanced: bool = False,
    allowed: States | None = None,
    prototypes: Iterable[Prototype] | None = None,
) -> Iterator[Decorated]:
    """Every distinct way to place all of these elements on the orbits of known types.

    formulas: keep only these (reduced).  max_atoms: of the primitive cell.
    charge_balanced: keep formulas that balance or to which charges do not apply (metals), and of
    the balanced ones only structures with cations and anions as each other's nearest neighbours.
    keep_unbalanced: keep unbalanced formulas too, whatever the neighbours of their ions.
    allowed: oxidation states that replace the common ones.  The order is always the same.
    """
    symbols = tuple(dict.fromkeys(elements))
    wanted = None if formulas is None else _amounts_of(formulas, symbols)
    claims: dict[tuple[int, ...], tuple[bool, bool]] = {}
    for prototype in prototype_library() if prototypes is None else prototypes:
        groups = _orbit_groups(prototype)
        n_groups = int(groups.max()) + 1
        if prototype.n_atoms > max_atoms or not len(symbols) <= n_groups <= MAX_ORBITS:
            continue
        sizes = np.bincount(groups[prototype.orbits])
        seen: set[tuple[object, ...]] = set()
        for of_group, key in _choices(len(symbols), sizes, wanted):
            choice = tuple(of_group[group] for group in groups)
            if key not in claims:
                claims[key] = (
                    _charge_verdict(symbols, key, allowed) if charge_balanced else (True, False)
                )
            balanced, ionic = claims[key]
            if not (balanced or keep_unbalanced):
                continue
            placed = np.array(choice)[prototype.orbits]
            if ionic and not _ions_alternate(symbols, placed, prototype):
                continue
            mark = fingerprint(placed, prototype.distances)
            if mark in seen:
                continue
            seen.add(mark)
            decorated = _decorated(prototype, symbols, placed, choice)
            if packing_fraction(symbols, placed, decorated.crystal) >= LEAST_PACKING:
                yield decorated


def element_structures(
    symbol: str, types: Iterable[Prototype] | None = None
) -> list[tuple[str, Crystal]]:
    """(prototype id, crystal) of every structure of an element, known or plausible.

    These are ASE's `dcdft` crystals (10.1080/10408436.2013.772503), AFLOW's entries for this
    element unchanged, and for metals every other elemental type, rescaled.  types: replace the
    library's.
    """
    from ase.collections import dcdft
    from pymatgen.core import Element

    found = []
    if symbol in dcdft.names:
        found.append((f"dcdft:{symbol}", Crystal.from_ase(dcdft[symbol])))
    for prototype in prototype_library() if types is None else types:
        own = set(prototype.species)
        if own == {symbol}:
            found.append((prototype.prototype_id, prototype.crystal))
        elif len(own) == 1 and Element(symbol).is_metal and prototype.n_atoms <= 4:
            placed = np.zeros(prototype.n_atoms, dtype=int)
            scaled = _decorated(prototype, (symbol,), placed, (0,) * len(prototype.labels))
            found.append((prototype.prototype_id, scaled.crystal))
    usual = np.median([c.volume_per_atom_a3 for _, c in found]) if found else 0.0
    return [(n, c) for n, c in found if c.volume_per_atom_a3 <= MOST_OPEN_ELEMENT * usual]


def make_prototype(name: str, crystal: Crystal) -> Prototype:
    """A structure type from a primitive cell of one of its compounds."""
    from pymatgen.core import Lattice

    dataset = find_symmetry(crystal, symprec_a=1e-2)
    _, first, orbits = np.unique(dataset.orbits, return_index=True, return_inverse=True)
    lattice = Lattice(crystal.lattice)
    distances = lattice.get_all_distances(crystal.frac_coords, crystal.frac_coords)
    np.fill_diagonal(distances, min(lattice.get_lll_reduced_lattice().abc))
    return Prototype(
        prototype_id=name,
        lattice=np.array(crystal.lattice),
        frac_coords=np.array(crystal.frac_coords),
        species=crystal.species,
        orbits=orbits,
        labels=tuple(f"{crystal.species[i]}-{dataset.wyckoffs[i]}" for i in first),
        distances=distances,
    )


def anonymous_formula(formula: str) -> tuple[int, ...]:
    """Smallest whole amounts without their elements, ascending: (1, 1, 2) of NaFeO2.

    Raises InputError for text that is no formula of whole numbers.
    """
    return tuple(sorted(parse_formula(formula).values()))


def _orbit_groups(prototype: Prototype) -> np.ndarray:
    """(orbits,) number of each orbit's group, which gets one element: the orbit, or its species."""
    own = prototype.prototype_id.startswith("own:") and len(prototype.labels) > MAX_ORBITS
    if not own and not prototype.prototype_id.startswith("nano:"):
        return np.arange(len(prototype.labels))
    kinds = [label.split("-")[0] for label in prototype.labels]
    order = list(dict.fromkeys(kinds))
    return np.array([order.index(kind) for kind in kinds])


def _amounts_of(formulas: Iterable[str], symbols: tuple[str, ...]) -> np.ndarray:
    """(formulas, symbols) amounts of the formulas that consist of exactly these symbols."""
    parsed = (parse_formula(formula) for formula in formulas)
    rows = [[found[s] for s in symbols] for found in parsed if found.keys() == set(symbols)]
    return np.array(rows, dtype=int).reshape(-1, len(symbols))


def _choices(
    n_symbols: int, sizes: np.ndarray, wanted: np.ndarray | None
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(symbol of each orbit, smallest whole amounts) of every choice that uses all symbols.

    wanted: (m, symbols), the amounts to keep; None for all.
    """
    choices, counts = _all_choices(n_symbols, tuple(sizes.tolist()))
    if wanted is not None:
        kept = (counts[:, None, :] == wanted[None, :, :]).all(axis=2).any(axis=1)
        choices, counts = choices[kept], counts[kept]
    for choice, key in zip(choices.tolist(), counts.tolist(), strict=True):
        yield tuple(choice), tuple(key)


@lru_cache(maxsize=1024)
def _all_choices(n_symbols: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(choices, orbits) symbols and (choices, symbols) amounts; few types differ in their sizes."""
    choices = np.indices((n_symbols,) * len(sizes), dtype=np.int8).reshape(len(sizes), -1).T
    counts = np.stack([(choices == k) @ np.array(sizes) for k in range(n_symbols)], axis=1)
    complete = (counts > 0).all(axis=1)
    choices, counts = choices[complete], counts[complete].astype(np.int16)
    return choices, counts // np.gcd.reduce(counts, axis=1, keepdims=True)


def _charge_verdict(
    symbols: tuple[str, ...], counts: tuple[int, ...], allowed: States | None
) -> tuple[bool, bool]:
    """(keep, ionic); ionic: the anion has its full charge, so no peroxide or acetylide."""
    claim = charge_balance(dict(zip(symbols, counts, strict=True)), allowed)
    if claim.balanced is None:
        return True, False
    ionic = claim.balanced and min(claim.states.values()) == round(min(claim.states.values()))
    dioxygen = "peroxide" in claim.note or "superoxide" in claim.note
    bonded = dioxygen or has_bonded_carbon(claim.states)
    return claim.balanced, ionic and not bonded


def _ions_alternate(symbols: Sequence[str], placed: np.ndarray, prototype: Prototype) -> bool:
    """Whether the nearest neighbour of every ion, within a slack, is of opposite sign."""
    anion = is_anion(symbols)[placed]
    unlike = anion[:, None] != anion[None, :]
    nearest_unlike = np.where(unlike, prototype.distances, np.inf).min(axis=1)
    return bool((nearest_unlike <= NEAREST_SLACK * prototype.distances.min(axis=1)).all())


def fingerprint(placed: np.ndarray, distances: np.ndarray) -> tuple[object, ...]:
    """A key that is equal for decorations related by a symmetry of the bare type."""
    rounded = np.round(distances, 2)
    order = np.lexsort((rounded, np.broadcast_to(placed, rounded.shape)), axis=-1)
    rows = np.take_along_axis(rounded, order, axis=1)  # of each site, by kind, then by distance
    return tuple(sorted(zip(placed.tolist(), (row.tobytes() for row in rows), strict=True)))


def _decorated(
    prototype: Prototype, symbols: tuple[str, ...], placed: np.ndarray, choice: Sequence[int]
) -> Decorated:
    factor = bond_scale(symbols, placed, prototype.distances)
    names = [symbols[k] for k in placed]
    crystal = Crystal.from_arrays(prototype.lattice * factor, names, prototype.frac_coords)
    pairs = zip(prototype.labels, (symbols[k] for k in choice), strict=True)
    return Decorated(prototype.prototype_id, crystal, tuple(pairs))
