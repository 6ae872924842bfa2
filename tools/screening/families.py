"""Families of relaxed candidates: one formula on one lattice, whatever its ordering.

Two candidates are kin if their relaxed structures are orderings of one parent lattice
(`hullward.tools.crystal.parent_lattice`), or if one was made from the other, or both from one
parent, by an exchange of atoms, and they were orderings of one lattice as proposed, however
relaxation distorted them since. A family is everything that a chain of kin connects, so it does not
depend on the order in which candidates come. Only candidates without a family are compared, with
those of their formula; stored members are written again only where a new one connects two families.
A known phase of the formula on a candidate's lattice is noted, but belongs to no family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hullward.tools.crystal import OrderedLattice, may_share, shared_by
from hullward.tools.records import FamilyMember
from hullward.tools.screening.screen import PROPOSED_ORDER, RELAXED, Screen

EXCHANGE = "swap"  # the operator that exchanges atoms of a parent
LinkKind = Literal["first", "lattice", "lineage"]
COMPARED = 50  # members of a family that a candidate is compared with, those proposed first
SUPERPOSED = 8  # of these, that may be on its lattice: parents of one family differ by noise
BATCH = 200  # formulas read at once
KEPT = 10_000  # crystals kept with their parent lattices, some 30 MB; read again beyond


@dataclass(eq=False)
class _Node:
    """A relaxed candidate; `record` is None until it has a family."""

    row: dict[str, Any]
    record: FamilyMember | None

    @property
    def candidate_id(self) -> str:
        return str(self.row["candidate_id"])

    @property
    def exchanged_from(self) -> str | None:
        """The parent whose atoms were exchanged to make it."""
        parents = self.row["parents"] or ()
        return str(parents[0]) if self.row["operator"] == EXCHANGE and parents else None

    def relaxed(self, screen: Screen) -> OrderedLattice:
        return _lattice(screen, "relaxations", self.row["relaxation_id"])

    def proposed(self, screen: Screen) -> OrderedLattice:
        return _lattice(screen, "candidates", self.candidate_id)


@dataclass(frozen=True)
class _Link:
    """Why a candidate is kin to an earlier one."""

    kin: _Node
    by_lineage: bool
    shared: tuple[str, ...]


@dataclass(eq=False)
class _Families:
    """The families of one formula; members in the order of proposing."""

    screen: Screen
    members: dict[str, list[_Node]] = field(default_factory=dict)  # by family id
    changed: dict[str, FamilyMember] = field(default_factory=dict)  # by relaxation id
    known: list[tuple[str, OrderedLattice]] | None = None  # phases of the formula; None: not read

    def place(self, node: _Node) -> None:
        """Give a candidate its family, joining families that it connects."""
        by_lattice = self._by_lattice(node)
        found = (
            (name, by_lattice.get(name) or self._by_lineage(node, name)) for name in self.members
        )
        links = {name: link for name, link in found if link}
        joined = next(iter(links), node.candidate_id)  # the family that was founded first
        first = links.get(joined)
        how: LinkKind = "first" if first is None else "lineage" if first.by_lineage else "lattice"
        known_kin, known_shared = self._known_kin(node)
        record = FamilyMember(
            relaxation_id=node.row["relaxation_id"],
            candidate_id=node.candidate_id,
            family_id=joined,
            joined=joined,
            link=how,
            kin=first.kin.candidate_id if first else None,
            shared=tuple(sorted({group for link in links.values() for group in link.shared})),
            known_kin=known_kin,
            known_shared=known_shared,
        )
        self._keep(node, record)
        for name in list(links)[1:]:
            for member in self.members.pop(name):
                assert member.record is not None
                self._keep(member, member.record.model_copy(update={"family_id": joined}))
        self.members.get(joined, []).sort(key=lambda member: member.row["place"])

    def _keep(self, node: _Node, record: FamilyMember) -> None:
        node.record = record
        self.changed[record.relaxation_id] = record
        self.members.setdefault(record.family_id, []).append(node)

    def _by_lattice(self, node: _Node) -> dict[str, _Link]:
        """The families of which a member is on the candidate's lattice, by id."""
        links: dict[str, _Link] = {}
        tried: Counter[str] = Counter()
        own = node.relaxed(self.screen)
        for some in (slice(0, 1), slice(1, COMPARED)):  # most are kin to the first or to none
            compared = [
                (name, member)
                for name, members in self.members.items()
                for member in members[some]
                if name not in links
            ]
            lattices = [member.relaxed(self.screen) for _, member in compared]
            may = may_share(lattices, own)
            for (name, member), other, one in zip(compared, lattices, may, strict=True):
                if not one or name in links or tried[name] == SUPERPOSED:
                    continue
                tried[name] += 1
                shared = shared_by(own, other)
                if shared is not None:
                    links[name] = _Link(member, False, shared)
        return links

    def _by_lineage(self, node: _Node, family_id: str) -> _Link | None:
        """How a candidate is kin to a family by an exchange of atoms; None if it is not."""
        parent = node.exchanged_from
        for member in self.members[family_id] if parent is not None else ():
            if member.candidate_id == parent:
                other = member.relaxed(self.screen)
            elif member.exchanged_from == parent:
                other = member.proposed(self.screen)
            else:
                continue
            shared = shared_by(node.proposed(self.screen), other)
            if shared is not None:
                return _Link(member, True, shared)
        return None

    def _known_kin(self, node: _Node) -> tuple[str | None, tuple[str, ...]]:
        """A known phase on the candidate's lattice, and the elements that share sites in the two.

        One of which the candidate is an ordering goes before one that it only distorts. As among
        candidates, an exchange of atoms made it an ordering of its parent, however it relaxed.
        """
        if self.known is None:
            self.known = _known_lattices(self.screen, node.row["formula"], node.row["chemsys"])
        known = self.known
        if not known:
            return None, ()
        own = node.relaxed(self.screen)
        may = may_share([lattice for _, lattice in known], own)
        found: list[tuple[str, tuple[str, ...]]] = []
        for (phase_id, lattice), one in zip(known, may, strict=True):
            shared = shared_by(own, lattice) if one else None
            if shared is None and node.exchanged_from == phase_id:
                shared = shared_by(node.proposed(self.screen), lattice)
            if shared:
                return phase_id, shared
            if shared is not None:
                found.append((phase_id, shared))
        return found[0] if found else (None, ())


