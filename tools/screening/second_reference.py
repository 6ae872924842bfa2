"""A second reference beside the first: heights are given over both, and only the first decides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hullward.tools.hull import Reference
from hullward.tools.records import SecondReference
from hullward.tools.screening.labels import KnownStructures


@dataclass(frozen=True, kw_only=True)
class SecondReferenceJudge:
    """The second reference, and what is stored of it."""

    reference: Reference
    basis: SecondReference

    @cached_property
    def known(self) -> KnownStructures:
        return KnownStructures(self.reference)
