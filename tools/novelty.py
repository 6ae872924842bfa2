"""Is this crystal known, or has this campaign seen it already?

Identical content is looked up; other settings of the same crystal are found by pymatgen's
StructureMatcher among entries of the same reduced formula. There is no fingerprint in between:
none is proven never to part two structures the matcher would join, and formulas alone leave few
pairs to compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.records import Label
from hullward.tools.validate import compact_cell, plane_spacings_a

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.core.structure_matcher import StructureMatcher

# What is compared by content only, because reduction and matcher would take minutes and gigabytes:
# primitive cells with more sites than this (time grows with the cube of the sites and more),
MAX_MATCHED_SITES = 200
# needles and sheets with more lattice points than this within 1.2 of the longest edge,
MAX_LATTICE_POINTS = 20_000
# and cells thinner than any crystal's.
THINNEST_A = 0.5
# rms values closer than this tie, and the entry added first wins.
RMS_DIGITS = 6
# What reduction and matcher raise on degenerate cells (LinAlgError is a ValueError).
MATCHER_ERRORS = (ValueError, ArithmeticError, IndexError, RuntimeError)


@dataclass(frozen=True)
class Match:
    """An entry that is the same crystal."""

    match_id: str
    rms_a: float | None  # rms displacement over (V/n)^(1/3), no unit; None for identical content


@dataclass(frozen=True)
class _Entry:
    """A crystal by name; reduced once, when first compared."""

    entry_id: str
    crystal: Crystal

    @cached_property
    def reduced(self) -> Structure | None:
        """Primitive Niggli cell with sites sorted by element, None where it cannot be compared."""
        matrix = compact_cell(np.array(self.crystal.lattice))
        volume = abs(float(np.linalg.det(matrix)))
        sphere = 4 / 3 * math.pi * (1.2 * float(np.linalg.norm(matrix, axis=1).max())) ** 3
        if plane_spacings_a(matrix).min() < THINNEST_A or sphere > MAX_LATTICE_POINTS * volume:
            return None
        try:
            structure = self.crystal.to_structure().get_sorted_structure()
            reduced = structure.get_reduced_structure("niggli").get_primitive_structure()
        except MATCHER_ERRORS:
            return None
        return reduced if len(reduced) <= MAX_MATCHED_SITES else None


class Library:
    """Crystals by name, searched by structure.

    Matches are those of `StructureMatcher.fit` with pymatgen's defaults: lengths within 20 %,
    sites within 0.3 (V/n)^(1/3), angles within 5 degrees, primitive cells scaled to one volume.
    Mirror images match. Cells beyond MAX_MATCHED_SITES, MAX_LATTICE_POINTS or THINNEST_A, or that
    cannot be reduced, match identical content only.
    """

    def __init__(self, entries: Iterable[tuple[str, Crystal]] = ()) -> None:
        self._by_content: dict[str, str] = {}
        self._by_formula: dict[str, list[_Entry]] = {}
        for entry_id, crystal in entries:
            self.add(entry_id, crystal)

    def __len__(self) -> int:
        return len(self._by_content)

    def add(self, entry_id: str, crystal: Crystal) -> None:
        """Remember a crystal; content that is already here keeps its first name."""
        if crystal.content_id in self._by_content:
            return
        self._by_content[crystal.content_id] = entry_id
        self._by_formula.setdefault(crystal.formula, []).append(_Entry(entry_id, crystal))

    def match(self, crystal: Crystal) -> Match | None:
        """The same crystal in here: identical content first, else the smallest rms."""
        if found := self._by_content.get(crystal.content_id):
            return Match(found, None)
        query = _Entry("", crystal)
        best: Match | None = None
        for entry in self._by_formula.get(crystal.formula, ()):
            rms = _rms(entry, query)
            if rms is not None and (best is None or best.rms_a is None or rms < best.rms_a):
                best = Match(entry.entry_id, rms)
        return best


def label(
    proposal_id: str,
    crystal: Crystal,
    known: Library,
    seen: Library,
    moment: Literal["before", "after"],
) -> Label | None:
    """Say whether a crystal is a known phase or, failing that, a duplicate within the campaign.

    known: reference and user phases.  seen: what this campaign had before, by candidate id.
    """
    for kind, library in (("known", known), ("duplicate", seen)):
        if match := library.match(crystal):
            return Label.model_validate(
                {
                    "proposal_id": proposal_id,
                    "moment": moment,
                    "kind": kind,
                    "match_id": match.match_id,
                    "rms_a": match.rms_a,
                }
            )
    return None


@cache
def _matcher() -> StructureMatcher:
    """Told not to reduce: both structures already are."""
    from pymatgen.core.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5, primitive_cell=False, scale=True)


def _rms(entry: _Entry, query: _Entry) -> float | None:
    """Normalised rms displacement where the two fit, rounded; None where they do not."""
    one, two = entry.reduced, query.reduced
    if one is None or two is None or len(one) != len(two):
        return None
    matcher = _matcher()
    try:
        if not matcher.fit(one, two, skip_structure_reduction=True):
            return None
        result = matcher.get_rms_dist(one, two)
    except MATCHER_ERRORS:
        return None
    return None if result is None else round(float(result[0]), RMS_DIGITS)
