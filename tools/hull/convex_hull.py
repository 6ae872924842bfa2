"""The convex hull of known phases as a matrix of facets: heights of many compositions at once.

The hull energy at a composition is the largest value there of any plane through a lower facet
(10.1021/cm702327g for the construction; Barber et al., 10.1145/235815.235821, for qhull).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.records import Product, Record

# A compound counts only when it is this far below its elements (pymatgen's number), eV/atom.
FORMATION_TOLERANCE = 1e-11
# A facet plane may pass this far above a phase of the hull through rounding, eV/atom.
SUPPORT_TOLERANCE = 1e-9
# Smaller shares of a decomposition are rounding (pymatgen's number).
SHARE_TOLERANCE = 1e-8
# Smaller fractions of a composition count as zero, and compositions this close as equal.
TRACE = 1e-8
TABLE_SIZE = 100_000  # numbers in one product of compositions and planes, to fit in the cache
# A tie-line point is replaced by real phases when these explain its energy this well, eV/atom.
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


Parts = list[tuple[tuple[str, str], float]]  # ((phase id, formula), share), largest share first


class HullDistance(NamedTuple):
    """Where an energy lies relative to the hull."""

    e_above_hull_ev_per_atom: float  # signed: negative is below
    decomposition: tuple[Product, ...]  # largest share first


class Hull:
    """The lower convex hull of phases of one chemical system.

    Every element of the phases needs a phase of its own: raises InputError where one is missing.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self._given = phases
        compositions = [p.composition for p in phases]
        self.elements: tuple[str, ...] = tuple(sorted(_elements_in(compositions)))
        self._column = {el: column for column, el in enumerate(self.elements)}
        fractions = self.fractions(compositions)
        energies = np.array([p.energy_ev_per_atom for p in phases])
        lowest = _lowest_per_composition(phases, fractions, energies)
        pure, columns = np.nonzero(fractions[lowest] == 1.0)
        terminals = dict(zip(columns.tolist(), lowest[pure].tolist(), strict=True))
        missing = [el for el, column in self._column.items() if column not in terminals]
        if missing or not phases:
            raise InputError(
                f"no hull for {'-'.join(self.elements) or 'an empty system'}: no phase of "
                f"{', '.join(missing) or 'any element'}; add the elemental phases to the reference"
            )
        firsts = [terminals[column] for column in range(len(self.elements))]
        self.element_energies = energies[firsts]  # (n,)
        formation = energies - fractions @ self.element_energies
        formation[firsts] = 0.0
        deep = lowest[formation[lowest] < -FORMATION_TOLERANCE]
        self._build(np.concatenate([firsts, deep]).astype(int), fractions, formation)

    def _build(self, rows: np.ndarray, fractions: np.ndarray, formation: np.ndarray) -> None:
        """Facets and their planes from the given phases of these numbers, the elements first."""
        facets = _lower_facets(fractions[rows], formation[rows])
        corners, numbers = np.unique(facets, return_inverse=True)
        # Only corners are kept: phases above the hull are not needed again.
        rows = rows[corners]
        self._phases = [self._given[row] for row in rows]
        self._fraction_rows, self._formation = fractions[rows], formation[rows]  # (c, n), (c,)
        self._facets = numbers.reshape(facets.shape)  # (f, n) corner numbers
        # Chemical potentials of each facet, relative to the elements: plane at x is x @ potentials.
        self._potentials = np.linalg.solve(
            self._fraction_rows[self._facets], self._formation[self._facets][..., None]
        )[..., 0]
        # The plane of a sliver is ill-conditioned and may cut into the hull: it does not count.
        sound = np.ones(len(self._facets), dtype=bool)
        for part in _chunks(len(self._facets), len(corners)):
            excess = self._potentials[part] @ self._fraction_rows.T - self._formation
            sound[part] = excess.max(axis=1) <= SUPPORT_TOLERANCE
        self._facets, self._potentials = self._facets[sound], self._potentials[sound]

    @cached_property
    def stable_phases(self) -> tuple[Phase, ...]:
        """The corners of the hull, tie-line points included."""
        return tuple(self._phases[i] for i in np.unique(self._facets))

    @cached_property
    def facets(self) -> np.ndarray:
        """(f, n) numbers in `stable_phases` of the corners of every facet."""
        return np.unique(self._facets, return_inverse=True)[1].reshape(self._facets.shape)

    def fractions(self, compositions: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(m, n) atomic fractions in the order of `elements`.

        Raises InputError for an element outside the hull's system.
        """
        names = list(chain.from_iterable(compositions))
        columns = np.array([self._column.get(el, -1) for el in names], dtype=int)
        amounts = np.array(list(chain.from_iterable(c.values() for c in compositions)), dtype=float)
        rows = np.repeat(np.arange(len(compositions)), [len(c) for c in compositions])
        if len(odd := np.flatnonzero((columns < 0) & (amounts != 0))):
            raise self._outside(compositions[rows[odd[0]]])
        counts = np.zeros((len(compositions), len(self._column)))
        counts[rows[columns >= 0], columns[columns >= 0]] = amounts[columns >= 0]
        totals = counts.sum(axis=1, keepdims=True)
        if len(empty := np.flatnonzero(~(totals[:, 0] > 0))):
            raise self._outside(compositions[empty[0]])
        counts /= totals
        counts[counts < TRACE] = 0.0
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    def _outside(self, composition: Mapping[str, float]) -> InputError:
        system = "-".join(self.elements)
        return InputError(f"composition {dict(composition)} is not in the system {system}")

    def energies(self, fractions: np.ndarray) -> np.ndarray:
        """Hull energy, eV/atom, (m,), of compositions (m, n) in the order of `elements`."""
        return np.asarray(self._planes(fractions)[1] + fractions @ self.element_energies)

    def distance(self, composition: Mapping[str, float], energy_ev_per_atom: float) -> HullDistance:
        """Signed distance of an energy from the hull, and what the hull holds at its composition.

        Raises InputError for an element outside the hull's system.
        """
        return self.distances(self.fractions([composition]), np.array([energy_ev_per_atom]))[0]

    def distances(
        self, fractions: np.ndarray, energies_ev_per_atom: np.ndarray
    ) -> list[HullDistance]:
        """`distance` of many at once.

        fractions: (m, n), each row summing to one, in the order of `elements`; see `fractions`.
        energies_ev_per_atom: (m,).
        """
        heights, parts = self.heights(fractions, energies_ev_per_atom)
        return [
            HullDistance(height, products)
            for height, products in zip(heights.tolist(), _as_products(parts), strict=True)
        ]

    def heights(
        self, fractions: np.ndarray, energies_ev_per_atom: np.ndarray
    ) -> tuple[np.ndarray, list[Parts]]:
        """`distances` as plain numbers, for very many: heights (m,), eV/atom, and the parts."""
        facets, values = self._planes(fractions)
        heights = energies_ev_per_atom - (values + fractions @ self.element_energies)
        return heights, self._parts(fractions, facets)

    def height(self, composition: Mapping[str, float], energy_ev_per_atom: float) -> float:
        """Signed distance of an energy from the hull alone, eV/atom; raises as `distance`."""
        return float(energy_ev_per_atom - self.energies(self.fractions([composition]))[0])

    def decompose(self, composition: Mapping[str, float]) -> tuple[Product, ...]:
        """The phases of lowest energy at a composition, by share of atoms.

        A tie-line point is a height without a phase: it is replaced by real phases where these
        explain its energy within TIE_LINE_TOLERANCE, and called '(hull point) X' where not.
        """
        fractions = self.fractions([composition])
        return _as_products(self._parts(fractions, self._planes(fractions)[0]))[0]

    def _planes(self, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the highest plane over each composition, and its formation energy, eV/atom."""
        facets, values = np.empty(len(fractions), dtype=int), np.empty(len(fractions))
        for part in _chunks(len(fractions), len(self._facets)):
            table = fractions[part] @ self._potentials.T
            facets[part] = best = table.argmax(axis=1)
            values[part] = table[np.arange(len(best)), best]
        return facets, values

    def _parts(self, fractions: np.ndarray, facets: np.ndarray) -> list[Parts]:
        """The phases in equilibrium at each composition, and their shares."""
        corners, shares = self._splits(fractions, facets)
        # Shares equal but for rounding keep one order wherever they come from.
        order = np.lexsort((self._rank[corners], -np.round(shares, 9)), axis=-1)
        corners = np.take_along_axis(corners, order, axis=1)
        shares = np.take_along_axis(shares, order, axis=1)
        rows = [
            [(self._names[c], s) for c, s in zip(cs, ss, strict=True) if s > SHARE_TOLERANCE]
            for cs, ss in zip(corners.tolist(), np.minimum(shares, 1.0).tolist(), strict=True)
        ]
        if self._points.any():
            for row in np.flatnonzero(self._points[corners].any(axis=1)):
                rows[row] = self._only_real(corners[row].tolist(), shares[row].tolist())
        return rows

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        return [(p.phase_id, p.formula) for p in self._phases]

    @cached_property
    def _rank(self) -> np.ndarray:
        return np.argsort(np.argsort([p.phase_id for p in self._phases]))

    @cached_property
    def _points(self) -> np.ndarray:
        return np.array([not p.is_phase for p in self._phases])

    def _splits(self, fractions: np.ndarray, facets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, n) corners of the facet that holds each composition, and their shares."""
        corners = self._facets[facets]
        shares = _solve_shares(self._fraction_rows[corners], fractions)
        for row in np.flatnonzero(shares.min(axis=1) < -SHARE_TOLERANCE):
            corners[row], shares[row] = self._search(fractions[row])
        return corners, shares

    def _search(self, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The facet that holds one composition where several planes are equally high there."""
        order = np.argsort(-(self._potentials @ fractions), kind="stable")
        best, least = order[0], -np.inf
        for first in range(0, len(order), 64):
            numbers = order[first : first + 64]
            shares = _solve_shares(self._fraction_rows[self._facets[numbers]], fractions[None])
            smallest = shares.min(axis=1)
            winner = int(smallest.argmax())
            inside = np.flatnonzero(smallest >= -SHARE_TOLERANCE)
            winner = int(inside[0]) if len(inside) else winner
            if smallest[winner] > least:
                best, least, found = numbers[winner], float(smallest[winner]), shares[winner]
            if len(inside):
                break
        return self._facets[best], found

    @cached_property
    def _phases_only(self) -> Hull:
        return Hull([p for p in self._given if p.is_phase])

    def _only_real(self, corners: list[int], shares: list[float]) -> Parts:
        """Parts, with tie-line points replaced by real phases.

        A point stays where real phases do not explain its energy within TIE_LINE_TOLERANCE.
        """
        parts: dict[tuple[str, str], float] = {}
        for corner, share in zip(corners, shares, strict=True):
            if share > SHARE_TOLERANCE:
                for name, inner in self._real_parts(corner):
                    parts[name] = parts.get(name, 0.0) + share * inner
        return sorted(parts.items(), key=lambda pair: (-round(pair[1], 9), pair[0]))

    def _real_parts(self, corner: int) -> Parts:
        point = self._phases[corner]
        if point.is_phase:
            return [(self._names[corner], 1.0)]
        real = self._phases_only
        fractions = real.fractions([point.composition])
        energy = real.energies(fractions)[0]
        if energy - point.energy_ev_per_atom > TIE_LINE_TOLERANCE:
            return [((point.phase_id, f"(hull point) {point.formula}"), 1.0)]
        return real._parts(fractions, real._planes(fractions)[0])[0]


def _as_products(rows: Sequence[Parts]) -> list[tuple[Product, ...]]:
    plain = [
        [{"phase_id": i, "formula": formula, "fraction": share} for (i, formula), share in row]
        for row in rows
    ]
    return _products().validate_python(plain)  # a third faster than one by one


@cache
def _products() -> TypeAdapter[list[tuple[Product, ...]]]:
    return TypeAdapter(list[tuple[Product, ...]])


def _elements_in(compositions: Sequence[Mapping[str, float]]) -> set[str]:
    return {
        el
        for el in set().union(*compositions)
        if any(composition.get(el, 0.0) > 0 for composition in compositions)
    }


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows of a table that is too large to hold at once."""
    step = max(1, TABLE_SIZE // max(1, columns))
    return (slice(first, first + step) for first in range(0, rows, step))


def _solve_shares(corners: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """(m, n) shares of the corners (m, n, n) in compositions (m or 1, n)."""
    return np.asarray(np.linalg.solve(corners.transpose(0, 2, 1), fractions[..., None])[..., 0])


def _lowest_per_composition(
    phases: Sequence[Phase], fractions: np.ndarray, energies: np.ndarray
) -> np.ndarray:
    """Numbers of the lowest phase a composition; real before tie-line points, then by id."""
    if not len(phases):
        return np.empty(0, dtype=int)
    points = np.array([not p.is_phase for p in phases])
    cells = np.round(fractions / TRACE).astype(np.int64)
    order = np.lexsort((points, energies, *cells.T))
    change = (np.diff(cells[order], axis=0) != 0).any(axis=1)
    first = np.flatnonzero(np.concatenate([[True], change]))
    keys = np.column_stack([energies, points])[order]
    tied = ~change & (keys[1:] == keys[:-1]).all(axis=1)  # the id decides, rarely
    lowest = order[first]
    for number in np.flatnonzero(tied[first[first < len(tied)]]):
        start = stop = first[number]
        while stop < len(tied) and tied[stop]:
            stop += 1
        lowest[number] = min(order[start : stop + 1], key=lambda row: phases[row].phase_id)
    return np.asarray(lowest)


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
    # Facets without extent in composition are vertical: sides of the body, not its floor.
    extent = np.abs(np.linalg.det(fractions[simplices]))
    return np.asarray(simplices[extent > 1e-14])
