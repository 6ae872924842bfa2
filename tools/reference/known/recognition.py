"""Whether a crystal is a known one, from its Wyckoff positions and its powder pattern.

Neither suffices: crystals may share their Wyckoff positions, and a displaced atom breaks the
symmetry. So the distance of the patterns, after a fitted strain, must be small, and how small
depends on what symmetry says. A crystal with clear symmetry of its own must have the entry's
Wyckoff positions. One without any, as displaced atoms leave it, must show them at some larger
tolerance, or come closer. `tests/benchmarks/known_index.py` measures it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.identity import PowderPattern, Protostructure, find_protostructure

RULE = 3  # changes with the limits below, so that what was recognised by others is looked at again
EXACT_A, USUAL_A = 0.01, 0.1  # tolerances at which an entry is described
CLEAR_A = (0.01, 0.03)  # symmetry within these is no accident of displaced atoms
PARTIAL_A = (0.06, 0.1)
DISPLACED_A = (0.15, 0.2)
COARSE_A = (0.3, 0.4, 0.5, 0.7)  # show the symmetry of displaced atoms, and that of near relatives
# Distances of patterns; displacing atoms by 0.08 Å (one sigma) makes 0.05 to 0.1.
FARTHEST_UNSTRAINED = 0.2
SAME_POSITIONS = 0.025  # of a crystal with clear symmetry, the entry's
SAME_RELAXED = 0.08  # as before, where it shows the entry's without any strain
SAME_RELAXED_LOW = 0.04  # as before, with less symmetry: there are more relatives
SAME_DISPLACED = 0.115  # of one without, that shows the entry's at a larger tolerance
NEAR = 0.02  # of one that never shows them, or where the entry has none to compare
NEAR_SYMMETRIC = 0.07  # as before, where the entry is orthorhombic or more: relatives show some
# Elsewhere 0.02 to 0.05 may be another ordering, if the exchange of two atoms changes the pattern
# as little, as that of oxygen and fluorine in rutile does. Where every exchange changes it more:
NEAR_UNEXCHANGED = 0.042  # at most
UNEXCHANGED = 0.45  # of the distance of the nearest exchange
NEAR_PARTIAL = 0.015  # as before, with some symmetry of its own
WITHIN_ROUNDING = 0.012  # what the rounding of a sketch makes; it leaves strains of up to 0.7 %
ONLY_STRAINED = 0.009  # of a crystal of which a strain has left the centres of inversion alone
SAME_UNRELAXED = 0.15  # of an arrangement that was relaxed since, with the same positions


CENTRES_ALONE = 2  # the group
ORTHORHOMBIC = 16  # the first such group


@dataclass(frozen=True)
class KnownFacts:
    """What is kept of a crystal.

    marks: of its Wyckoff positions at EXACT_A and USUAL_A.  sketch: of its powder pattern.
    """

    space_group: int  # at USUAL_A; 0 where none was found
    exact_group: int
    marks: tuple[int, int]  # 0 where no symmetry was found
    sketch: np.ndarray


class Sighting:
    """A crystal to be recognised; what is computed of it is kept.

    Raises ValueError where it has no powder pattern.
    """

    def __init__(self, crystal: Crystal) -> None:
        self._crystal = crystal
        self.pattern = PowderPattern(crystal)
        self._positions: dict[float, Protostructure | None] = {}

    @cached_property
    def facts(self) -> KnownFacts:
        usual, exact = self._at(USUAL_A), self._at(EXACT_A)
        return KnownFacts(
            usual.space_group if usual else 0,
            exact.space_group if exact else 0,
            (exact.mark if exact else 0, usual.mark if usual else 0),
            self.pattern.plain,
        )

    def distance(self, entry: KnownFacts) -> float | None:
        """Of the patterns, where the entry is the same structure; else None."""
        apart = float(np.linalg.norm(self.pattern.plain - entry.sketch))
        if apart > FARTHEST_UNSTRAINED:
            return None
        if apart < SAME_POSITIONS and self._shows(entry, CLEAR_A):
            return apart
        distance, strain = self.pattern.fit(entry.sketch)
        strained = _Strained(self._crystal, strain)
        return distance if self._is_same(entry, distance, strained) else None

    def is_arrangement(self, entry: KnownFacts) -> bool:
        """Whether the crystal is an arrangement that was described before it was relaxed."""
        return self._shows(entry, (*CLEAR_A, *PARTIAL_A)) and (
            self.pattern.fit(entry.sketch)[0] < SAME_UNRELAXED
        )

    def _is_same(self, entry: KnownFacts, distance: float, strained: _Strained) -> bool:
        if distance > SAME_DISPLACED:
            return False
        if self._symmetric(CLEAR_A):
            relaxed = SAME_RELAXED if entry.space_group >= ORTHORHOMBIC else SAME_RELAXED_LOW
            if distance < relaxed and self._shows(entry, (*CLEAR_A, *PARTIAL_A)):
                return True
            coarse = COARSE_A if distance < WITHIN_ROUNDING else ()
            some = (*CLEAR_A, *PARTIAL_A, *DISPLACED_A, *coarse)
            if distance < ONLY_STRAINED and self.facts.exact_group == CENTRES_ALONE:
                return True
            return distance < SAME_POSITIONS and self._either_shows(entry, strained, some)
        every = (*DISPLACED_A, *COARSE_A, *PARTIAL_A, *CLEAR_A)
        if self._symmetric(PARTIAL_A):
            return distance < NEAR_PARTIAL or self._either_shows(entry, strained, every)
        near = self._near(entry)
        if distance < near:
            return True
        if 1 in (entry.space_group, entry.exact_group):
            return False
        return self._either_shows(entry, strained, every)

    def _near(self, entry: KnownFacts) -> float:
        """Within what distance a crystal without symmetry is the entry, whatever that shows."""
        if entry.space_group >= ORTHORHOMBIC and entry.exact_group != 1:
            return NEAR_SYMMETRIC
        return max(NEAR, min(NEAR_UNEXCHANGED, UNEXCHANGED * self.pattern.nearest_exchange))

    def _either_shows(
        self, entry: KnownFacts, strained: _Strained, tolerances: tuple[float, ...]
    ) -> bool:
        return self._shows(entry, tolerances) or strained.shows(entry, tolerances)

    def _shows(self, entry: KnownFacts, tolerances: Iterable[float]) -> bool:
        return any(has_mark(self._at(t), entry) for t in tolerances)

    def _symmetric(self, tolerances: Iterable[float]) -> bool:
        trivial = 2 if self._crystal.n_atoms <= 2 else 1  # two atoms always have a centre between
        found = (self._at(tolerance) for tolerance in tolerances)
        return any(one is not None and one.space_group > trivial for one in found)

    def _at(self, tolerance: float) -> Protostructure | None:
        if tolerance not in self._positions:
            self._positions[tolerance] = find_protostructure(self._crystal, tolerance)
        return self._positions[tolerance]


@dataclass(frozen=True)
class _Strained:
    """The crystal with the strain that brings it nearest to an entry."""

    crystal: Crystal
    strain: np.ndarray

    def shows(self, entry: KnownFacts, tolerances: Iterable[float]) -> bool:
        lattice = np.array(self.crystal.lattice) @ (np.eye(3) + self.strain)
        moved = Crystal.from_arrays(lattice, self.crystal.species, self.crystal.frac_coords)
        return any(has_mark(find_protostructure(moved, t), entry) for t in tolerances)


def has_mark(positions: Protostructure | None, entry: KnownFacts) -> bool:
    """Whether these Wyckoff positions are the entry's at one of its tolerances."""
    return positions is not None and positions.mark in entry.marks
