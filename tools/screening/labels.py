"""Label crystals that match a known phase or another candidate of the campaign.

Matching is not transitive: A may match B and C though these do not match. Candidates that a chain
of matches connects are one group, so that the labels of one call do not depend on the order of
proposing; what matches one known phase is connected by it. A group is represented by a known phase
if there is one among them, else by the first that was proposed; the others are its duplicates.
Known phases keep to their own groups, whatever links them. What was settled by an earlier call
stays: a candidate that was found new then, and relaxed since, keeps no label though a later one may
link it to an earlier group. That later one is the duplicate of the first group.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from hullward.models.crystal import Crystal
from hullward.tools.crystal import ComparedCrystal, Match, StructureLibrary
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Reference
from hullward.tools.records import Label

Moment = Literal["before", "after"]  # relaxation
Kind = Literal["known", "duplicate"]
KEPT = 20_000  # structures kept for comparison, some 30 MB; read again from the store beyond


class IndexHit(Protocol):
    """A phase of an index."""

    @property
    def phase_id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def tried_only(self) -> bool:
        """Whether the embedded reference tried this arrangement and found a lower one."""


class StructureIndex(Protocol):
    """Facts of known structures and compounds."""

    def __hash__(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def counts(self) -> Any:
        """Numbers of its structures, formulas, textbook phases and arrangements."""

    def structure(self, crystal: Crystal) -> IndexHit | None: ...
    def knows(self, formula: str) -> bool: ...
    def holds_structures_of(self, formula: str) -> bool: ...
    def hides(self, formula: str) -> bool: ...


class KnownStructures:
    """Structures of known phases: the reference's and the user's, and facts of an index.

    The structures are in libraries, one for each chemical system, built on first use.
    """

    def __init__(
        self,
        reference: Reference,
        user_phases: KnownPhases | None = None,
        index: StructureIndex | None = None,
    ) -> None:
        self._reference, self._index = reference, index
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

    def match(self, crystal: Crystal) -> Match | None:
        """The known phase whose structure, the reference's or the user's, a crystal matches."""
        return self.of(crystal.chemsys).match(crystal)

    def match_proposed(self, crystal: Crystal) -> Match | None:
        """The known phase that a crystal matches, for which it need not be relaxed.

        What only the index knows is relaxed, as it may hold up the hull, unless the reference tried
        it and found a lower structure.
        """
        if (match := self.match(crystal)) is not None or self._reference.kind != "embedded":
            return match
        phase = self._index.structure(crystal) if self._index else None
        return Match(phase.phase_id, None) if phase and phase.tried_only else None

    def match_relaxed(self, crystal: Crystal) -> Match | None:
        """The known phase that a crystal matches, by its structure or by the index."""
        if (match := self.match(crystal)) is not None or self._index is None:
            return match
        phase = self._index.structure(crystal)
        return Match(phase.phase_id, None) if phase else None


class Stored(NamedTuple):
    """A candidate that is in the store, and its label, if it has one."""

    crystal: ComparedCrystal
    known: Match | None
    duplicate: Match | None

    @property
    def candidate_id(self) -> str:
        return self.crystal.name


class Unlabelled(NamedTuple):
    """A proposal to label."""

    formula: str
    proposal_id: str
    candidate_id: str
    crystal: Crystal
    own: bool  # False: an earlier proposal brought the same crystal


@dataclass(frozen=True)
class StructureSource:
    """Where the structures of a campaign at one moment are found, both by formula.

    count: the number of those of some formulas.  read: these, in the order of proposing.
    """

    count: Callable[[Collection[str]], Mapping[str, int]]
    read: Callable[[Collection[str]], Mapping[str, Sequence[Stored]]]


@dataclass(eq=False)
class _Group:
    """Candidates that a chain of matches connects; phase: the known phase among them, if any."""

    represented_by: str
    phase: str | None = None
    members: list[ComparedCrystal] = field(default_factory=list)

    def settled(self, open_ids: Collection[str]) -> bool:
        """Whether it is represented by a known phase, or one that is labelled already."""
        return self.phase is not None or self.represented_by not in open_ids

    def match(self, crystal: ComparedCrystal, possible: Collection[str]) -> Match | None:
        """The match with a member of identical content, else with the representative, else any.

        possible: the members that may match otherwise.
        """
        for member in self.members:
            if member.is_identical(crystal):
                return Match(member.name, None)
        others = [member for member in self.members if member.name in possible]
        for member in sorted(others, key=lambda m: m.name != self.represented_by):
            if (rms := member.rms_to(crystal)) is not None:
                return Match(member.name, rms)
        return None


@dataclass(eq=False)
class _Formula:
    """The groups of one formula."""

    groups: list[_Group] = field(default_factory=list)
    of: dict[str, _Group] = field(default_factory=dict)  # by candidate
    order: dict[str, int] = field(default_factory=dict)  # of proposing, by candidate
    known: dict[str, Match] = field(default_factory=dict)
    closest: dict[str, Match] = field(default_factory=dict)  # the match that placed a candidate

    @classmethod
    def of_stored(cls, everything: Sequence[Stored], open_ids: Collection[str]) -> _Formula:
        """The groups of what is stored, without candidates that may still be labelled."""
        found, by_first = cls(), dict[tuple[str | None, str], _Group]()
        found.order = {one.candidate_id: place for place, one in enumerate(everything)}
        stored = [one for one in everything if one.candidate_id not in open_ids]
        found.known = {one.candidate_id: one.known for one in stored if one.known}
        found.closest = {one.candidate_id: one.duplicate for one in stored if one.duplicate}
        for one in stored:
            first = one.candidate_id
            while (closest := found.closest.get(first)) is not None:
                first = closest.match_id
            phase = found.known[first].match_id if first in found.known else None
            place = (phase, "" if phase else first)
            group = by_first.setdefault(place, _Group(first, phase))
            group.members.append(one.crystal)
            found.of[one.candidate_id] = group
        found.groups = list(by_first.values())
        return found

    def add(
        self,
        candidate_id: str,
        crystal: Crystal,
        open_ids: Collection[str],
        parent: str | None = None,
    ) -> None:
        """Place a candidate in the groups it links.

        open_ids: candidates that may still be labelled. Groups that others represent stay apart,
        and so do those of known phases.  parent: a candidate that it is, whatever matches.
        """
        compared = ComparedCrystal(candidate_id, crystal)
        phase = self.known[candidate_id].match_id if candidate_id in self.known else None
        into = next((group for group in self.groups if phase and group.phase == phase), None)
        home = self.of.get(parent) if parent else None
        merged: list[_Group] = []
        settled_too = phase is None and into is None
        groups = [g for g in self.groups if settled_too or not g.settled(open_ids)]
        members = [member for group in groups for member in group.members]
        may = compared.may_match(members)
        possible = {member.name for member, one in zip(members, may, strict=True) if one}
        for group in groups:
            settled = group.settled(open_ids)
            if settled and into is not None:
                continue
            match = group.match(compared, possible)
            if match is None and group is home:
                match = Match(str(parent), None)
            if match is None:
                continue
            if settled or candidate_id not in self.closest:
                self.closest[candidate_id] = match
            if settled:
                into = group
            else:
                merged.append(group)
        if into is None and merged:
            into = merged.pop(0)
        elif into is None:
            into = _Group(candidate_id)
            self.groups.append(into)
        into.phase = into.phase or phase
        for group in merged:
            self.groups.remove(group)
            into.members += group.members
            self.of.update((member.name, into) for member in group.members)
        into.members.append(compared)
        self.of[candidate_id] = into
        self.order.setdefault(candidate_id, len(self.order))

    def settle(self, rows: Sequence[Unlabelled]) -> None:
        """Choose who represents the groups whose representative may still be labelled."""
        own = {row.candidate_id for row in rows if row.own}
        for group in {id(g): g for g in map(self.of.__getitem__, own)}.values():
            names = [member.name for member in group.members]
            if group.phase is not None:
                names = [name for name in names if name in self.known]
            elif group.represented_by in own:
                names = [name for name in names if name in own]
            else:
                continue
            group.represented_by = min(names, key=self.order.__getitem__)

    def label(self, row: Unlabelled, moment: Moment) -> Label | None:
        """The label of a proposal whose candidate has been placed."""
        kind: Kind = "known"
        match = self.known.get(row.candidate_id)
        if match is None:
            kind, first = "duplicate", self.of[row.candidate_id].represented_by
            if first != row.candidate_id:
                match = Match(first, self._rms(row.candidate_id, first))
            elif not row.own:
                match = Match(first, None)
        if match is None:
            return None
        return Label(
            proposal_id=row.proposal_id,
            moment=moment,
            kind=kind,
            match_id=match.match_id,
            rms_a=match.rms_a,
        )

    def _rms(self, candidate_id: str, first: str) -> float | None:
        """The rms to the one that represents the group, else to the member that links to it."""
        closest = self.closest.get(candidate_id)
        if closest is not None and closest.match_id == first:
            return closest.rms_a
        members = {member.name: member for member in self.of[candidate_id].members}
        found = members[first].rms_to(members[candidate_id]) if first in members else None
        if found is not None:
            return found
        if closest is not None:
            return closest.rms_a
        others = (m for name, m in members.items() if name != candidate_id)
        matches = (m.rms_to(members[candidate_id]) for m in others)
        return min((rms for rms in matches if rms is not None), default=None)


class CampaignStructures:
    """The structures of a campaign at one moment, in groups of equals, by reduced formula.

    A formula is read from the store when it is first asked for, and kept: asking about nothing new
    reads nothing.
    """

    def __init__(self, moment: Moment, source: StructureSource) -> None:
        self.moment, self._source = moment, source
        self._formulas: OrderedDict[str, _Formula] = OrderedDict()

    def labels(
        self,
        rows: Sequence[Unlabelled],
        known: Mapping[str, Match],
        parents: Mapping[str, str] | None = None,
    ) -> list[Label]:
        """Labels of unlabelled proposals, in the order of proposing, of each formula all there are.

        known: the known phases that candidates match.  parents: candidates that others are, whether
        or not they superpose. Both by candidate id.
        """
        parents = parents or {}
        by_formula: dict[str, list[Unlabelled]] = {}
        for row in rows:
            by_formula.setdefault(row.formula, []).append(row)
        open_ids = {row.candidate_id for row in rows if row.own}
        self._read(by_formula, open_ids)
        found = []
        for formula, own_rows in by_formula.items():
            groups = self._formulas[formula]
            groups.known.update(
                (r.candidate_id, known[r.candidate_id]) for r in own_rows if r.candidate_id in known
            )
            for row in own_rows:
                if row.own and row.candidate_id not in groups.of:
                    parent = parents.get(row.candidate_id)
                    groups.add(row.candidate_id, row.crystal, open_ids, parent)
            groups.settle(own_rows)
            found += [x for row in own_rows if (x := groups.label(row, self.moment)) is not None]
        self._forget()
        return found

    def forget(self) -> None:
        """Read every formula from the store again when it is next asked for."""
        self._formulas.clear()

    def _read(self, by_formula: Mapping[str, Sequence[Unlabelled]], open_ids: set[str]) -> None:
        """Read formulas that are not kept, or that the store holds more of."""
        counts = self._source.count(by_formula)
        missing = []
        for formula, rows in by_formula.items():
            kept = self._formulas.get(formula, _Formula())
            new = {row.candidate_id for row in rows if row.own} - kept.of.keys()
            if len(kept.of) + len(new) != counts.get(formula, 0):
                missing.append(formula)
        stored = self._source.read(missing) if missing else {}
        for formula in by_formula:
            if formula in missing:
                self._formulas[formula] = _Formula.of_stored(stored.get(formula, ()), open_ids)
            self._formulas.setdefault(formula, _Formula())
            self._formulas.move_to_end(formula)

    def _forget(self) -> None:
        """Forget the formulas asked for longest ago, beyond KEPT structures."""
        held = sum(len(one.of) for one in self._formulas.values())
        while held > KEPT and len(self._formulas) > 1:
            held -= len(self._formulas.popitem(last=False)[1].of)
