"""Whether two crystals are orderings of one lattice: the same sites, with other elements on them.

Elements of one kind get one name: cations one, anions one; where charges do not apply, all metals
one and all nonmetals one. The parent lattice is what then repeats: translations that bring sites
of a kind together within TRANSLATED_SITES are symmetries of it, and sites that they connect are one
site at their mean, so that it does not matter how relaxation displaced them. Two crystals have one
lattice if the parents superpose as StructureMatcher superposes crystals, or one parent as a
supercell of the other, where a distortion hides some translations of one.

Displacive variants (a tilted and an untilted perovskite) have one lattice, as all orderings on
octahedral sites of rock salt do, layered or not. Vacancies are no species: spinel is not rock salt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.charges import charge_balance
from hullward.tools.crystal.equivalence import CELL_ERRORS, compared_cells
from hullward.tools.crystal.formulas import reduced_amounts
from hullward.tools.crystal.reduced_cell import Cell, niggli
from hullward.tools.crystal.repetition import SupercellLimits, may_repeat, repeats
from hullward.tools.crystal.superposition import may_superpose, rms_displacement

# Displacements under an approximate translation, of (V/n)^(1/3). From a layer of hcp to the next
# they are 0.32 for all sites, in distorted orderings as large for few.
TRANSLATED_SITES = 0.45  # the largest
TRANSLATED_RMS = 0.22
# Halfway from bcc, where it is 0, to hcp: the largest rms of a lattice of one site, fcc or bcc.
ONE_SITE_RMS = 0.16
SUPERCELL = SupercellLimits(lengths=0.15, sites=0.3)
# Of a lattice of one site: from a supercell of bcc to hcp it is 0.155 for all sites.
SUPERCELL_OF_ONE_SITE = SupercellLimits(lengths=0.15, sites=0.1)
MAX_SITES = 200  # of a cell that is compared
CHUNK_PAIRS = 50_000  # pairs of sites compared at once
MAX_MERGED = 5  # elements of a kind for which the smallest exchange is looked for

Merging = tuple[tuple[str, ...], ...]  # elements with one name, sorted
# Stand-ins for the names, in the order of a Merging; any distinct elements serve.
_NAMES = ("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne")


class OrderedLattice:
    """A crystal whose parent lattices are found once, on first use."""

    def __init__(self, crystal: Crystal) -> None:
        self._crystal: Crystal | str = crystal  # or its JSON text, a tenth of the size
        self._parents: dict[Merging, Cell | None] = {}
        self._whole: bytes | None = None  # the parent in `kinds`; empty: it cannot be compared

    @classmethod
    def from_bytes(cls, text: str, parent: bytes) -> OrderedLattice:
        """A crystal by its JSON text, with what `to_bytes` found of it."""
        found = cls.__new__(cls)
        found._crystal, found._parents, found._whole = text, {}, parent
        return found

    def to_bytes(self) -> bytes:
        """Its parent lattice with all elements of a kind merged."""
        parent = self.parent(self.kinds)
        return b"" if parent is None else parent.to_bytes()

    @property
    def crystal(self) -> Crystal:
        """The crystal itself."""
        if isinstance(self._crystal, str):
            return Crystal.model_validate_json(self._crystal)
        return self._crystal

    @cached_property
    def kinds(self) -> Merging:
        """Its elements, those together that may stand on one lattice."""
        return kinds_of(self.crystal)

    def parent(self, merging: Merging) -> Cell | None:
        """The reduced cell of its parent with merged elements; None if it cannot be compared."""
        if self._whole is not None and merging == self.kinds:
            return Cell.from_bytes(self._whole) if self._whole else None
        if merging not in self._parents:
            self._parents[merging] = _parent(self.crystal, merging)
        return self._parents[merging]


def shared_by(one: OrderedLattice, two: OrderedLattice) -> tuple[str, ...] | None:
    """Elements that share sites if the crystals are orderings of one lattice; None if not.

    ('Li Mn',): lithium and manganese stand on the same sites. Of all exchanges of elements that
    lay one crystal over the other, the one with the fewest elements. Empty if none is exchanged.
    """
    if reduced_amounts(Counter(one.crystal.species)) != reduced_amounts(
        Counter(two.crystal.species)
    ):
        return None
    whole = one.kinds
    if not _superpose(one, two, whole):
        return None
    if max(map(len, whole)) <= MAX_MERGED:
        for merging in _finer(whole):
            if merging == whole or _superpose(one, two, merging):
                whole = merging
                break
    return tuple(" ".join(group) for group in whole if len(group) > 1)


def may_share(ones: Sequence[OrderedLattice], two: OrderedLattice) -> list[bool]:
    """False for crystals that are on another lattice; of the others, `shared_by` decides.

    For many crystals of one formula at once, a fraction of its time.
    """
    whole = two.kinds
    cell = two.parent(whole)
    cells = [None if cell is None else one.parent(whole) for one in ones]
    pairs = [(one, cell) for one in cells if one is not None and cell is not None]
    sizes = [(x, y) if len(x) <= len(y) else (y, x) for x, y in pairs]
    try:
        may = may_superpose(pairs) | may_superpose([(y, x) for x, y in pairs])
        may |= may_repeat(sizes, SUPERCELL)
    except CELL_ERRORS:
        return [True] * len(ones)
    decided = iter(may.tolist())
    return [one is not None and next(decided) for one in cells]


def kinds_of(crystal: Crystal) -> Merging:
    """Elements by kind, a function of the formula alone."""
    return _kinds(tuple(sorted(reduced_amounts(Counter(crystal.species)).items())))


@cache
def _kinds(amounts: tuple[tuple[str, int], ...]) -> Merging:
    from pymatgen.core import Element

    symbols = [symbol for symbol, _ in amounts]
    states: Mapping[str, float] = charge_balance(dict(amounts)).states
    if states and min(states.values()) < 0 < max(states.values()):
        negative = {s for s in symbols if states[s] < 0}
    else:
        negative = {s for s in symbols if not (Element(s).is_metal or Element(s).is_metalloid)}
    groups = (tuple(s for s in symbols if (s in negative) is sign) for sign in (False, True))
    return tuple(group for group in groups if group)


def _finer(whole: Merging) -> Iterator[Merging]:
    """All splittings of the groups, those with most groups first."""

    def split(groups: Sequence[tuple[str, ...]]) -> list[Merging]:
        if not groups:
            return [()]
        rest = split(groups[1:])
        return [(*part, *more) for part in _partitions(groups[0]) for more in rest]

    yield from sorted(map(_ordered, split(whole)), key=lambda m: (-len(m), m))


def _partitions(group: tuple[str, ...]) -> Iterator[Merging]:
    if not group:
        yield ()
        return
    first, rest = group[0], group[1:]
    for part in _partitions(rest):
        yield ((first,), *part)
        for k, block in enumerate(part):
            yield (*part[:k], (first, *block), *part[k + 1 :])


def _ordered(merging: Merging) -> Merging:
    return tuple(sorted(tuple(sorted(group)) for group in merging))


def _superpose(one: OrderedLattice, two: OrderedLattice, merging: Merging) -> bool:
    a, b = one.parent(merging), two.parent(merging)
    if a is None or b is None:
        return False
    small, large = sorted((a, b), key=len)
    try:
        if len(small) == len(large):
            return any(rms_displacement(*p, first=True) is not None for p in ((a, b), (b, a)))
        return repeats(small, large, SUPERCELL_OF_ONE_SITE if len(small) == 1 else SUPERCELL)
    except CELL_ERRORS:
        return False


def _parent(crystal: Crystal, merging: Merging) -> Cell | None:
    if crystal.n_atoms > MAX_SITES:
        return None
    name = {s: _NAMES[k] for k, group in enumerate(merging) for s in group}
    species = np.array([name[s] for s in crystal.species])
    try:
        lattice, frac = niggli(np.array(crystal.lattice), np.array(crystal.frac_coords))
        lattice, species, frac = _folded(lattice, species, frac)
    except CELL_ERRORS:
        return None
    found = compared_cells(Crystal.from_arrays(lattice, species.tolist(), frac))
    return None if found is None else found.primitive


def _folded(
    lattice: np.ndarray, species: np.ndarray, frac: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell of the approximate translations, with sites at their means."""
    n = len(species)
    unit = (abs(float(np.linalg.det(lattice))) / n) ** (1 / 3)
    steps = _translations(lattice, species, frac, unit)
    if not steps:
        return lattice, species, frac
    group = [(np.zeros(3), np.arange(n)), *steps]
    small = _lattice_of(lattice, np.array([shift for shift, _ in group]))
    taken, kept, sites = np.zeros(n, dtype=bool), [], []
    for i in range(n):
        if taken[i]:
            continue
        apart = np.array([frac[to[i]] - shift - frac[i] for shift, to in group])
        apart -= np.rint(apart)
        taken[[to[i] for _, to in group]] = True
        kept.append(i)
        sites.append(frac[i] + apart.mean(0))
    return small, species[kept], np.array(sites) @ lattice @ np.linalg.inv(small)


