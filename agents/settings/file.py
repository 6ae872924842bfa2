"""Read settings from a file; an error says in one line what is wrong."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from hullward.agents.settings.campaign import Campaign
from hullward.agents.settings.systems import read_system
from hullward.models.errors import InputError
from hullward.models.formulas import element_hint
from hullward.models.validated import validated
from hullward.models.yaml_file import read_yaml
from hullward.tools.records import Protocol

S = TypeVar("S", bound=BaseModel)
YAML = (".yaml", ".yml")


def find_campaign(named: str) -> Campaign:
    """The campaign of a file, or one of a chemical system with every setting at its default.

    Raises InputError for what is neither, with what may be meant.
    """
    path = Path(named)
    if path.is_dir():
        raise InputError(
            f"{named} is a folder: name a campaign file in it, or go on with what it holds by "
            f"`hullward resume {named}`"
        )
    if path.exists():
        return read_campaign(path)
    if path.suffix in YAML or os.sep in named:
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in YAML)
        match = difflib.get_close_matches(path.name, near, n=1)
        hint = f"; did you mean {path.parent / match[0]}?" if match else ""
        raise InputError(f"campaign file {named} does not exist{hint}")
    return campaign_of(named)


def campaign_of(system: str) -> Campaign:
    """The campaign of one chemical system, named after it. Raises InputError for what is none."""
    try:
        read = read_system(system)
    except ValueError as error:
        hint = element_hint(system)
        why = hint if "the system" in hint else f": {error}"
        raise InputError(
            f"{system!r} is neither a campaign file nor a chemical system such as Li-Mn-O{why}"
        ) from None
    return validated(Campaign, {"name": read.lower(), "systems": [read]}, system)


def read_campaign(path: Path) -> Campaign:
    """Read and check a campaign file. Raises InputError: what, which line and how to fix it."""
    file = read_yaml(path, "campaign file")
    data = dict(file.data)
    for key in ("known_phases", "seeds_from"):
        if data.get(key) == "":
            raise InputError(
                f"campaign file {path}: line {file.line([key])}: `{key}` is empty: name a path, or "
                "leave the line out"
            )
        if isinstance(data.get(key), str):
            data[key] = _absolute(data[key], path.parent)
        elif isinstance(data.get(key), list):
            data[key] = [_if_text(one, path.parent) for one in data[key]]
    for key in ("crystal", "chat"):
        if key in data:
            data[key] = _backend_paths(data[key], path.parent)
    for key in ("reference", "second_reference"):
        if isinstance(data.get(key), str):
            data[key] = absolute_reference(data[key], path.parent)
    return validated(Campaign, data, f"campaign file {path}", file.line)


def absolute_reference(spec: str, folder: Path) -> str:
    """The same reference, its file named so that every working directory finds it."""
    name = spec.removeprefix("file:")
    return spec if name == spec else f"file:{_absolute(name, folder)}"


def _backend_paths(given: Any, folder: Path) -> Any:
    """The same backend, its folder or file named so that every working directory finds it."""
    if isinstance(given, str) and "/" in given and "://" not in given:
        return {"path": _absolute(given, folder)}
    if isinstance(given, dict):
        files = {k: _if_text(given[k], folder) for k in ("path", "recorded") if given.get(k)}
        return {**given, **files}
    return given


def _if_text(value: Any, folder: Path) -> Any:
    """A path found from every working directory; what is no text is left to be refused."""
    return _absolute(value, folder) if isinstance(value, str) else value


def _absolute(name: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expanduser(name))


def parse_settings(kind: type[S], data: dict[str, Any], where: str) -> S:
    """Check settings; `where` names them in the message. Raises InputError."""
    return validated(kind, data, where)


def parse_protocol(**fields: Any) -> Protocol:
    """A protocol from the command line; raises InputError for wrong values."""
    return validated(Protocol, fields, "protocol")
