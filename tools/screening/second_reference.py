"""A second reference beside the first: heights are given over both, and only the first decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hullward.models.crystal import Crystal
from hullward.models.potential import PotentialCard
from hullward.tools.crystal import StructureLibrary
from hullward.tools.hull import Reference
from hullward.tools.records import Candidate, Relaxation, SecondReference, Verdict, VerdictLabel
from hullward.tools.screening.verdicts import judge


@dataclass(kw_only=True)
class SecondReferenceJudge:
    """The second reference, and what is stored of it."""

    reference: Reference
    basis: SecondReference
    _known: dict[str, StructureLibrary] = field(default_factory=dict)

    def verdicts(
        self,
        stored: Iterable[Verdict],
        relaxed: Sequence[tuple[Candidate, Relaxation]],
        threshold_ev_per_atom: float,
        card: PotentialCard,
    ) -> list[Verdict]:
        """Verdicts over the second reference that are not stored yet."""
        mine = (self.reference.reference_id, self.reference.version)
        judged = {
            v.relaxation_id: v
            for v in stored
            if v.height == "reference" and (v.reference_id, v.reference_version) == mine
        }
        found = []
        for candidate, relaxation in relaxed:
            if not needs_verdict(candidate, judged.get(relaxation.relaxation_id), self.reference):
                continue
            assert relaxation.crystal is not None  # a converged relaxation has a structure
            chemsys = candidate.chemsys
            if chemsys not in self._known:
                self._known[chemsys] = structure_library(self.reference, chemsys)
            match = self._known[chemsys].match(relaxation.crystal)
            found.append(
                judge(
                    relaxation,
                    candidate,
                    self.reference,
                    threshold_ev_per_atom=threshold_ev_per_atom,
                    rediscovered=match.match_id if match else None,
                    second_look="not_needed",  # the first reference decides who is looked at again
                    typical_error_ev_per_atom=card.typical_error_ev_per_atom,
                )
            )
        return found


def needs_verdict(candidate: Candidate, verdict: Verdict | None, reference: Reference) -> bool:
    """Whether there is no verdict, or one that waited for a hull which is there now."""
    if verdict is None:
        return True
    waited = verdict.label == VerdictLabel.HULL_PENDING
    return waited and not reference.lacking(frozenset(candidate.crystal.species))


def structure_library(
    reference: Reference, chemsys: str, more: Sequence[tuple[str, Crystal]] = ()
) -> StructureLibrary:
    """Known phases of exactly this system."""
    phases = [*reference.library_entries(chemsys), *more]
    return StructureLibrary((i, crystal) for i, crystal in phases if crystal.chemsys == chemsys)
