"""What a campaign would try first, and what its reference lacks, without starting it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from hullward.agents.planning import SHOWN_FORMULAS
from hullward.agents.settings import Campaign, Machine
from hullward.agents.workspace import (
    check_elements,
    check_potentials,
    known_index,
    open_reference,
    reasons_of_formulas,
)
from hullward.models.potential import potential_card


@dataclass(frozen=True)
class Preview:
    """What a run would begin with.

    formulas: the first ones, each with the reason for its place.  fitting: how many there are.
    """

    systems: tuple[str, ...]
    operators: tuple[str, ...]
    cycles: int | None
    proposals_per_cycle: int
    max_atoms: int
    formulas: dict[str, str]
    fitting: int
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For a terminal."""
        first = [f"{n:>4}. {f}: {why}" for n, (f, why) in enumerate(self.formulas.items(), 1)]
        cycles = f"at most {self.cycles} cycles" if self.cycles else "cycles"
        return [
            f"systems:   {', '.join(self.systems)}",
            f"proposals: {cycles} of {self.proposals_per_cycle}, by {', '.join(self.operators)}; "
            f"at most {self.max_atoms} atoms in a cell",
            f"formulas:  {self.fitting:,} fit; tried first, and why:",
            *first,
            *self.notes,
        ]


def preview(campaign: Campaign, machine: Machine) -> Preview:
    """What a run of a campaign would begin with.

    Raises PreflightError and InputError as the run would.
    """
    check_potentials(campaign)
    notes: list[str] = []
    reasons = reasons_of_formulas(campaign, known_index(notes.append))
    reference = open_reference(campaign.reference, machine, campaign.target_systems)
    check_elements(campaign, potential_card(campaign.potential), reference, notes.append)
    return Preview(
        systems=campaign.systems or campaign.target_systems,
        operators=campaign.operators,
        cycles=campaign.budget.cycles,
        proposals_per_cycle=campaign.budget.proposals_per_cycle,
        max_atoms=campaign.max_atoms,
        formulas=dict(islice(reasons.items(), SHOWN_FORMULAS)),
        fitting=len(reasons),
        notes=notes,
    )
