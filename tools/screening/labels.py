"""Label crystals that match a known phase or an earlier candidate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from hullward.models.crystal import Crystal
from hullward.tools.crystal import StructureLibrary
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Reference
from hullward.tools.records import Label

Moment = Literal["before", "after"]  # relaxation
Kind = Literal["known", "duplicate"]


class KnownStructures:
    """Structures of known phases, a library for each chemical system, built on first use."""

    def __init__(self, reference: Reference, user_phases: KnownPhases | None = None) -> None:
        self._reference = reference
        self._user_phases = user_phases or KnownPhases()
        self._libraries: dict[str, StructureLibrary] = {}

    def of(self, chemsys: str) -> StructureLibrary:
        """Known phases of exactly this system, the reference's and the user's."""
        if chemsys not in self._libraries:
            phases = self._reference.library_entries(chemsys)
            self._libraries[chemsys] = StructureLibrary(
                (i, crystal)
                for i, crystal in (*phases, *self._user_phases.of(chemsys))
                if crystal.chemsys == chemsys
            )
        return self._libraries[chemsys]

    def match_id(self, crystal: Crystal) -> str | None:
        """The id of the known phase that a crystal matches, if any."""
        match = self.of(crystal.chemsys).match(crystal)
        return match.match_id if match else None


def label(
    proposal_id: str,
    crystal: Crystal,
    known: StructureLibrary,
    seen: StructureLibrary,
    moment: Moment,
) -> Label | None:
    """Label a crystal as a known phase or, failing that, as a duplicate within the campaign.

    known: reference and user phases.  seen: earlier candidates of this campaign, by id.
    """
    libraries: dict[Kind, StructureLibrary] = {"known": known, "duplicate": seen}
    for kind, library in libraries.items():
        if match := library.match(crystal):
            return Label(
                proposal_id=proposal_id,
                moment=moment,
                kind=kind,
                match_id=match.match_id,
                rms_a=match.rms_a,
            )
    return None


def new_labels(
    rows: Iterable[tuple[str, str, Crystal]],
    asked: Collection[str],
    stored: Iterable[Label],
    known: KnownStructures,
    moment: Moment,
) -> Iterator[Label | None]:
    """One item a row: its new label, or None where it has one, needs none or matches nothing.

    rows: (proposal id, candidate id, crystal) of the whole campaign in the order of proposing,
    which decides who is the duplicate.  asked: proposal ids to label.
    """
    kinds = {x.proposal_id: x.kind for x in stored if x.moment == moment}
    seen = StructureLibrary()
    for proposal_id, candidate_id, crystal in rows:
        kind, found = kinds.get(proposal_id), None
        if kind is None and proposal_id in asked:
            found = label(proposal_id, crystal, known.of(crystal.chemsys), seen, moment)
            kind = found.kind if found else None
        if kind != "duplicate":
            seen.add(candidate_id, crystal)
        yield found
