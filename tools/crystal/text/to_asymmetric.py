"""The asymmetric unit of a crystal, always the same whatever its cell.

Symmetry leaves a choice of origin and axes (the Euclidean normaliser), which would be noise to a
generator. Of all equivalent descriptions this takes the one whose elements, from the most
electropositive on, have the first Wyckoff letters, then the smallest coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from hullward.models import wyckoff
from hullward.models.crystal import Crystal, lattice_parameters
from hullward.tools.crystal.symmetry import find_symmetry
from hullward.tools.crystal.text.asymmetric import AsymmetricUnit, Orbit

_OFF = 1e-3  # fraction of a cell edge by which a refined site may be off its position
_NEVER = 10**7  # larger than any code of three coordinates


def electropositive_first(symbols: Sequence[str]) -> list[str]:
    """Distinct symbols in the order of formulas: 'Li', 'P', 'O'. Noble gases lead."""
    return sorted(set(symbols), key=_electropositivity)


@cache
def _electropositivity(symbol: str) -> tuple[float, str]:
    from pymatgen.core import Element

    return Element(symbol).data.get("X") or 0.0, symbol


def asymmetric_unit(crystal: Crystal, symprec_a: float = 0.1) -> AsymmetricUnit:
    """The crystal's asymmetric unit at a distance tolerance in Å, coordinates in hundredths.

    Raises ValueError if no symmetry is found or rounding would merge sites.
    """
    from ase.data import chemical_symbols

    found = find_symmetry(crystal, symprec_a, standard_setting=True)
    species = [chemical_symbols[z] for z in found.std_cell.numbers]
    normaliser = found.normalizer_wyckoff_positions()
    order = electropositive_first(species)
    cosets = normaliser.coset_representatives
    letters = [_letters(species, sequence, order) for _, sequence in cosets]
    points = np.array(found.std_cell.positions)
    matrix = np.array(found.std_cell.basis)
    best, choices = min(letters), []
    for (representative, sequence), own in zip(cosets, letters, strict=True):
        if own == best:
            named = [
                (order.index(s), w.letter, w.multiplicity)
                for s, w in zip(species, sequence, strict=True)
            ]
            choices.append(
                _smallest(
                    found.number, points, matrix, named, normaliser.stabilizer, representative
                )
            )
    codes, basis, groups = min(choices, key=lambda choice: choice[0])
    orbits = []
    for code, (element, name) in zip(codes, groups, strict=True):
        free = wyckoff.positions(found.number)[name].free
        values = [code // 10**4, code // 100 % 100, code % 100][3 - len(free) :]
        orbits.append(Orbit(order[element], name, tuple(map(int, values))))
    return AsymmetricUnit(found.number, tuple(orbits), _parameters(found.number, basis))


def _letters(species: list[str], sequence: Any, order: list[str]) -> list[list[int]]:
    """For each element the sorted ranks of its positions' letters, the key that is minimised."""
    taken: dict[str, list[int]] = {symbol: [] for symbol in order}
    for symbol, position in zip(species, sequence, strict=True):
        taken[symbol].append(_rank(position.letter))
    return [sorted(taken[symbol]) for symbol in order]


def _rank(letter: str) -> int:
    return 26 if letter == "A" else ord(letter) - ord("a")  # A follows z


