"""Parameters that a server refuses: found in its refusal, left out, and remembered.

Servers that call themselves compatible refuse a seed, several texts at once, penalties, or the old
name of the limit of tokens. Such a request is sent again without them, which costs one exchange for
each kind of server. What the answer may be is checked in any case, so nothing depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hullward.models.language import parse_json
from hullward.models.serving.faults import ServerFaultError, message_of
from hullward.models.serving.wire import Call

_OPTIONAL = frozenset(
    {
        "frequency_penalty", "logprobs", "min_p", "n", "presence_penalty", "repetition_detection",
        "repetition_penalty", "response_format", "seed", "skip_special_tokens", "stop",
        "structured_outputs", "temperature", "top_k", "top_p",
    }
)  # fmt: skip
# the two names of the limit, which is never left out: it bounds the cost of an answer
_LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_STATUSES = (400, 422, 500, 501)  # some templates fail with 500
SYSTEM = "system role"  # among what is left out: the first user message then holds its text
# Words in which a parameter may be meant, where its name is not enough or not given
_MEANT = {
    "n": r"\bn ?(?:[=<>]|must|is|should|has)|multiple (?:choices|completions)|one choice",
    "response_format": r"json_schema|json schema|structured output|guided",
    "structured_outputs": r"guided|grammar|json_schema|json schema|structured output",
}
_REFUSING = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|permitted|allowed|extra|forbidden|invalid|must be|"
    r"cannot|deprecated|implement|available|only|required|incompatible|ignored|must alternate"
)
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt|instruction)|role.{0,20}\bsystem\b|roles must alternate"
)
# the limit gets its other name only where it is unknown, not where its value is refused
_UNKNOWN = re.compile(
    r"unsupport|not support|unknown|unrecogni[sz]ed|unexpected|permitted|extra|forbidden|"
    r"deprecated|max_completion_tokens' instead"
)
_MOST_READ = 20_000  # characters of a refusal


class Parameters:
    """What the server of one model takes; one for all its requests."""

    def __init__(self) -> None:
        self._left_out: set[str] = set()
        self._renamed: dict[str, str] = {}

    def fitted(self, call: Call) -> Call:
        """The call without what the server refuses."""
        if not (self._left_out or self._renamed):
            return call
        names = self._renamed
        given = {names.get(k, k): v for k, v in call.arguments.items() if self._takes(k)}
        if SYSTEM in self._left_out and _has_system(call):
            given["messages"] = _without_system(given["messages"])
        return replace(
            call,
            arguments=given,
            extra={k: v for k, v in call.extra.items() if self._takes(k)},
            left_out=tuple(sorted(self._left_out & _parts(call))),
        )

    def learn(self, call: Call, fault: ServerFaultError) -> bool:
        """Whether the same call, fitted again, is another one after this refusal."""
        if fault.status not in _STATUSES or fault.kind not in ("refused", "server"):
            return False
        sent = _parts(call)
        text = message_of(fault.body)[:_MOST_READ].lower()
        found = set() if fault.status == 500 else _refused_in(fault.body, sent)
        self._left_out |= found & _OPTIONAL
        if SYSTEM in sent and _REFUSING.search(text) and _NO_SYSTEM.search(text):
            self._left_out.add(SYSTEM)
        unknown = _UNKNOWN.search(text)
        for name in found & _LIMITS.keys() if unknown and not self._renamed else ():
            self._renamed[name] = _LIMITS[name]
        gone = {name for name in sent if not self._takes(name) or name in self._renamed}
        return bool(gone)

    def _takes(self, name: str) -> bool:
        return name not in self._left_out


def _parts(call: Call) -> set[str]:
    """What a refusal may be about: the names of the parameters, and the system's role."""
    return {*call.arguments, *call.extra} | ({SYSTEM} if _has_system(call) else set())


def _has_system(call: Call) -> bool:
    messages = call.arguments.get("messages", ())
    return len(messages) > 1 and messages[0]["role"] == "system"


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the text of the system's in front of the next one's."""
    system, first, *others = messages
    return [first | {"content": f"{system['content']}\n\n{first['content']}"}, *others]


def _refused_in(body: bytes, sent: set[str]) -> set[str]:
    """The names of those parameters sent that a refusal is about."""
    candidates = sent & (_OPTIONAL | _LIMITS.keys())
    if named := set(_named_in(body)) - {"body"}:
        return named & candidates
    text = message_of(body)[:_MOST_READ].lower()
    if not _REFUSING.search(text):
        return set()
    return {name for name in candidates if _mentions(text, name)}


def _mentions(text: str, name: str) -> bool:
    """Whether a text is about a parameter: a plain word counts in quotes, or as a parameter."""
    if name in _MEANT and re.search(_MEANT[name], text):
        return True
    if "_" in name:
        return re.search(rf"(?<![a-z_]){name}(?![a-z_])", text) is not None
    quoted = rf"[`'\"*]{name}[`'\"*]"
    worded = rf"(?:parameter|param|argument|field|option|property)s?:? {name}\b"
    before = rf"\b{name}\b (?:is not|not|parameter|argument|must|cannot|isn't)"
    behind = rf"support(?:s|ed|ing)? (?:the |for )?{name}\b"
    listed = rf"[:,(] ?{name}\b(?= ?[,.;:)]|$)"
    return re.search(f"{quoted}|{worded}|{before}|{behind}|{listed}", text) is not None


def _named_in(body: bytes) -> Iterator[str]:
    """Parameters that a refusal names in a field of its own: OpenAI's `param`, pydantic's `loc`."""
    try:
        left: list[Any] = [parse_json(body)]
    except ValueError:
        return
    for _ in range(1000):  # parts of the body that are looked at
        if not left:
            return
        part = left.pop()
        if isinstance(part, list):
            left += part[:100]
        elif isinstance(part, dict):
            if isinstance(part.get("param"), str):
                yield part["param"].split(".")[0]
            if isinstance(part.get("loc"), list):
                yield from (word for word in part["loc"] if isinstance(word, str))
            left += [value for value in part.values() if isinstance(value, dict | list)][:100]
