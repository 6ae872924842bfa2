"""What the embedded reference tried: every structure type with its elements, formula by formula.

Its recipe is followed again without relaxing anything. Most systems were built before the last
structure types were added. So of a formula that would get more trials today than its manifest
counts, the types that nano wrote are left out, and our own, if there are still too many.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from hullward.models.crystal import Crystal
from hullward.tools.crystal.identity import packed
from hullward.tools.prototypes import NANO_PREFIX
from hullward.tools.reference.known.recognition import KnownFacts, Sighting
from hullward.tools.reference.recipe import Trial, all_trials
from hullward.tools.reference.sources import BuiltPhases, read_embedded

log = logging.getLogger(__name__)


@dataclass
class Arrangements:
    """Structure types with places for elements, and which were tried for which formula.

    types, facts: one an arrangement.  tried: numbers of arrangements by formula.
    """

    types: list[str] = field(default_factory=list)
    facts: list[KnownFacts] = field(default_factory=list)
    tried: dict[str, tuple[int, ...]] = field(default_factory=dict)


class TriedArrangements:
    """Collects distinct arrangements; equal ones of several structure types count once."""

    def __init__(self) -> None:
        self.found = Arrangements()
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._described: dict[tuple[str, tuple[int, ...]], int | None] = {}

    def add(self, formula: str, tried: Iterable[Trial]) -> None:
        """Add what was tried for a formula."""
        numbers = {self._number(trial) for trial in tried} - {None}
        if numbers:
            self.found.tried[formula] = tuple(sorted(n for n in numbers if n is not None))

    def _number(self, trial: Trial) -> int | None:
        """A type is scaled as a whole, so its facts depend on the order of its elements alone."""
        symbols = sorted(set(trial.crystal.species))
        key = (trial.prototype, tuple(symbols.index(s) for s in trial.crystal.species))
        if key not in self._described:
            self._described[key] = self._describe(trial.prototype, trial.crystal)
        return self._described[key]

    def _describe(self, name: str, crystal: Crystal) -> int | None:
        try:
            facts = Sighting(crystal).facts
        except ValueError:
            return None
        same = (facts.marks[1], packed(facts.sketch).tobytes())
        if same not in self._numbers:
            self._numbers[same] = len(self.found.types)
            self.found.types.append(name.removeprefix("split:"))
            self.found.facts.append(facts)
        return self._numbers[same]


def tried_arrangements() -> Arrangements:
    """Every distinct arrangement of compounds that the embedded reference tried."""
    source = read_embedded().source
    assert isinstance(source, BuiltPhases)
    systems = source.manifest.systems
    known = TriedArrangements()
    for done, (system, facts) in enumerate(systems.items(), start=1):
        elements = system.split("-")
        groups: dict[str, list[Trial]] = defaultdict(list)
        if len(elements) > 1:
            for trial in all_trials(elements, facts.tried_formulas):
                groups[trial.crystal.formula].append(trial)
        for formula, group in groups.items():
            known.add(formula, as_many(group, facts.tried_formulas.get(formula, 0)))
        if done % 50 == 0:
            log.info("arrangements of %d systems of %d", done, len(systems))
    return known.found


def as_many(group: list[Trial], count: int) -> list[Trial]:
    """The trials of a formula, without the kinds of types that were added after its `count`."""
    for prefix in (NANO_PREFIX, "own:"):
        if len(group) > count:
            group = [trial for trial in group if not trial.prototype.startswith(prefix)]
    return group if count else []