def _translations(
    lattice: np.ndarray, species: np.ndarray, frac: np.ndarray, unit_a: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(shift, partner of each site) of a group of translations, the identity left out.

    The mean displacement of the sites under a permutation is exactly a fraction of the lattice,
    however distorted the crystal is: along a cycle of it the displacements sum to a lattice vector.
    """
    counts = Counter(species.tolist())
    size = math.gcd(*counts.values())
    if size == 1:
        return []
    rarest = min(sorted(counts), key=counts.__getitem__)
    (sites,) = np.nonzero(species == rarest)
    blocks = [np.flatnonzero(species == s) for s in sorted(counts, key=counts.__getitem__)]
    found: dict[tuple[int, ...], tuple[float, np.ndarray, np.ndarray]] = {}
    shifts = frac[sites[1:]] - frac[sites[0]]
    at_once = max(1, CHUNK_PAIRS // max(map(len, blocks)) ** 2)
    for start in range(0, len(shifts), at_once):
        some = shifts[start : start + at_once]
        for rms, shift, to in _approximate(lattice, blocks, frac, some, unit_a):
            key = _key(shift, size)
            if key is not None and any(key) and (key not in found or rms < found[key][0]):
                found[key] = rms, np.array(key) / size, to
    group = _closed(found, size)
    if len(group) + 1 == len(frac) and max(found[key][0] for key in group) > ONE_SITE_RMS:
        group = _closed({k: f for k, f in found.items() if f[0] <= ONE_SITE_RMS}, size)
    return [found[key][1:] for key in sorted(group)]


def _key(shift: np.ndarray, size: int) -> tuple[int, ...] | None:
    """The shift in parts of 1/size; None if it is no such fraction."""
    parts = shift * size
    if np.abs(parts - np.rint(parts)).max() > 0.05:
        return None
    return tuple(int(p) % size for p in np.rint(parts))


def _approximate(
    lattice: np.ndarray,
    blocks: list[np.ndarray],
    frac: np.ndarray,
    shifts: np.ndarray,
    unit_a: float,
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(rms displacement over unit_a, exact shift, partners) of those of the shifts (t, 3) that are
    translations.
    """
    for _ in range(2):  # again with the mean: the first guess is that of one distorted pair
        to, away = np.empty((len(shifts), len(frac)), int), np.empty((len(shifts), *frac.shape))
        for block in blocks:
            apart = frac[block] - (frac[block, None] + shifts[:, None, None])  # (t, k, k, 3)
            apart -= np.rint(apart)
            squared = ((apart @ lattice) ** 2).sum(-1)
            kept = squared.min(-1).max(-1) <= (2 * TRANSLATED_SITES * unit_a) ** 2
            shifts, to, away, apart, squared = (x[kept] for x in (shifts, to, away, apart, squared))
            if not len(shifts):
                return
            chosen = _partners(squared)
            to[:, block] = block[chosen]
            away[:, block] = np.take_along_axis(apart, chosen[:, :, None, None], axis=2)[:, :, 0]
        shifts = shifts + away.mean(1)
    displaced = (away - away.mean(1, keepdims=True)) @ lattice
    away_units = np.linalg.norm(displaced, axis=2) / unit_a
    rms = np.sqrt((away_units**2).mean(1))
    fits = (away_units.max(1) <= TRANSLATED_SITES) & (rms <= TRANSLATED_RMS)
    for one in np.flatnonzero(fits):
        yield float(rms[one]), np.mod(shifts[one], 1.0), to[one]


def _partners(squared: np.ndarray) -> np.ndarray:
    """(t, k) least-squares partners, from the squared distances (t, k, k)."""
    from scipy.optimize import linear_sum_assignment

    chosen: np.ndarray = squared.argmin(-1)
    for one in np.flatnonzero((np.sort(chosen, axis=1) != np.arange(chosen.shape[1])).any(1)):
        chosen[one] = linear_sum_assignment(squared[one])[1]
    return chosen


def _closed(
    found: Mapping[tuple[int, ...], tuple[float, np.ndarray, np.ndarray]], size: int
) -> set[tuple[int, ...]]:
    """The shifts of the largest group that the least distorted ones generate."""
    group: set[tuple[int, ...]] = {(0, 0, 0)}
    for key in sorted(found, key=lambda k: (round(found[k][0], 6), k)):
        if key in group:
            continue
        wider = {
            tuple((a + m * b) % size for a, b in zip(one, key, strict=True))
            for one in group
            for m in range(size)
        }
        if wider - {(0, 0, 0)} <= found.keys():
            group = wider
    return group - {(0, 0, 0)}


def _lattice_of(lattice: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shortest basis (3, 3) of the lattice with the fractional shifts (m, 3) added."""
    reach = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    points = ((shifts[:, None] + reach).reshape(-1, 3)) @ lattice
    points = points[np.argsort(np.round((points**2).sum(1), 9), kind="stable")]
    volume = abs(float(np.linalg.det(lattice))) / len(shifts)
    basis: list[np.ndarray] = []
    for point in points:
        rank = np.linalg.matrix_rank(np.array([*basis, point]), tol=1e-3)
        if rank > len(basis):
            basis.append(point)
        if len(basis) == 3:
            break
    found = np.array(basis)
    if abs(abs(float(np.linalg.det(found))) - volume) > 1e-3 * volume:
        raise ArithmeticError("the translations span no lattice of their number")
    return found
