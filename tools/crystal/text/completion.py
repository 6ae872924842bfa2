"""Cut the completion of a language model down to the crystal text in it, or find its flaw.

Models trained on plain text write on after the last site. Chat models think aloud, put prose and
fences around their answer, and servers show the tokens that end a turn. All that is cut off and the
number of characters is kept; the crystal text is not changed. The whole answer is stored elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from hullward.models.language import fenced, without_thoughts
from hullward.tools.crystal.input_checks import shorten
from hullward.tools.crystal.text.cell import begins_cell, find_cell, split_completion
from hullward.tools.records import Flaw, Reason

_NUMBERS = re.compile(r"^\s*[0-9.]+[ \t,]+[0-9.]+[ \t,]+[0-9.]+\s*$", re.MULTILINE)
_OF_A_SITE = re.compile(r"[A-Z][a-z]?[ \t\r]*(?:\n|\Z)|[-+.0-9]")
# a token that ends a turn, or a fence, glued to the last number
_GLUED = re.compile(r"</s>|<eos>|<end_of_turn>|<｜end▁of▁sentence｜>|<\|[A-Za-z_]{2,30}\|>|```")
REPEATS = 4  # the same site so often in a row is a loop
MOST_CHARS = 2**18  # of an answer that are looked at; 500 sites need about 9,000

# What an answer without a line of three numbers may be, the first that fits.
_OTHER_FORMS = (
    (re.compile(r"\s*[\[{]"), "JSON instead of crystal text"),
    (re.compile(r"data_|\s*_cell_length_a", re.MULTILINE), "a CIF instead of crystal text"),
    (re.compile(r"\s*(?:1[.):]|[-*•])[ \t]+[0-9]"), "a numbered or bulleted list"),
    (re.compile(r"[^\n]*[0-9](?:\\[nt]|<br ?/?>)"), "line breaks or tabs that are written out"),
    (re.compile(r"\s*(?![0-9])\d"), "digits that are not ASCII"),
    (re.compile(r"[0-9.]+[^\S \t\r\n][0-9.]"), "spaces that are not ASCII"),
)


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
    answer = without_thoughts(text)
    raw = (fenced(answer) or [answer])[0].strip() if "```" in answer[:200] else answer
    if text.strip() and not raw:
        return _thoughts_alone(text, finish_reason)
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
    answer = without_thoughts(text)
    if not answer:
        return _thoughts_alone(text, finish_reason)
    body = _crystal_part(answer[:MOST_CHARS])
    head, rest = split_completion(body)
    rest = rest.lstrip()
    # malformed ones, not a second crystal: parsing finds how
    more_sites = _OF_A_SITE.match(rest) is not None and not begins_cell(rest)
    if head and _loops(head):
        return _flawed(text, Reason.REPETITION, f"one site {REPEATS} times or more in a row")
    if (
        head
        and text.rstrip().endswith(head.rstrip())
        and (finish_reason == "length" or fault == "truncated")
    ):
        sites = (head.rstrip().count("\n") - 1) // 2
        return _flawed(text, Reason.TRUNCATED, f"cut off at the token limit after {sites} sites")
    if head and not more_sites:
        return CutCompletion(raw=head.rstrip(), cut=len(text) - len(head.rstrip()))
    if not head and not _NUMBERS.search(body):
        found = next((words for form, words in _OTHER_FORMS if form.match(body)), "")
        why = f", but {found}" if found else ""
        detail = f"no line of three numbers{why}; the answer begins {shorten(body)}"
        return _flawed(text, Reason.PROSE, detail)
    return CutCompletion(raw=body.rstrip(), cut=len(text) - len(body.rstrip()))


def _crystal_part(answer: str) -> str:
    """The part of an answer that begins as a crystal, whatever stands around it.

    Without one, the first fenced part, else all of it: parsing finds what is wrong.
    """
    parts = [_unglued(part) for part in (answer, *fenced(answer))]
    crystals = [part for part in parts if split_completion(part)[0]]
    if crystals:
        return crystals[0]
    return _unglued(answer[begin:]) if (begin := find_cell(answer)) is not None else parts[-1]


def _unglued(part: str) -> str:
    """The text up to a token that ends a turn, or a fence."""
    part = part.lstrip()
    glued = _GLUED.search(part)
    return part[: glued.start()] if glued else part


def _thoughts_alone(text: str, finish_reason: str) -> CutCompletion:
    if not _GLUED.sub("", text).strip():
        return _flawed(text, Reason.EMPTY, "no text but the end of a turn")
    reason = Reason.TRUNCATED if finish_reason == "length" else Reason.PROSE
    return _flawed(
        text, reason, f"thoughts alone, no answer behind them; ends {shorten(text[-40:])}"
    )


def _flawed(text: str, reason: Reason, detail: str) -> CutCompletion:
    return CutCompletion(raw=text, flaw=Flaw(reason=reason, detail=detail))


def _loops(head: str) -> bool:
    """Whether the same site comes REPEATS times in a row."""
    lines = head.split("\n")[2:]
    sites = zip(lines[::2], lines[1::2], strict=False)
    return any(len(list(same)) >= REPEATS for _, same in groupby(sites))