def _smallest(
    number: int,
    points: np.ndarray,
    matrix: np.ndarray,
    named: list[tuple[int, str, int]],
    stabilizer: Any,
    representative: Any,
) -> tuple[tuple[int, ...], np.ndarray, list[tuple[int, str]]]:
    """(codes of the free coordinates, (3, 3) cell, (element, position) of each orbit).

    points: (n, 3) of the standard cell.  named: element, letter and multiplicity of each point.
    """
    shifts = _polar_shifts(number, points, named)
    moved = points[None, :, :] - shifts[:, None, :]  # (k, n, 3)
    linear = np.array([op.linear for op in stabilizer], dtype=float)
    origin = np.array([op.origin_shift for op in stabilizer], dtype=float)
    inverse = np.linalg.inv(linear)
    moved = np.einsum("oij,oknj->okni", inverse, moved[None] - origin[:, None, None, :])
    # moyopy's sequence applies after x -> linear x + shift
    second = np.array(representative.linear, dtype=float)
    moved = moved @ second.T + np.array(representative.origin_shift)
    n_ops, n_shifts = moved.shape[:2]
    moved = moved.reshape(n_ops * n_shifts, len(points), 3)
    bases = [(matrix.T @ op @ np.linalg.inv(second)).T for op in linear]  # rows are the vectors
    columns: list[np.ndarray] = []
    groups: list[tuple[int, str]] = []
    table = wyckoff.positions(number)
    for kind in sorted(set(named), key=lambda k: (k[0], _rank(k[1]))):
        element, letter, multiplicity = kind
        position = table[f"{multiplicity}{letter}"]
        members = [i for i, other in enumerate(named) if other == kind]
        codes = _codes(position, moved[:, members])  # (variants, members)
        for orbit in _orbits(number, points[members], multiplicity):
            columns.append(codes[:, orbit].min(axis=1))
            groups.append((element, position.name))
        same = [i for i, g in enumerate(groups) if g == (element, position.name)]
        block = np.sort(np.column_stack([columns[i] for i in same]), axis=1)
        for k, i in enumerate(same):
            columns[i] = block[:, k]
    keys = np.column_stack(columns)
    rows = keys[keys.max(axis=1) < _NEVER]
    if not len(rows):
        raise ValueError(f"space group {number}: sites are off the positions assigned to them")
    variants = np.flatnonzero(keys.max(axis=1) < _NEVER)
    first = variants[np.lexsort(rows.T[::-1])[0]]
    return tuple(map(int, keys[first])), bases[first // n_shifts], groups


def _codes(position: wyckoff.Position, points: np.ndarray) -> np.ndarray:
    """Free coordinates in hundredths packed in one number, for (v, m, 3) points; (v, m)."""
    free = position.free
    values = np.zeros(points.shape)
    for axis in free:
        row = next(
            r
            for r in range(3)
            if abs(position.linear[r, axis]) == 1 and np.abs(position.linear[r]).sum() == 1
        )
        values[..., axis] = (points[..., row] - position.shift[row]) * position.linear[row, axis]
    missed = points - (values @ position.linear.T + position.shift)
    missed = np.abs((missed + 0.5) % 1.0 - 0.5).max(axis=-1)
    hundredths = np.rint(values * 100).astype(int) % 100
    code = np.zeros(points.shape[:2], dtype=int)
    for axis in free:
        code = code * 100 + hundredths[..., axis]
    return np.where(missed < _OFF, code, _NEVER)


def _orbits(number: int, points: np.ndarray, multiplicity: int) -> list[list[int]]:
    """Indices of the (m, 3) points of each orbit."""
    if len(points) == multiplicity:
        return [list(range(multiplicity))]
    rotations, translations = wyckoff.operations(number)
    left = list(range(len(points)))
    orbits = []
    while left:
        images = rotations @ points[left[0]] + translations
        apart = images[:, None, :] - points[left][None, :, :]
        near = (np.abs((apart + 0.5) % 1.0 - 0.5).max(axis=-1) < 2 * _OFF).any(axis=0)
        orbits.append([i for i, hit in zip(left, near, strict=True) if hit])
        left = [i for i, hit in zip(left, near, strict=True) if not hit]
        if len(orbits[-1]) != multiplicity:
            raise ValueError(f"space group {number}: an orbit of {len(orbits[-1])} sites")
    return orbits


def _polar_shifts(number: int, points: np.ndarray, named: list[tuple[int, str, int]]) -> np.ndarray:
    """(k, 3) origins to try: along polar axes a site of the first kind, as the origin is free."""
    rotations, _ = wyckoff.operations(number)
    polar = np.all(rotations @ np.eye(3, dtype=int) == np.eye(3, dtype=int), axis=(0, 1))
    if not polar.any():
        return np.zeros((1, 3))
    first = min(named, key=lambda k: (k[0], _rank(k[1])))
    sites = points[[i for i, kind in enumerate(named) if kind == first]]
    return np.unique(np.round(sites * polar, 6), axis=0)


def _parameters(number: int, basis: np.ndarray) -> tuple[float, ...]:
    lengths, angles = lattice_parameters(basis)
    cell = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), (*lengths, *angles), strict=True))
    return tuple(cell[name] for name in wyckoff.CELL_PARAMETERS[wyckoff.cell_system(number)])
