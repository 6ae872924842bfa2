"""Records of what a candidate really is: next to what is known, and next to what was trained on."""

from __future__ import annotations

from typing import Literal

from hullward.tools.records import Record

NoveltyKind = Literal[
    "known",  # a known phase, the same elements
    "duplicate",  # of an earlier candidate
    "lanthanide_swap",  # a known phase where lanthanides are not told apart
    "substitution",  # the arrangement of a known phase, other elements
    "structure_type",  # that of no known phase, but of a type in the prototype library
    "new_prototype",
    "not_compared",  # said plainly, with the reason
]


class Explanation(Record):
    """One label a candidate: what it is next to everything known, as proposed or as relaxed."""

    candidate_id: str
    moment: Literal["before", "after"]  # relaxation
    kind: NoveltyKind
    match_id: str | None  # of a phase, an earlier candidate or a structure type
    match_formula: str | None
    exchanged: tuple[str, ...]  # 'Na→K': the match's element, ours; those that differ
    inverse: bool  # cations stand where the match has anions
    rms_a: float | None  # rms displacement over (V/n)^(1/3), no unit; None: no superposition made
    against: str  # what it was compared with, in words
    against_id: str  # the same, hashed: another one makes this label stale
    words: str  # all of it in one phrase
    disorder: str  # why species may share a site in truth; '' where none are similar and alike
