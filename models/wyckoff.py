"""The 230 space groups as the asymmetric crystal text needs them: positions and operations.

Settings are those of the International Tables' standard choices: unique axis b, cell choice 1,
hexagonal axes for rhombohedral groups, the second origin where there are two. Positions come from
`data/wyckoff.json`, operations and centrings from moyopy. A position's free coordinates are the
letters x, y, z of its representative, as in 'x,1/4,z'.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np

# Which of a b c α β γ are free, by the shape of the cell; the others follow (`full_cell`).
CELL_PARAMETERS = {
    "triclinic": ("a", "b", "c", "alpha", "beta", "gamma"),
    "monoclinic": ("a", "b", "c", "beta"),
    "orthorhombic": ("a", "b", "c"),
    "tetragonal": ("a", "c"),
    "hexagonal": ("a", "c"),
    "cubic": ("a",),
}
_LAST_NUMBER = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "hexagonal": 194,  # trigonal groups among them
    "cubic": 230,
}


@dataclass(frozen=True)
class Position:
    """A Wyckoff position: points `linear @ v + shift` for free coordinates v.

    linear: (3, 3) integers, a column for each of x, y, z.  shift: (3,) fractions.
    """

    letter: str
    multiplicity: int  # in the conventional cell
    linear: np.ndarray
    shift: np.ndarray

    @property
    def name(self) -> str:
        """As written, e.g. '4c'."""
        return f"{self.multiplicity}{self.letter}"

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Which of x, y, z are free."""
        return tuple(int(i) for i in np.flatnonzero(np.any(self.linear != 0, axis=0)))


def cell_system(space_group: int) -> str:
    """Shape of the conventional cell, a key of CELL_PARAMETERS. Raises ValueError beyond 1..230."""
    if not 1 <= space_group <= 230:
        raise ValueError(f"space group {space_group}: numbers run from 1 to 230")
    return next(name for name, last in _LAST_NUMBER.items() if space_group <= last)


@cache
def positions(space_group: int) -> dict[str, Position]:
    """The Wyckoff positions of a space group by name, letter a first.

    Raises ValueError beyond 1..230.
    """
    cell_system(space_group)
    found = [_position(word) for word in _table()[str(space_group)].split()]
    return {position.name: position for position in found}


@cache
def operations(space_group: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, 3) rotations and (n, 3) translations, those of the centring included."""
    import moyopy

    found = moyopy.operations_from_number(space_group, setting=moyopy.Setting.standard())
    return np.array(found.rotations), np.array(found.translations, dtype=float)


@cache
def primitive_basis(space_group: int) -> np.ndarray:
    """(3, 3): rows are primitive vectors in terms of the conventional ones."""
    rotations, translations = operations(space_group)
    pure = np.rint(12 * translations[(rotations == np.eye(3)).all((1, 2))]).astype(int) % 12
    shifts = frozenset(map(tuple, pure.tolist())) - {(0, 0, 0)}
    bases: dict[frozenset[tuple[int, ...]], object] = {  # of P C A I F R, by twelfths of a cell
        frozenset(): np.eye(3),
        frozenset({(6, 6, 0)}): [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]],
        frozenset({(0, 6, 6)}): [[1, 0, 0], [0, 0.5, 0.5], [0, -0.5, 0.5]],
        frozenset({(6, 6, 6)}): [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]],
        frozenset({(0, 6, 6), (6, 0, 6), (6, 6, 0)}): [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        frozenset({(8, 4, 4), (4, 8, 8)}): np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3,
    }
    return np.array(bases[shifts])


@cache
def _table() -> dict[str, str]:
    table = json.loads((files("hullward.data") / "wyckoff.json").read_text(encoding="utf-8"))
    return dict(table["positions"])


def _position(word: str) -> Position:
    """From e.g. '4c:x,1/4,z'."""
    name, coordinates = word.split(":")
    letter = name[-1]
    linear, shift = np.zeros((3, 3), dtype=int), np.zeros(3)
    for row, text in enumerate(coordinates.split(",")):
        for term in text.replace("-", "+-").split("+"):
            if not term:
                continue
            if term[-1] in "xyz":
                factor = term[:-1]
                linear[row, "xyz".index(term[-1])] += int({"": "1", "-": "-1"}.get(factor, factor))
            else:
                top, _, bottom = term.partition("/")
                shift[row] += int(top) / int(bottom or 1)
    linear.flags.writeable = shift.flags.writeable = False
    return Position(letter=letter, multiplicity=int(name[:-1]), linear=linear, shift=shift)
