"""Read settings from a file; an error says in one line what is wrong."""

from __future__ import annotations

import difflib
import os
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hullward.agents.settings.campaign import Campaign
from hullward.models.errors import InputError
from hullward.tools.records import Protocol

S = TypeVar("S", bound=BaseModel)


def read_campaign(path: Path) -> Campaign:
    """Read and check a campaign file. Raises InputError: what, where and how to fix it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"campaign file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"campaign file {path} cannot be read: {error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(data).__name__}")
    for key in ("known_phases", "seeds_from"):
        if isinstance(data.get(key), str):
            data[key] = _absolute(data[key], path.parent)
        elif isinstance(data.get(key), list):
            data[key] = [_absolute(str(p), path.parent) for p in data[key]]
    for key in ("crystal", "chat"):
        if key in data:
            data[key] = _backend_paths(data[key], path.parent)
    for key in ("reference", "second_reference"):
        if isinstance(data.get(key), str):
            data[key] = absolute_reference(data[key], path.parent)
    return parse_settings(Campaign, data, str(path))


def absolute_reference(spec: str, folder: Path) -> str:
    """The same reference, its file named so that every working directory finds it."""
    name = spec.removeprefix("file:")
    return spec if name == spec else f"file:{_absolute(name, folder)}"


def _backend_paths(given: Any, folder: Path) -> Any:
    """The same backend, its folder or file named so that every working directory finds it."""
    if isinstance(given, str) and "/" in given and "://" not in given:
        return {"path": _absolute(given, folder)}
    if isinstance(given, dict):
        files = {k: _absolute(str(given[k]), folder) for k in ("path", "recorded") if given.get(k)}
        return {**given, **files}
    return given


def _absolute(name: str, folder: Path) -> str:
    return os.path.abspath(folder / Path(name).expanduser())


def parse_settings(kind: type[S], data: dict[str, Any], where: str) -> S:
    """Check settings; `where` names them in the message. Raises InputError."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explain(first, kind) for first in error.errors()]
        raise InputError(f"{where}: " + "; ".join(lines)) from error


def parse_protocol(**fields: Any) -> Protocol:
    """A protocol from the command line; raises InputError for wrong values."""
    try:
        return Protocol.model_validate(fields)
    except ValidationError as error:
        raise InputError("; ".join(_explain(e, Protocol) for e in error.errors())) from error


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One pydantic error in one line, with the nearest valid key for an unknown one."""
    location = [str(part) for part in error["loc"]]
    for part in location[:-1]:
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        for inner in kinds:  # itself, or one of `X | None`
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], list(model.model_fields), n=1, cutoff=0.3)
        valid = f"did you mean `{near[0]}`?" if near else f"valid: {', '.join(model.model_fields)}"
        return f"unknown key `{key}`; {valid}"
    message = str(error["msg"]).removeprefix("Value error, ")
    found = (
        f" (found {reprlib.repr(error['input'])})"
        if key and not isinstance(error["input"], dict)
        else ""
    )
    return f"`{key}`: {message}{found}" if key else message
