"""What a language model wrote, cut down to the structure in it, or why there is none.

Models trained on plain text run on after the last site, and chat models put fences around what
they write. Both are cut, and how much was cut is told; inside the structure nothing is mended.
The answer itself is stored elsewhere, word for word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from hullward.tools.crystal.input_checks import shorten
from hullward.tools.crystal.text.cell import split_completion
from hullward.tools.records import Flaw, Reason

_FENCE = re.compile(r"\A\s*```[a-z]*[ \t]*\n(.*?)(?:\n```.*|\Z)", re.DOTALL)
_NUMBERS = re.compile(r"^\s*[0-9.]+[ \t,]+[0-9.]+[ \t,]+[0-9.]+\s*$", re.MULTILINE)
_OF_A_SITE = re.compile(r"[A-Z][a-z]?[ \t\r]*(?:\n|\Z)|[-+.0-9]")
REPEATS = 4  # the same site so often in a row is a loop, not a crystal


@dataclass(frozen=True, kw_only=True)
class CutCompletion:
    """raw: what the codec is to read.  flaw: what the codec cannot see.  cut: characters left."""

    raw: str
    flaw: Flaw | None = None
    cut: int = 0


def read_asymmetric(
    text: str, finish_reason: str = "unknown", fault: str | None = None
) -> CutCompletion:
    """The same for the asymmetric unit, whose last line ends it: nothing follows that is cut."""
    raw = text.strip()
    if raw and (finish_reason == "length" or fault == "truncated"):
        detail = f"cut at its greatest length, ends {shorten(raw[-40:])}"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.TRUNCATED, detail=detail))
    if raw and not re.match(r"[0-9]{1,3}[ \t\r]*$", raw, re.MULTILINE):
        detail = f"no space group number; it begins {shorten(raw)}"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.PROSE, detail=detail))
    return CutCompletion(raw=raw, cut=len(text) - len(raw))


def read_completion(
    text: str, finish_reason: str = "unknown", fault: str | None = None
) -> CutCompletion:
    """The crystal text in a completion.

    finish_reason and fault are those of a `hullward.models.language.protocol.Completion`. A text cut at its
    length is accepted only where the model had gone on to something else already.
    """
    if not text.strip():
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.EMPTY, detail="no text"))
    if fault == "repetition" or finish_reason == "repetition":
        detail = f"the answer goes round in circles, ends {shorten(text[-40:])}"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.REPETITION, detail=detail))
    fenced = _FENCE.match(text)
    body = (fenced[1] if fenced else text).lstrip()
    head, rest = split_completion(body)
    more_sites = _OF_A_SITE.match(rest.lstrip()) is not None  # spoilt ones: the codec says how
    if head and _loops(head):
        detail = f"one site {REPEATS} times or more in a row"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.REPETITION, detail=detail))
    if head and not rest.strip() and (finish_reason == "length" or fault == "truncated"):
        sites = (head.rstrip().count("\n") - 1) // 2
        detail = f"cut at its greatest length after {sites} sites"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.TRUNCATED, detail=detail))
    if head and not more_sites:
        return CutCompletion(raw=head.rstrip(), cut=len(text) - len(head.rstrip()))
    if not head and not _NUMBERS.search(body):
        detail = f"no line of three numbers; it begins {shorten(body)}"
        return CutCompletion(raw=text, flaw=Flaw(reason=Reason.PROSE, detail=detail))
    return CutCompletion(raw=body.rstrip(), cut=len(text) - len(body.rstrip()))


def _loops(head: str) -> bool:
    """Whether one and the same site is written again and again."""
    lines = head.split("\n")[2:]
    sites = list(zip(lines[::2], lines[1::2], strict=False))
    run = 1
    for before, after in pairwise(sites):
        run = run + 1 if before == after else 1
        if run >= REPEATS:
            return True
    return False
