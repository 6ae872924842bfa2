"""Structures in YAML, as pymatgen writes them: by the rules of YAML 1.2, aliases bounded."""

from __future__ import annotations

from typing import Any

from hullward.models.errors import InputError
from hullward.models.yaml_file import plain_value
from hullward.tools.crystal.input_checks import shorten

MAX_YAML_BYTES = 20_000_000
MAX_VALUES = 5_000_000  # with every alias written out


def load_yaml(text: str, name: str) -> Any:
    """The value of a YAML document; raises InputError, with the line, where there is none."""
    import yaml

    class Loader(yaml.CSafeLoader):
        """PyYAML's safe loader, whose own rules are those of YAML 1.1: `No` is false."""

    Loader.yaml_implicit_resolvers = {}
    Loader.add_constructor("tag:yaml.org,2002:str", _scalar)
    try:
        value = yaml.load(text, Loader)  # noqa: S506 - a safe loader
        if _count(value, {}) > MAX_VALUES:
            raise InputError(f"{name}: more than {MAX_VALUES:,} values, aliases written out")
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name} is no YAML: {shorten(str(error), 200)}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply, or an alias that holds itself") from None
    return value


def _scalar(_: object, node: Any) -> Any:
    return node.value if node.style else plain_value(node.value)


def _count(value: object, known: dict[int, int]) -> int:
    """How many values a value holds, with every alias written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]
