"""Structure types with places for elements, formula by formula: of textbooks, and as tried.

Of the phases that textbooks name only the type is known; free parameters are those of the type.

What the embedded reference tried is found by following its recipe again, without relaxing anything.
Most systems were built before the last structure types were added. So of a formula that would get
more trials today than its manifest counts, the types that nano wrote are left out, and our own, if
there are still too many.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hullward.models.crystal import Crystal
from hullward.tools.crystal.identity import packed
from hullward.tools.prototypes import NANO_PREFIX, TextbookPhase, textbook_phases
from hullward.tools.reference.known.recognition import KnownFacts, Sighting
from hullward.tools.reference.recipe import Trial, all_trials
from hullward.tools.reference.sources import BuiltPhases, read_embedded

log = logging.getLogger(__name__)


@dataclass
class Arrangements:
    """Structure types with places for elements, and the formulas that have them.

    types, facts: one an arrangement.  textbook, tried: numbers of arrangements by formula, of
    phases that textbooks name and of what the embedded reference tried.
    """

    types: list[str] = field(default_factory=list)
    facts: list[KnownFacts] = field(default_factory=list)
    textbook: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tried: dict[str, tuple[int, ...]] = field(default_factory=dict)


class ArrangementCollector:
    """Collects distinct arrangements; equal ones of several structure types count once."""

    def __init__(self) -> None:
        self.found = Arrangements()
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._described: dict[tuple[object, ...], int | None] = {}

    def add_textbook(self, phases: Iterable[TextbookPhase]) -> None:
        """Add the phases that textbooks name."""
        groups: dict[str, list[int | None]] = defaultdict(list)
        for phase in phases:
            groups[phase.crystal.formula].append(
                self._number(f"{phase.type_name} type", phase.crystal)
            )
        self._store(self.found.textbook, groups)

    def add_tried(self, formula: str, trials: Iterable[Trial]) -> None:
        """Add what was tried for a formula."""
        numbers = [
            self._number(trial.prototype.removeprefix("split:"), trial.crystal) for trial in trials
        ]
        self._store(self.found.tried, {formula: numbers})

    def _store(
        self, where: dict[str, tuple[int, ...]], groups: Mapping[str, Iterable[int | None]]
    ) -> None:
        for formula, numbers in groups.items():
            if distinct := {n for n in numbers if n is not None}:
                where[formula] = tuple(sorted(distinct))

    def _number(self, name: str, crystal: Crystal) -> int | None:
        """A type is scaled as a whole, so its facts depend on the order of its elements alone."""
        symbols = sorted(set(crystal.species))
        places = tuple(np.round(np.array(crystal.frac_coords), 4).ravel().tolist())
        key = (name, tuple(symbols.index(s) for s in crystal.species), places)
        if key not in self._described:
            self._described[key] = self._describe(name, crystal)
        return self._described[key]

    def _describe(self, name: str, crystal: Crystal) -> int | None:
        try:
            facts = Sighting(crystal).facts
        except ValueError:
            return None
        same = (facts.marks[1], packed(facts.sketch).tobytes())
        if same not in self._numbers:
            self._numbers[same] = len(self.found.types)
            self.found.types.append(name)
            self.found.facts.append(facts)
        return self._numbers[same]


def known_arrangements() -> Arrangements:
    """The phases of textbooks, and every distinct arrangement the embedded reference tried."""
    source = read_embedded().source
    assert isinstance(source, BuiltPhases)
    systems = source.manifest.systems
    collector = ArrangementCollector()
    collector.add_textbook(textbook_phases())
    for done, (system, facts) in enumerate(systems.items(), start=1):
        elements = system.split("-")
        groups: dict[str, list[Trial]] = defaultdict(list)
        if len(elements) > 1:
            for trial in all_trials(elements, facts.tried_formulas):
                groups[trial.crystal.formula].append(trial)
        for formula, group in groups.items():
            collector.add_tried(formula, as_many(group, facts.tried_formulas.get(formula, 0)))
        if done % 50 == 0:
            log.info("arrangements of %d systems of %d", done, len(systems))
    return collector.found


def as_many(group: list[Trial], count: int) -> list[Trial]:
    """The trials of a formula, without the kinds of types that were added after its `count`."""
    for prefix in (NANO_PREFIX, "own:"):
        if len(group) > count:
            group = [trial for trial in group if not trial.prototype.startswith(prefix)]
    return group if count else []
