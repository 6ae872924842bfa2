"""What a model answered, without what it thought aloud, fenced or wrote around it.

An answer is never repaired but for two habits of JSON writers: comments and a comma before a
closing bracket. Everything here takes linear time, since a server may send megabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

A = TypeVar("A", bound=BaseModel)

_NAMES = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|seed:think"
_THOUGHT = re.compile(
    rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)
_THOUGHT_ENDS = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
# tokens that end a turn; servers that do not skip special tokens show them
_TURN_ENDS = re.compile(
    r"(?:</s>|<eos>|<end_of_turn>|</?answer>|<｜end▁of▁sentence｜>"
    r"|<\|(?:im_end|eot_id|eom_id|end|end_of_text|endoftext|return|END_OF_TURN_TOKEN)\|>|\s)+\Z"
)
_ANSWER_BEGINS = re.compile(r"\A\s*(?:<answer>|<s>|<bos>|<\|im_start\|>assistant\s)\s*", re.I)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*$", re.MULTILINE)
# Strings stand first, so that nothing within them is taken for a comment or a comma. What lacks its
# end reaches to the end of the text: else each beginning would be searched for one, in square time.
_STRING = r'("(?:[^"\\\n]|\\[\s\S])*+(?:"|\n|\\?\Z))'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)")
_LAST_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])")

MOST_CHARS = 2**17  # of an answer that is read, its thoughts not counted; a plan has a thousand
_MOST_DIGITS = 400  # Python refuses to read more than 4300
_MOST_TRIED = 64  # braces in prose where an object may begin


def without_thoughts(text: str) -> str:
    """The text behind the last thought, without tokens that end a turn; '' for thoughts alone.

    >>> without_thoughts("<think>salt?</think> NaCl</s>")
    'NaCl'
    """
    ends = [match.end() for match in _THOUGHT_ENDS.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    if not ends and (begins := _THOUGHT.search(text)) and not text[: begins.start()].strip():
        return ""
    rest = _without_turn_end(rest.removeprefix("\ufeff"))
    return _ANSWER_BEGINS.sub("", rest)


def fenced(text: str) -> list[str]:
    """What stands in code fences, in order; a last fence may lack its end.

    >>> fenced(chr(10).join(["So:", "```json", "{}", "```", "and", "~~~", "[]"]))
    ['{}', '[]']
    """
    marks = [(match.start(), match.end()) for match in _FENCE.finditer(text)]
    starts, ends = marks[::2], [start for start, _ in marks[1::2]]
    ends += [len(text)] * (len(starts) - len(ends))
    return [
        text[begin + 1 : end].rstrip("\n") for (_, begin), end in zip(starts, ends, strict=True)
    ]


def read_json(model: type[A], text: str) -> A:
    """The first object in an answer that this pydantic model takes.

    Raises ValidationError, of the first candidate, where it takes none.
    """
    flaw: ValidationError | None = None
    for candidate in json_texts(text):
        try:
            return model.model_validate_json(candidate)
        except ValidationError as error:
            flaw = flaw or error
    if flaw is None:
        return model.model_validate_json("")
    raise flaw


def json_texts(text: str) -> Iterator[str]:
    """Texts in an answer that may be its JSON, the likeliest first; the answer itself if none.

    >>> next(json_texts('<think>{}?</think>Sure: {"a": [1, 2,]} // done'))
    '{"a": [1, 2]}'
    """
    answer = without_thoughts(text) or _without_turn_end(_THOUGHT_ENDS.sub(" ", text))
    if len(answer) > MOST_CHARS:
        yield answer[:_MOST_TRIED]
        return
    cleaned = _cleaned(answer)
    found = False
    for part in (answer, cleaned, *fenced(answer), *fenced(cleaned)):
        if _is_json(part):
            found = True
            yield part
    for whole in (answer, cleaned):
        for part in _objects(whole):
            found = True
            yield part
    if not found:
        yield answer


def _is_json(part: str) -> bool:
    try:
        return isinstance(parse_json(part), dict | list)
    except ValueError:
        return False


def _objects(text: str) -> Iterator[str]:
    """The JSON objects in a text, from left to right."""
    decoder = json.JSONDecoder()
    begin = text.find("{")
    for _ in range(_MOST_TRIED):
        if begin < 0:
            return
        try:
            _, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = begin + 1
        else:
            yield text[begin:end]
        begin = text.find("{", end)


def _cleaned(text: str) -> str:
    def keep(match: re.Match[str]) -> str:
        return match[1] or ""

    return _LAST_COMMA.sub(keep, _COMMENT.sub(keep, text))


def _without_turn_end(text: str) -> str:
    """The text without tokens at its end that end a turn, and without white space around it."""
    tail = text[-200:]
    return (text[: len(text) - len(tail)] + _TURN_ENDS.sub("", tail)).strip()


def _number(digits: str) -> float:
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises ValueError, also for one nested too deeply.

    A whole number of hundreds of digits becomes a float.
    """
    try:
        return json.loads(text, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
