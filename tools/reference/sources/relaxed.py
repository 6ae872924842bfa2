"""The document `hullward relax --json` writes, read as entries to be judged.

Its energies are a potential's own and final. A relaxation that did not converge has no height; its
place in the answer holds the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import PotentialCard, potential_card
from hullward.tools.hull import Phase
from hullward.tools.records import Protocol
from hullward.tools.store import sealed


class EntryWithoutEnergy(NamedTuple):
    """A relaxation of the document that gave no energy to judge."""

    row: int  # its place in the document
    name: str
    formula: str  # '' where no structure was read
    reason: str


class RelaxedEntries(NamedTuple):
    """The content of such a document."""

    phases: Sequence[Phase]
    without_energy: Sequence[EntryWithoutEnergy]
    card: PotentialCard
    protocol: Protocol


def is_relaxed_document(content: object) -> bool:
    """Whether a JSON document is one that `hullward relax` writes."""
    return isinstance(content, dict) and {"potential", "protocol", "results"} <= content.keys()


def relaxed_entries(document: Mapping[str, Any], name: str) -> RelaxedEntries:
    """Phases, eV/atom, in the order of the document; names made distinct where they repeat.

    Raises InputError, with the row, for a document that was changed or cut short.
    """
    content = {key: value for key, value in document.items() if key != "sum"}
    if "sum" in document and json.loads(sealed(json.dumps(content))) != document:
        raise InputError(
            f"{name}: its checksum differs, so it was changed after `hullward relax` wrote it; "
            'write it again, or remove "sum" if the change was meant'
        )
    try:
        card = potential_card(document["potential"])
        protocol = Protocol.model_validate(document["protocol"])
    except (ValidationError, TypeError) as error:
        raise InputError(f"{name}: protocol or potential cannot be read") from error
    phases: list[Phase] = []
    without_energy: list[EntryWithoutEnergy] = []
    times: dict[str, int] = {}
    for number, row in enumerate(document["results"]):
        try:
            source = str(row["source"])
            times[source] = times.get(source, 0) + 1
            label = source if times[source] == 1 else f"{source}#{times[source]}"
            formula = str(row.get("formula") or "")
            if not row["converged"]:
                reason = row.get("failure") or "did not converge"
                detail = row.get("detail")
                without_energy.append(
                    EntryWithoutEnergy(
                        number, label, formula, f"{reason}: {detail}" if detail else reason
                    )
                )
                continue
            crystal = Crystal.model_validate(row["crystal"])
            phases.append(
                Phase(
                    phase_id=label,
                    formula=crystal.formula,
                    composition=crystal.amounts,
                    energy_ev_per_atom=row["energy_ev_per_atom"],
                    crystal=crystal,
                    source=f"{name}#{number + 1}",
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{name}#{number + 1}: not a row of `hullward relax --json` ({error})"
            ) from None
    return RelaxedEntries(phases, without_energy, card, protocol)