def store_families(screen: Screen) -> None:
    """Store the family of every relaxed candidate that has none yet."""
    new = screen.store.rows(
        f"""SELECT DISTINCT c.formula FROM (FROM relaxations WHERE {RELAXED}) r
            JOIN candidates c USING (candidate_id)
            ANTI JOIN families f USING (relaxation_id) ORDER BY c.formula""",
        screen.relaxed_by,
    )
    formulas = [row["formula"] for row in new]
    for start in range(0, len(formulas), BATCH):
        by_formula: dict[str, list[dict[str, Any]]] = {}
        for row in _rows(screen, formulas[start : start + BATCH]):
            by_formula.setdefault(row["formula"], []).append(row)
        changed = [r for rows in by_formula.values() for r in _families_of(screen, rows)]
        screen.store.add(changed)


def _families_of(screen: Screen, rows: Sequence[dict[str, Any]]) -> Iterable[FamilyMember]:
    """The new and changed records of one formula."""
    families, new = _Families(screen), list[_Node]()
    for place, row in enumerate(rows):
        node = _Node(row | {"place": place}, None)
        if row["family_id"] is None:
            new.append(node)
            continue
        node.record = _record(row)
        families.members.setdefault(node.record.family_id, []).append(node)
    compared = [*new, *(m for group in families.members.values() for m in group[:COMPARED])]
    _read(screen, "relaxations", [node.row["relaxation_id"] for node in compared])
    for node in new:
        families.place(node)
    while len(screen.lattices) > KEPT:
        screen.lattices.popitem(last=False)
    return families.changed.values()


def _record(row: Mapping[str, Any]) -> FamilyMember:
    """A stored member; earlier versions wrote fewer fields."""
    fields = FamilyMember.model_fields.items()
    written = (name for name, field in fields if row[name] is not None or field.is_required())
    return FamilyMember(**{name: row[name] for name in written})


def _rows(screen: Screen, formulas: Sequence[str]) -> list[dict[str, Any]]:
    """Relaxed candidates of some formulas with their records, in the order of proposing."""
    return screen.store.rows(
        f"""SELECT r.relaxation_id, r.candidate_id, c.formula, c.chemsys, p.operator, p.parents,
                f.* EXCLUDE (relaxation_id, candidate_id)
            FROM (FROM relaxations WHERE {RELAXED}) r
            JOIN candidates c USING (candidate_id) JOIN proposals p USING (proposal_id)
            LEFT JOIN families f USING (relaxation_id)
            WHERE c.formula IN (SELECT unnest($formulas::VARCHAR[])) ORDER BY {PROPOSED_ORDER}""",
        screen.relaxed_by | {"formulas": list(formulas)},
    )


def _known_lattices(screen: Screen, formula: str, system: str) -> list[tuple[str, OrderedLattice]]:
    """Known phases of a formula, the reference's and the user's, with their parent lattices."""
    phases = (*screen.reference.library_entries(system), *screen.user_phases.of(system))
    found = [(i, crystal) for i, crystal in phases if crystal.formula == formula][:COMPARED]
    for phase_id, crystal in found:
        if ("known", phase_id) not in screen.lattices:
            screen.lattices["known", phase_id] = OrderedLattice(crystal)
    return [(i, screen.lattices["known", i]) for i, _ in found]


def _lattice(screen: Screen, table: str, row_id: str) -> OrderedLattice:
    """A crystal with its parent lattices, which stay for later cycles."""
    _read(screen, table, [row_id])
    screen.lattices.move_to_end((table, row_id))
    return screen.lattices[table, row_id]


def _read(screen: Screen, table: str, ids: Sequence[str]) -> None:
    """Read crystals that are not kept."""
    missing = [i for i in ids if (table, i) not in screen.lattices]
    if not missing:
        return
    key = "relaxation_id" if table == "relaxations" else "candidate_id"
    rows = screen.store.rows(
        f"SELECT {key} AS id, crystal FROM {table} WHERE list_contains($ids, {key})",
        {"ids": missing},
    )
    found = screen.cells.lattices([row["crystal"] for row in rows])
    screen.lattices.update(((table, row["id"]), one) for row, one in zip(rows, found, strict=True))
