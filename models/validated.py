"""Settings checked against their model: every error names the key, the line and what to write.

pydantic alone would take true for 1, and 1 for true.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hullward.models.errors import InputError

S = TypeVar("S", bound=BaseModel)
Place = tuple[Any, ...]
MOST_ERRORS = 5  # of a file, in one message

_REMEDIES = {
    "string_type": "write text in quotes",
    "tuple_type": "write a list: [A, B]",
    "dict_type": "write keys and values: {KEY: VALUE}",
    "model_type": "write keys and values: {KEY: VALUE}",
    "int_type": "write a whole number, or leave the line out",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number, or leave the line out",
    "float_parsing": "write a decimal number, such as 1.5",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "path_type": "write a path, in quotes",
}


def validated(
    kind: type[S],
    data: Mapping[str, Any],
    where: str,
    line_of: Callable[[Sequence[Any]], int | None] = lambda place: None,
) -> S:
    """Check settings; `where` names them in the message, line_of gives the line of a key.

    Raises InputError.
    """
    wrong = list(_misread(kind, data, ()))
    if not wrong:
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            wrong = [(first["loc"], _explain(first, kind)) for first in error.errors()]
    lines = []
    for place, message in wrong[:MOST_ERRORS]:
        line = line_of(place or _mentioned(message, data))
        lines.append(message if line is None else f"line {line}: {message}")
    if len(wrong) > MOST_ERRORS:
        lines.append(f"and {len(wrong) - MOST_ERRORS} more")
    raise InputError(f"{where}: " + "; ".join(lines))


def _misread(kind: type[BaseModel], data: Mapping[str, Any], place: Place) -> Iterator[Any]:
    """(place, message) of every true or false for a number or text, and number for true."""
    for key, value in data.items():
        field = kind.model_fields.get(key)
        if field is None:
            continue
        here, kinds = (*place, key), set(_leaves(field.annotation))
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner and isinstance(value, dict):
            yield from _misread(inner[0], value, here)
            continue
        name = ".".join(here)
        for found in _scalars(value):
            if isinstance(found, bool) and bool not in kinds and Any not in kinds:
                said = str(found).lower()
                yield here, f"`{name}`: expected a value, found {said}: write it, text in quotes"
            elif type(found) in (int, float) and kinds <= {bool, type(None)}:
                yield here, f"`{name}`: write true or false, not {found}"


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types inside an annotation: of tuples and mappings those of their members."""
    members = [a for a in get_args(annotation) if a is not Ellipsis]
    if not members:
        yield annotation
    for member in members:
        yield from _leaves(member)


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _scalars(one)
    else:
        yield value


def _mentioned(message: str, data: Mapping[str, Any]) -> Place:
    """The first key of the file that a message names."""
    return tuple(word for word in re.findall(r"[a-z_]+", message) if word in data)[:1]


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One pydantic error in one line, with the nearest valid key for an unknown one."""
    location = [str(part) for part in error["loc"]]
    for part in location[:-1]:
        field = model.model_fields.get(part)
        for inner in _leaves(field.annotation) if field else ():
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], list(model.model_fields), n=1, cutoff=0.3)
        valid = f"did you mean `{near[0]}`?" if near else f"valid: {', '.join(model.model_fields)}"
        return f"unknown key `{key}`; {valid}"
    if error["type"] == "missing":
        return f"`{key}` is missing: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"`{key}`: {_none_of(error['input'], error['ctx']['expected'])}"
    if not key:
        return message
    found, remedy = error["input"], _REMEDIES.get(error["type"])
    if not isinstance(found, dict) and "://" not in str(found):  # a URL may hold a key
        message += f" (found {reprlib.repr(found)})"
    return f"`{key}`: {message}" + (f": {remedy}" if remedy else "")


def _none_of(found: Any, expected: str) -> str:
    """That a value is none of the known ones, with the one that was probably meant."""
    known = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; write one of: {', '.join(known)}"
    return f"{reprlib.repr(found)} is not known{hint}"
