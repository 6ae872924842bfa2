"""Explain in one phrase what a candidate is: known, a duplicate, the prototype of a known phase
with elements exchanged, or a new prototype. Exact matches are the stored labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Any

from hullward.models.crystal import Crystal
from hullward.tools.crystal import (
    LANTHANIDES,
    AnonymousFormula,
    LibraryEntry,
    PrototypeLibrary,
    PrototypeMatch,
    StructureLibrary,
    anonymous_amounts,
    charge_balance,
    merge_lanthanides,
    parse_formula,
    shared_sites,
)
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Reference
from hullward.tools.records import Candidate, Explanation, NoveltyKind, Standing, stable_id
from hullward.tools.screening.labels import Kind, Moment, StructureIndex
from hullward.tools.screening.screen import OVER_REFERENCE, PROPOSED_ORDER, RELAXED, Screen

BATCH = 500  # records a journal write
NOTHING_KNOWN = "no known structures"
LIBRARY_TYPES = "the structure types of the prototype library"


@dataclass
class Explainer:
    """Known crystals, searched in four ways.

    known: (id, crystal) of everything known: the reference's, then the user's.  source: where the
    reference's come from, for the hash.  bare: number of known phases without a structure, by
    formula.  own: how many of the known are the user's.  index: facts of more of them.
    """

    known: Sequence[tuple[str, Crystal]]
    source: str = ""
    bare: Mapping[str, int] = field(default_factory=dict)
    own: int = 0
    index: StructureIndex | None = None

    @cached_property
    def against(self) -> str:
        """'27,618 known structures, 3,506 of the reference and the structure types of …'."""
        of_reference = len(self.known) - self.own
        own = ((of_reference, "of the reference"), (self.own, "of yours"))
        parts = [f"{n:,} {whose}" for n, whose in own if n]
        if self.index is not None:
            counts = self.index.counts
            there = f"{counts.structures:,} known structures"
            parts.insert(
                0, f"{there}, {counts.textbook:,} textbook phases" if counts.textbook else there
            )
        elif parts:
            parts[0] = parts[0].replace(" of", " known structures of", 1)
        return f"{', '.join(parts) or NOTHING_KNOWN} and {LIBRARY_TYPES}"

    @cached_property
    def against_id(self) -> str:
        seen = [i for i, _ in self.known]
        further = [sorted(self.bare)] if self.bare else []
        index = self.index.version if self.index is not None else ""
        return stable_id("kn", self.source, seen, *further, "standing", index)

    def standing(self, kind: NoveltyKind, formula: str) -> Standing | None:
        """What a crystal is next to what is known."""
        if kind == "known":
            return "known structure"
        if kind == "duplicate":
            return None
        hidden = self.index is None or self.index.hides(formula)
        if kind == "not_compared" or (hidden and len(self.known) == self.own):
            return "novelty not judged"
        if self._has_structures(formula):
            return "new structure of a known compound"
        if formula in self.bare or (self.index is not None and self.index.knows(formula)):
            return "novelty not judged"  # its structure is not at hand
        return "new composition"

    def _has_structures(self, formula: str) -> bool:
        if formula in self._formulas:
            return True
        return self.index is not None and self.index.holds_structures_of(formula)

    def _bare_namesakes(self, formula: str) -> int:
        """Known phases of a formula without a structure; the index counts as one."""
        count = self.bare.get(formula, 0)
        if count or self.index is None or self._has_structures(formula):
            return count
        return int(self.index.knows(formula))

    def _bare_words(self, formula: str, bare: int) -> str:
        if not bare:
            return ""
        if not self._has_structures(formula):
            return "; known compound whose structure is not at hand"
        phases = "a phase" if bare == 1 else f"{bare} phases"
        return f"; may be known: the reference has {phases} of this formula without a structure"

    @cached_property
    def _formulas(self) -> frozenset[str]:
        return frozenset(crystal.formula for _, crystal in self.known)

    def explain(
        self,
        candidate_id: str,
        crystal: Crystal,
        moment: Moment,
        families: PrototypeLibrary,
        exact: tuple[Kind, str] | None = None,
    ) -> Explanation:
        """Explain one crystal.

        exact: the stored match, if there is one.  families: earlier candidates of new prototypes;
        this one is added where it is another.
        """
        kind, kin = self._find(crystal, exact)
        if kind == "new_prototype":
            kin = families.nearest(crystal)
            if kin is None:
                families.add(candidate_id, crystal)
        exchanged = tuple(f"{a}→{b}" for a, b in kin.exchanged) if kin else ()
        upside_down = kin is not None and _inverse(kin, crystal)
        shared = shared_sites(crystal)
        bare = 0 if kind in ("known", "duplicate") else self._bare_namesakes(crystal.formula)
        return Explanation(
            candidate_id=candidate_id,
            moment=moment,
            kind=kind,
            match_id=kin.match_id if kin else None,
            match_formula=kin.formula if kin else None,
            exchanged=exchanged,
            inverse=upside_down,
            rms_a=kin.rms_a if kin else None,
            against=self.against,
            against_id=self.against_id,
            words=_words(kind, kin, exchanged, upside_down, self.against)
            + self._bare_words(crystal.formula, bare),
            bare_namesakes=bare,
            disorder=shared.words if shared else "",
            standing=self.standing(kind, crystal.formula),
        )

    def _find(
        self, crystal: Crystal, exact: tuple[Kind, str] | None
    ) -> tuple[NoveltyKind, PrototypeMatch | None]:
        if exact is not None:
            kind, match_id = exact
            return kind, PrototypeMatch(match_id, crystal.formula, (), None)
        if self.index is not None and (phase := self.index.structure(crystal)):
            return "known", PrototypeMatch(phase.phase_id, crystal.formula, (), None)
        if LibraryEntry("", crystal).cell is None:
            return "not_compared", None
        if swapped := self._lanthanide_swap(crystal):
            return "lanthanide_swap", swapped
        if kin := self._parents.nearest(crystal):
            return ("substitution" if kin.exchanged else "known"), kin
        if kin := _types().nearest(crystal):
            return "structure_type", kin
        return "new_prototype", None

    def _lanthanide_swap(self, crystal: Crystal) -> PrototypeMatch | None:
        merged = merge_lanthanides(crystal)
        if merged is None or (match := self._blind.match(merged)) is None:
            return None
        parent = self._crystals[match.match_id]
        theirs, ours = (sorted(LANTHANIDES & set(c.species)) for c in (parent, crystal))
        gone, come = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
        if theirs == ours and len(ours) == 1:
            return None  # the same lanthanide: an exact match would have found it
        pairs = zip(gone, come, strict=True) if len(gone) == len(come) else ()
        exchanged = tuple(pairs) or (("+".join(theirs), "+".join(ours)),)
        return PrototypeMatch(match.match_id, parent.formula, exchanged, match.rms_a)

    @cached_property
    def _parents(self) -> PrototypeLibrary:
        return PrototypeLibrary(self.known)

    @cached_property
    def _blind(self) -> StructureLibrary:
        merged = ((i, merge_lanthanides(crystal)) for i, crystal in self.known)
        return StructureLibrary((i, crystal) for i, crystal in merged if crystal is not None)

    @cached_property
    def _crystals(self) -> dict[str, Crystal]:
        return dict(self.known)


class StoredFamilies(PrototypeLibrary):
    """The candidates that were the first of their prototype, read from the store as needed."""

    def __init__(self, screen: Screen, moment: Moment, against_id: str) -> None:
        super().__init__()
        self._screen, self._moment, self._against_id = screen, moment, against_id

    def nearest(self, crystal: Crystal) -> PrototypeMatch | None:
        ids = self._unread.pop(anonymous_amounts(crystal), [])
        for candidate_id, founder in _crystals(self._screen, ids, self._moment).items():
            self.add(candidate_id, founder)
        return super().nearest(crystal)

    @cached_property
    def _unread(self) -> dict[AnonymousFormula, list[str]]:
        """Ids by anonymous formula, in the order of proposing."""
        rows = self._screen.store.rows(
            f"""SELECT c.candidate_id, c.formula
                FROM explanations e JOIN candidates c USING (candidate_id)
                JOIN proposals p USING (proposal_id)
                WHERE e.kind = 'new_prototype' AND e.match_id IS NULL AND e.moment = $moment
                    AND e.against_id = $against
                ORDER BY {PROPOSED_ORDER}""",
            {"moment": self._moment, "against": self._against_id},
        )
        found: dict[AnonymousFormula, list[str]] = {}
        for row in rows:
            amounts = tuple(sorted(parse_formula(row["formula"]).values()))
            found.setdefault(amounts, []).append(row["candidate_id"])
        return found


def explain_all(screen: Screen) -> None:
    """Explain every candidate without an explanation, and those whose explanation is stale.

    It is stale where it was made against other known phases, or where a label or verdict found
    since names a known phase or an earlier candidate that it does not. Nothing else that it rests
    on changes: the crystals, and the candidates explained before this one.
    """
    explainer = explainer_of(screen.reference, screen.user_phases, screen.index)
    moments: tuple[Moment, ...] = ("before", "after")
    for moment in moments:
        key = moment, explainer.against_id
        if key not in screen.families:
            screen.families[key] = StoredFamilies(screen, *key)
        rows = _unexplained(screen, moment, explainer.against_id)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            ids = [row["candidate_id"] for row in batch]
            crystals = _crystals(screen, ids, moment)
            screen.store.add(
                [
                    explainer.explain(i, crystals[i], moment, screen.families[key], _exact(row))
                    for i, row in zip(ids, batch, strict=True)
                ]
            )


@lru_cache(maxsize=2)
def explainer_of(
    reference: Reference, user_phases: KnownPhases, index: StructureIndex | None = None
) -> Explainer:
    """The explainer of a reference's structures and the user's, cached: its cells are slow."""
    phases = reference.source.within(reference.elements)
    found = [(p.phase_id, p.crystal) for p in phases if p.is_phase and p.crystal is not None]
    bare = Counter(p.formula for p in phases if p.is_phase and p.crystal is None)
    source = f"{reference.reference_id} {reference.version}"
    users = list(user_phases)
    return Explainer([*found, *users], source, bare, len(users), index)


def _exact(row: dict[str, Any]) -> tuple[Kind, str] | None:
    if row["known"]:
        return "known", row["known"]
    return ("duplicate", row["twin"]) if row["twin"] else None


_EXPLAINED = "(FROM explanations WHERE moment = $moment AND against_id = $against)"
_LABELLED = "(FROM labels WHERE moment = $moment AND kind = '{}')"
# Ids of candidates whose explanation is missing or stale.
_BEFORE = f"""
    SELECT candidate_id FROM candidates ANTI JOIN {_EXPLAINED} USING (candidate_id)
    UNION
    SELECT candidate_id FROM labels l JOIN candidates c USING (proposal_id)
    JOIN {_EXPLAINED} e USING (candidate_id)
    WHERE l.moment = $moment AND e.kind <> 'known'
        AND (l.kind = 'known' OR e.kind <> 'duplicate')
