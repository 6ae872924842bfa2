"""Records of what a candidate is: novelty, vibrations, suspicions, overlap with training data."""

from __future__ import annotations

from typing import Literal

from hullward.tools.records.base import Count, Record
from hullward.tools.records.verdicts import SecondLook, Suspicion

NoveltyKind = Literal[
    "known",  # a known phase, the same elements
    "duplicate",  # of an earlier candidate
    "lanthanide_swap",  # a known phase if all lanthanides count as one element
    "substitution",  # the arrangement of a known phase, other elements
    "structure_type",  # that of no known phase, but of a type in the prototype library
    "new_prototype",
    "not_compared",  # with the reason
]


# What a candidate is next to what is known; only the two that begin with 'new' count as new.
Standing = Literal[
    "known structure",
    "new structure of a known compound",
    "new composition",
    "novelty not judged",  # no structures to compare with, or no comparable cell
]


class Explanation(Record):
    """The novelty label of a candidate, as proposed or as relaxed."""

    candidate_id: str
    moment: Literal["before", "after"]  # relaxation
    kind: NoveltyKind
    match_id: str | None  # of a phase, an earlier candidate or a structure type
    match_formula: str | None
    exchanged: tuple[str, ...]  # 'Na→K': the match's element, ours; those that differ
    inverse: bool  # cations stand where the match has anions
    rms_a: float | None  # rms displacement over (V/n)^(1/3), no unit; None: not superposed
    against: str  # what it was compared with, in words
    against_id: str  # the same, hashed: if it changes, this label is stale
    words: str  # all of it in one phrase
    disorder: str  # why species may share a site in reality; '' without a sign of it
    # phases of this formula whose structures the reference lacks, and the index as one of them
    bare_namesakes: Count = 0
    standing: Standing | None = None  # None: of a duplicate, or stored before there were standings


class FamilyMember(Record):
    """The family of a relaxed candidate: one formula on one lattice, whatever its ordering."""

    relaxation_id: str
    candidate_id: str
    family_id: str  # the candidate that founded it; of merged families the earlier founder
    joined: str  # the family that it joined when it was compared; no later candidate changes it
    link: Literal["first", "lattice", "lineage"]  # lineage: an exchange of atoms made it
    kin: str | None  # the earlier member that it was linked to
    shared: tuple[str, ...] = ()  # 'Li Mn': elements that stand on one site in it and its kin
    # a known phase of its formula on its lattice, of those at hand when it was compared
    known_kin: str | None = None
    known_shared: tuple[str, ...] = ()  # elements that stand on one site in it and the known phase


class SoftMode(Record):
    """Imaginary modes at one wave vector."""

    q: tuple[float, float, float]  # of the primitive reciprocal cell
    modes: Count  # how many, counted by the milder size of displacement
    frequency_thz: float  # the lowest; imaginary ones are negative
    milder_thz: float  # the same by the other size of displacement

    @property
    def words(self) -> str:
        """'−7.1 THz (−237 cm⁻¹) at (0, ½, ½)'."""
        spelt = ", ".join({0.0: "0", 0.5: "½"}.get(x, f"{x:g}") for x in self.q)
        where = "Γ" if not any(self.q) else f"({spelt})"
        words = (
            f"{self.frequency_thz:.1f} THz ({self.frequency_thz * 33.35641:.0f} cm⁻¹) at {where}"
        )
        return words.replace("-", "\N{MINUS SIGN}")


class PhononCheck(Record):
    """Vibrations of a relaxed cell at the wave vectors that fit its supercell."""

    candidate_id: str
    relaxation_id: str
    potential: str
    potential_sha256: str
    result: Literal["no_imaginary_mode", "imaginary_modes", "uncertain", "not_checked"]
    detail: str  # why it was not checked, or what is uncertain
    supercell: tuple[int, int, int] | None  # of the primitive cell
    n_atoms: int | None  # of the supercell
    q_points: tuple[tuple[float, float, float], ...]
    soft: tuple[SoftMode, ...]  # lowest first
    lowest_thz: float | None  # of all modes but the acoustic ones at Γ
    noise_thz: float | None  # of the acoustic modes at Γ before the sum rule
    force_calls: Count
    cpu_s: float

    @property
    def words(self) -> str:
        """The result in one phrase."""
        if self.result == "not_checked" or self.supercell is None:
            return f"vibrations not checked: {self.detail}"
        size = "×".join(map(str, self.supercell))
        left = "" if self.supercell == (2, 2, 2) else ", so not every boundary point"
        where = f"{len(self.q_points)} wave vectors of a {size} supercell{left}"
        noise = f"acoustic noise {self.noise_thz:.2f} THz"
        if self.result == "imaginary_modes":
            worst = "; ".join(mode.words for mode in self.soft[:3])
            more = f" and at {len(self.soft) - 3} more" if len(self.soft) > 3 else ""
            return f"imaginary modes: {worst}{more} ({where}, {noise})"
        if self.result == "uncertain":
            return f"vibrations uncertain: {self.detail} ({where}, {noise})"
        return f"no imaginary mode ({where}, {noise})"


class Suspect(Record):
    """A suspect under one reference, with the reasons."""

    relaxation_id: str
    candidate_id: str
    reference_id: str
    reference_version: str
    suspicions: tuple[Suspicion, ...]
    reasons: tuple[str, ...]  # one sentence each, with numbers
    second_look: SecondLook


class TrainingOverlap(Record):
    """Whether the training data of the proposing model held a candidate's formula or parent."""

    candidate_id: str
    model: str
    formula_seen: bool | None  # None: its training data are unknown
    match_id: str | None  # the known phase it is, or is a substitution of
    match_seen: bool | None
    words: str
