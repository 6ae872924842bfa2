"""YAML files that people write: read by the rules of YAML 1.2, or refused with the line.

By these rules 010 is ten, and `No`, 1:30 and 2024-05-01 are text. Keys are always text. What hides
a slip or costs without limit is refused: repeated keys, tags, several documents, control
characters, deep nesting, aliases that multiply.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hullward.models.errors import InputError, system_reason

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_VALUES = 10_000  # with every alias counted as often as it stands
MAX_DIGITS = 100  # of a whole number

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_REMEDIES = (  # what PyYAML says, and what to do
    (r"'\t'", "a tab where YAML wants spaces: indent with spaces"),
    (
        "mapping values are not allowed",
        "lines that do not fit together: one `key: value` a line, and quote text with `: `",
    ),
    ("could not find expected ':'", "a line without `: `: write `key: value`"),
    ("found undefined alias", "an alias without its anchor: write the value out, or quote the `*`"),
    ("found character '@'", "text cannot begin with @: quote it"),
    ("found character '`'", "text cannot begin with a backtick: quote it"),
    ("found character '%'", "text cannot begin with %: quote it"),
    ("expected ',' or ']'", "a list without its end: close it with ]"),
    ("expected ',' or '}'", "keys in braces without their end: close them with }"),
    ("unknown escape character", "an unknown escape in double quotes: use single quotes"),
    ("quoted scalar", "quotes that are not closed: close them"),
    ("expected <block end>", "indented unlike the lines above: line it up with them"),
    ("special characters are not allowed", "a control character: take it out"),
)


@dataclass(frozen=True)
class YamlFile:
    """What a file holds, and the line of every key and list item, by its place."""

    data: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]

    def line(self, place: Sequence[Any]) -> int | None:
        """The line of a value, or of the nearest thing around it that has one."""
        for length in range(len(place), 0, -1):
            if (found := self.lines.get(tuple(place[:length]))) is not None:
                return found
        return None


def read_yaml(path: Path, what: str) -> YamlFile:
    """Read `key: value` lines. Raises InputError naming the file as `what`, the line and remedy."""
    where = f"{what} {path}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{where} does not exist") from None
    except OSError as error:
        raise InputError(f"{where} cannot be read: {system_reason(error)}") from error
    except ValueError as error:  # a name with a zero byte
        raise InputError(f"{where} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{where} is larger than {MAX_BYTES // 1000} kB: shorten it")
    text = _decoded(content, where)
    try:
        builder = _Builder(yaml.parse(text, Loader=yaml.SafeLoader))
        data = builder.document()
    except _WrongError as error:
        raise InputError(f"{where}: line {error.line}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {_explain(error, text)}") from error
    if not isinstance(data, dict):
        raise InputError(
            f"{where}: line 1: expected `key: value` lines, found {_kind(data)}; write `name: …`"
        )
    return YamlFile(data, builder.lines)


def _kind(data: Any) -> str:
    return {"NoneType": "nothing", "list": "a list", "str": "text"}.get(
        type(data).__name__, f"the value {data!r}"
    )


def _decoded(content: bytes, where: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{where}: line 1: its text is UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}: line {line}: byte 0x{content[error.start]:02x} is not UTF-8: save the file "
            "as UTF-8"
        ) from None


def _explain(error: yaml.YAMLError, text: str) -> str:
    """An error of PyYAML in one line: the line of the file, what is wrong, and what to do."""
    line, said = 1, str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = f"{error.context or ''} {error.problem or ''}".strip()
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in said), said)
    return f"line {line}: not valid YAML: {remedy}"


class _WrongError(Exception):
    """Valid YAML that is refused."""

    def __init__(self, event: Any, message: str) -> None:
        super().__init__(message)
        self.line = event.start_mark.line + 1


@dataclass
class _Builder:
    """Makes plain values of PyYAML's events; an alias is a copy of what its anchor names."""

    events: Iterator[Any]  # PyYAML's
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    values: int = 0
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)  # a value, and its size

    def document(self) -> Any:
        """The only document of the stream; None where there is none."""
        data = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _WrongError(event, "a second document begins: keep one in a file")
                if event.version not in (None, (1, 2)):
                    raise _WrongError(event, "this is read as YAML 1.2: take the %YAML line out")
                data = self._value(next(self.events), (), 1)
        return data

    def _value(self, event: Any, place: tuple[str | int, ...], depth: int) -> Any:
        before = self.values
        self._count(event, 1)
        if depth > MAX_DEPTH:
            raise _WrongError(event, f"nested deeper than {MAX_DEPTH} levels: flatten it")
        if isinstance(event, yaml.AliasEvent):
            value, size = self._anchored(event)
            self._count(event, size)
            return copy.deepcopy(value)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list(event, place, depth)
        else:
            value = self._mapping(event, place, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def _count(self, event: Any, more: int) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            raise _WrongError(event, f"more than {MAX_VALUES} values, aliases counted: shorten it")

    def _anchored(self, event: Any) -> tuple[Any, int]:
        found = self.anchors.get(event.anchor)
        if found is None:
            raise _WrongError(
                event, f"alias *{event.anchor} before the end of its anchor: quote it"
            )
        return found

    def _list(self, start: Any, place: tuple[str | int, ...], depth: int) -> list[Any]:
        _refuse_tag(start)
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            inside = (*place, len(items))
            self.lines[inside] = event.start_mark.line + 1
            items.append(self._value(event, inside, depth + 1))
        return items

    def _mapping(self, start: Any, place: tuple[str | int, ...], depth: int) -> Any:
        _refuse_tag(start)
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event)
            line = event.start_mark.line + 1
            if key in first:
                raise _WrongError(
                    event, f"key `{key}` again, after line {first[key]}: keep one of them"
                )
            first[key] = line
            inside = (*place, key)
            self.lines[inside] = line
            value = self._value(next(self.events), inside, depth + 1)
            if key == "<<" and getattr(event, "style", "") is None:
                for one in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(one, dict):
                        raise _WrongError(event, "`<<` merges keys, not values: write them out")
                    merged |= one
            else:
                found[key] = value
        return merged | found

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            raise _WrongError(event, "a key that is no plain text: write text, or quote it")
        _refuse_tag(event)
        _refuse_unprintable(event)
        return str(event.value)


def _refuse_tag(event: Any) -> None:
    if event.tag is not None:
        raise _WrongError(event, f"the tag {event.tag}: take it out, and quote what is text")


def _refuse_unprintable(event: Any) -> None:
    if _UNPRINTABLE.search(event.value):
        raise _WrongError(event, "a control character or half a character: take it out")


def _scalar(event: Any) -> Any:
    """The value of text; quoted text is text."""
    _refuse_tag(event)
    _refuse_unprintable(event)
    try:
        return str(event.value) if event.style is not None else plain_value(str(event.value))
    except ValueError as error:
        raise _WrongError(event, str(error)) from None


def plain_value(text: str) -> Any:
    """The value of unquoted text by the core schema of YAML 1.2.

    Raises ValueError for a whole number of more than `MAX_DIGITS` digits.

    >>> [plain_value(text) for text in ("010", "0x10", "5e-1", "No", "1:30", "~")]
    [10, 16, 0.5, 'No', '1:30', None]
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(_not_too_long(text))
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(_not_too_long(text), 0)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if infinite := _INFINITY.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if _NAN.fullmatch(text) else text


def _not_too_long(number: str) -> str:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number)} digits: at most {MAX_DIGITS}")
    return number
