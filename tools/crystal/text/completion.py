"""Cut the completion of a language model down to the crystal text in it, or find its flaw.

Models trained on plain text write on after the last site, and chat models put fences around their
answer. Both are cut off and the number of characters is kept; the crystal text is not changed. The
whole answer is stored elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from hullward.tools.crystal.input_checks import shorten
from hullward.tools.crystal.text.cell import split_completion
from hullward.tools.records import Flaw, Reason

_FENCE = re.compile(r"\A\s*```[a-z]*[ \t]*\n(.*?)(?:\n```.*|\Z)", re.DOTALL)
_NUMBERS = re.compile(r"^\s*[0-9.]+[ \t,]+[0-9.]+[ \t,]+[0-9.]+\s*$", re.MULTILINE)
_OF_A_SITE = re.compile(r"[A-Z][a-z]?[ \t\r]*(?:\n|\Z)|[-+.0-9]")
REPEATS = 4  # the same site so often in a row is a loop


@dataclass(frozen=True, kw_only=True)
class CutCompletion:
    """raw: the text to parse.  flaw: one that parsing cannot find.  cut: characters cut off."""

    raw: str
    flaw: Flaw | None = None
    cut: int = 0


def read_asymmetric(
    text: str, finish_reason: str = "unknown", fault: str | None = None
) -> CutCompletion:
    """As `read_completion`, for the asymmetric unit, after which nothing is cut off."""
    raw = text.strip()
    if raw and (finish_reason == "length" or fault == "truncated"):
        detail = f"cut off at the token limit, ends {shorten(raw[-40:])}"
        return _flawed(text, Reason.TRUNCATED, detail)
    if raw and not re.match(r"[0-9]{1,3}[ \t\r]*$", raw, re.MULTILINE):
        detail = f"no space group number; the answer begins {shorten(raw)}"
        return _flawed(text, Reason.PROSE, detail)
    return CutCompletion(raw=raw, cut=len(text) - len(raw))


def read_completion(
    text: str, finish_reason: str = "unknown", fault: str | None = None
) -> CutCompletion:
    """The crystal text in a completion.

    finish_reason and fault are those of a `hullward.models.language.protocol.Completion`. A text
    that ends at the token limit is accepted only if other text follows the last site.
    """
    if not text.strip():
        return _flawed(text, Reason.EMPTY, "no text")
    if fault == "repetition" or finish_reason == "repetition":
        detail = f"the answer repeats itself, ends {shorten(text[-40:])}"
        return _flawed(text, Reason.REPETITION, detail)
    fenced = _FENCE.match(text)
    body = (fenced[1] if fenced else text).lstrip()
    head, rest = split_completion(body)
    more_sites = _OF_A_SITE.match(rest.lstrip()) is not None  # malformed ones: parsing finds how
    if head and _loops(head):
        return _flawed(text, Reason.REPETITION, f"one site {REPEATS} times or more in a row")
    if head and not rest.strip() and (finish_reason == "length" or fault == "truncated"):
        sites = (head.rstrip().count("\n") - 1) // 2
        return _flawed(text, Reason.TRUNCATED, f"cut off at the token limit after {sites} sites")
    if head and not more_sites:
        return CutCompletion(raw=head.rstrip(), cut=len(text) - len(head.rstrip()))
    if not head and not _NUMBERS.search(body):
        detail = f"no line of three numbers; the answer begins {shorten(body)}"
        return _flawed(text, Reason.PROSE, detail)
    return CutCompletion(raw=body.rstrip(), cut=len(text) - len(body.rstrip()))


def _flawed(text: str, reason: Reason, detail: str) -> CutCompletion:
    return CutCompletion(raw=text, flaw=Flaw(reason=reason, detail=detail))


def _loops(head: str) -> bool:
    """Whether the same site comes REPEATS times in a row."""
    lines = head.split("\n")[2:]
    sites = zip(lines[::2], lines[1::2], strict=False)
    return any(len(list(same)) >= REPEATS for _, same in groupby(sites))
