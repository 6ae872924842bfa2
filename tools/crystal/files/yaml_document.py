"""Structures in YAML, as pymatgen writes them; numbers as in YAML 1.2, aliases bounded."""

from __future__ import annotations

import re
from typing import Any

from hullward.models.errors import InputError
from hullward.tools.crystal.input_checks import shorten

MAX_YAML_BYTES = 20_000_000
MAX_VALUES = 5_000_000  # with every alias written out


def load_yaml(text: str, name: str) -> Any:
    """The value of a YAML document; raises InputError, with the line, where there is none."""
    import yaml

    class Loader(yaml.CSafeLoader):
        """PyYAML's safe loader, which takes 1e-05 for text otherwise."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )
    try:
        value = yaml.load(text, Loader)  # noqa: S506 - a safe loader
        if _count(value, {}) > MAX_VALUES:
            raise InputError(f"{name}: more than {MAX_VALUES:,} values, aliases written out")
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name} is no YAML: {shorten(str(error), 200)}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply, or an alias that holds itself") from None
    return value


def _count(value: object, known: dict[int, int]) -> int:
    """How many values a value holds, with every alias written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]
