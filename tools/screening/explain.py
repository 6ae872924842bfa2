"""Explain in one phrase what a candidate is: known, a duplicate, the prototype of a known phase
with elements exchanged, or a new prototype. Exact matches are the stored labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Any

from hullward.models.crystal import Crystal
from hullward.tools.crystal import (
    LANTHANIDES,
    LibraryEntry,
    PrototypeLibrary,
    PrototypeMatch,
    StructureLibrary,
    charge_balance,
    merge_lanthanides,
    shared_sites,
)
from hullward.tools.crystal.files import KnownPhases
from hullward.tools.hull import Reference
from hullward.tools.records import Explanation, NoveltyKind, stable_id
from hullward.tools.screening.labels import Kind, Moment
from hullward.tools.store import Store

BATCH = 500  # records a journal write


@dataclass
class Explainer:
    """Known crystals, searched in four ways.

    known: (id, crystal) of everything known.  source: where they come from, for the hash.
    bare: number of known phases without a structure, by formula.
    """

    known: Sequence[tuple[str, Crystal]]
    source: str = ""
    bare: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def against(self) -> str:
        phases = f"{len(self.known):,} known structures" if self.known else "no known structures"
        return f"{phases} and the structure types of the prototype library"

    @cached_property
    def against_id(self) -> str:
        seen = [i for i, _ in self.known]
        return stable_id("kn", self.source, seen, *([sorted(self.bare)] if self.bare else []))

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
        bare = 0 if kind in ("known", "duplicate") else self.bare.get(crystal.formula, 0)
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
            words=_words(kind, kin, exchanged, upside_down, self.against) + _bare_words(bare),
            bare_namesakes=bare,
            disorder=shared.words if shared else "",
        )

    def _find(
        self, crystal: Crystal, exact: tuple[Kind, str] | None
    ) -> tuple[NoveltyKind, PrototypeMatch | None]:
        if exact is not None:
            kind, match_id = exact
            return kind, PrototypeMatch(match_id, crystal.formula, (), None)
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


def explain_all(store: Store, reference: Reference, user_phases: KnownPhases) -> None:
    """Explain every candidate that has no explanation yet, or one from other known phases."""
    explainer = explainer_of(reference, user_phases)
    moments: tuple[Moment, ...] = ("before", "after")
    for moment in moments:
        stored = {
            e.candidate_id: e
            for e in store.load(Explanation)
            if e.moment == moment and e.against_id == explainer.against_id
        }
        families, found = PrototypeLibrary(), []
        for row, crystal in _candidates(store, moment):
            candidate_id = row["candidate_id"]
            if (there := stored.get(candidate_id)) is not None:
                if there.kind == "new_prototype" and there.match_id is None:
                    families.add(candidate_id, crystal)
                continue
            exact = _exact(row, moment)
            found.append(explainer.explain(candidate_id, crystal, moment, families, exact))
            if len(found) == BATCH:
                store.add(found)
                found = []
        store.add(found)


@lru_cache(maxsize=2)
def explainer_of(reference: Reference, user_phases: KnownPhases) -> Explainer:
    """The explainer of a reference's structures and the user's, cached: its cells are slow."""
    phases = reference.source.within(reference.elements)
    own = [(p.phase_id, p.crystal) for p in phases if p.is_phase and p.crystal is not None]
    bare = Counter(p.formula for p in phases if p.is_phase and p.crystal is None)
    source = f"{reference.reference_id} {reference.version}"
    return Explainer([*own, *user_phases], source, bare)


def _exact(row: dict[str, Any], moment: Moment) -> tuple[Kind, str] | None:
    if known := row["known_before" if moment == "before" else "rediscovered"]:
        return "known", known
    twin = row[f"duplicate_{moment}"]
    return ("duplicate", twin) if twin else None


def _candidates(store: Store, moment: Moment) -> Iterator[tuple[dict[str, Any], Crystal]]:
    """Every candidate once, in the order of proposing, with its crystal at that moment."""
    source = (
        "candidates x ON x.proposal_id = r.proposal_id"
        if moment == "before"
        else "relaxations x ON x.relaxation_id = r.relaxation_id AND x.converged"
    )
    for row in store.rows(
        f"""SELECT r.candidate_id, r.known_before, r.duplicate_before, r.rediscovered,
            r.duplicate_after, x.crystal
            FROM results r JOIN proposals p USING (proposal_id) JOIN {source}
            ORDER BY p.cycle, p.request_id, p."index" """
    ):
        yield row, Crystal.model_validate_json(row["crystal"])


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


def _bare_words(bare: int) -> str:
    if not bare:
        return ""
    phases = "a phase" if bare == 1 else f"{bare} phases"
    return f"; may be known: the reference has {phases} of this formula without a structure"


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
