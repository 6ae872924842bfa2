"""What is looked at once everything is judged: suspects, what candidates are, what was learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hullward.agents.settings import read_machine
from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError
from hullward.models.language import checkpoint_name, model_card, nano_folder
from hullward.tools.records import Relaxation
from hullward.tools.relax import relax_cached
from hullward.tools.screening import Relax, Screen, audit, explain_all, store_suspects
from hullward.tools.uncertainty import store_probabilities


def assess_candidates(screen: Screen) -> None:
    """Suspects with why, probabilities, an explanation for each candidate, the audit of leaks."""
    with screen.timed("judge"):
        store_suspects(screen.store, screen.basis, screen.reference, _rattled(screen))
    store_probabilities(screen, read_machine().home_folder)
    with screen.timed("match"):
        explain_all(screen.store, screen.reference, screen.user_phases)
        audit(screen.store, model_folder)


def model_folder(name: str) -> Path | None:
    """Where a model's files are, None where they are not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    try:
        if name == checkpoint_name(nano_folder()):
            return nano_folder()
        card = model_card(name)
    except HullwardError:
        return None
    return Path(card.source) if card.is_local else None


def _rattled(screen: Screen) -> Relax:
    def relax(jobs: Sequence[tuple[str, Crystal]], rattle_a: float) -> Iterable[Relaxation]:
        if not jobs or screen.stopping():
            return ()
        protocol = screen.basis.protocol.model_copy(update={"rattle_a": rattle_a})
        return relax_cached(jobs, screen.card.name, protocol, screen.home, screen.workers)

    return relax