"""
_AFTER = f"""
    SELECT candidate_id FROM (FROM relaxations WHERE {RELAXED}) r JOIN candidates c
        USING (candidate_id)
    ANTI JOIN (FROM labels WHERE moment = 'before' AND kind = 'duplicate') b USING (proposal_id)
    ANTI JOIN {_EXPLAINED} e USING (candidate_id)
    UNION
    SELECT candidate_id FROM labels l JOIN candidates c USING (proposal_id)
    JOIN {_EXPLAINED} e USING (candidate_id)
    WHERE l.moment = $moment AND e.kind <> 'known'
        AND (l.kind = 'known' OR e.kind <> 'duplicate')
    UNION
    SELECT candidate_id
    FROM (FROM verdicts WHERE height = 'reference' AND rediscovered IS NOT NULL
        AND {OVER_REFERENCE}) v
    JOIN (FROM relaxations WHERE {RELAXED}) r USING (relaxation_id)
    JOIN {_EXPLAINED} e USING (candidate_id)
    WHERE e.kind <> 'known' OR e.match_id <> v.rediscovered
"""


def _unexplained(screen: Screen, moment: Moment, against_id: str) -> list[dict[str, Any]]:
    """Candidates to explain and their exact matches, in the order of proposing."""
    given = {"moment": moment, "against": against_id}
    if moment == "after":
        given |= screen.relaxed_by | screen.judged_by
    found = screen.store.rows(_BEFORE if moment == "before" else _AFTER, given)
    ids = [row["candidate_id"] for row in found]
    rediscovered = "NULL"
    if moment == "after":
        rediscovered = f"""(SELECT max(v.rediscovered) FROM verdicts v JOIN relaxations r
            USING (relaxation_id) WHERE r.candidate_id = c.candidate_id
            AND {RELAXED} AND {OVER_REFERENCE})"""
    if not ids:
        return []
    return screen.store.rows(
        f"""SELECT c.candidate_id, coalesce({rediscovered}, k.match_id) AS known,
                d.match_id AS twin
            FROM candidates c JOIN proposals p USING (proposal_id)
            LEFT JOIN {_LABELLED.format("known")} k ON k.proposal_id = c.proposal_id
            LEFT JOIN {_LABELLED.format("duplicate")} d ON d.proposal_id = c.proposal_id
            WHERE c.candidate_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY {PROPOSED_ORDER}""",
        {key: value for key, value in given.items() if key != "against"} | {"ids": ids},
    )


def _crystals(screen: Screen, candidate_ids: Sequence[str], moment: Moment) -> dict[str, Crystal]:
    """Crystals of candidates at one moment by candidate id, in the order given."""
    if not candidate_ids:
        return {}
    if moment == "before":
        loaded = screen.store.load(Candidate, candidate_ids)
        found = {c.candidate_id: c.crystal for c in loaded}
    else:
        pairs = screen.relaxed(candidate_ids)
        found = {c.candidate_id: r.crystal for c, r in pairs if r.crystal is not None}
    return {i: found[i] for i in candidate_ids}


@cache
def _types() -> PrototypeLibrary:
    """The structure types of the prototype library, each as its first compound."""
    from hullward.tools.prototypes import prototype_library

    return PrototypeLibrary(
        (p.prototype_id, Crystal.from_arrays(p.lattice, p.species, p.frac_coords))
        for p in prototype_library()
    )


def _inverse(kin: PrototypeMatch, crystal: Crystal) -> bool:
    """Whether cations are where the parent has anions; False where charges are unknown."""
    from pymatgen.core import Composition

    back = {ours: theirs for theirs, ours in kin.exchanged}
    states = charge_balance(crystal.amounts).states
    theirs = charge_balance(Composition(kin.formula).get_el_amt_dict()).states
    if not states or not theirs or not back:
        return False
    pairs = ((states[el], theirs.get(back.get(el, el), 0.0)) for el in states)
    return any(a * b < 0 for a, b in pairs)


def _words(
    kind: NoveltyKind,
    kin: PrototypeMatch | None,
    exchanged: tuple[str, ...],
    upside_down: bool,
    against: str,
) -> str:
    swap = f" with {', '.join(exchanged)}" if exchanged else ""
    if kind == "not_compared":
        return "not compared: the cell is too large, too flat or cannot be reduced"
    if kind == "new_prototype":
        words = f"new prototype: none of {against} matches, with any exchange of elements"
        if kin is not None:
            words += f"; earlier candidate {kin.match_id} ({kin.formula}) has it too{swap}"
        return words
    assert kin is not None
    name = f"{kin.formula} ({kin.match_id})"
    if kind == "known":
        return f"known: {name}"
    if kind == "duplicate":
        return f"the same as earlier candidate {kin.match_id}"
    if kind == "lanthanide_swap":
        return f"lanthanide swap: {name}{swap}"
    turned = "inverse of" if upside_down else "same prototype as"
    if kind == "structure_type":
        return f"structure type of no known phase here, but in the library: {turned} {name}{swap}"
    return f"{turned} {name}{swap}"
