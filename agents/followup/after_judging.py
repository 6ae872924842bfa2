"""Assess judged candidates: suspects, probabilities, novelty, families, symmetrised cells."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hullward.models.errors import HullwardError
from hullward.models.language import checkpoint_name, model_card, nano_folder
from hullward.tools.records import Proposal
from hullward.tools.screening import (
    Screen,
    audit_new,
    explain_all,
    store_diagrams,
    store_families,
    store_suspects,
)
from hullward.tools.screening.shortlist import symmetrise_candidates
from hullward.tools.uncertainty import store_probabilities


def assess_candidates(
    screen: Screen, home: Path, proposals: Collection[Proposal] | None = None
) -> None:
    """Store suspects, phase diagrams, probabilities, novelty, families, overlap, symmetrised cells.

    home: where the user's own calibrators are kept.  proposals: those of the cycle that ends; None:
    look at everything.
    """
    with screen.hooks.timed("judge"):
        store_suspects(screen, proposals)
        if proposals is None or proposals:
            store_diagrams(screen)
    store_probabilities(screen, home)
    with screen.hooks.timed("match"):
        explain_all(screen)
        store_families(screen)
        audit_new(screen.store, model_folder)
    with screen.hooks.timed("symmetrise"):
        symmetrise_candidates(screen)


def model_folder(name: str) -> Path | None:
    """The folder of a model's files, or None where they are not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    try:
        if name == checkpoint_name(nano_folder()):
            return nano_folder()
        card = model_card(name)
    except HullwardError:
        return None
    return Path(card.source) if card.is_local else None
