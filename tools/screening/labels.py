"""Label crystals that match a known phase or an earlier candidate."""

from __future__ import annotations

from typing import Literal

from hullward.models.crystal import Crystal
from hullward.tools.crystal import StructureLibrary
from hullward.tools.records import Label


def label(
    proposal_id: str,
    crystal: Crystal,
    known: StructureLibrary,
    seen: StructureLibrary,
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
