"""Read the attempts of a generator: what it wrote, and what it was asked to write.

The files are those of `hullward.tools.crystal.files`. The wish of an attempt comes from the columns
`target_formula`, `target_elements` ('Li-Mn-O', or a list), `target_space_group` and
`target_e_above_hull` (eV/atom), or from a `prompt` in the words of LLaMat-CIF. Text in the form of
the asymmetric unit is recognised by its first line, a bare number.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from hullward.models.crystal import Crystal
from hullward.models.language import crystal_prompts as words
from hullward.tools.crystal.files import CifReader, RawInput, parse_raw, read_inputs, text_format
from hullward.tools.records import Flaw, Wish

_SPACE_GROUP = re.compile(re.escape(words.SPACE_GROUP) + r"(\d{1,3})\b")
_E_HULL = re.compile(re.escape(words.E_HULL) + r"(-?\d+(?:\.\d+)?)")
_ELEMENTS = re.compile(re.escape(words.ELEMENTS) + r"([A-Z][A-Za-z, ]*?)\.")


@dataclass(frozen=True)
class Attempt:
    """One output of a generator: its crystal or its flaw, and the wish."""

    source: str
    found: Crystal | Flaw
    wish: Wish


def read_attempts(path: Path) -> list[Attempt]:
    """Every attempt of a file or folder, in order; raises InputError as `read_inputs` does."""
    with CifReader() as reader:
        return [
            Attempt(raw.source, parse_raw(raw.raw, raw.format, reader), _wish(raw))
            for raw in read_inputs(path)
        ]


def parse_text(text: str) -> Crystal | Flaw:
    """The crystal of a text in either form, or its flaw."""
    return parse_raw(text, text_format(text))


def _wish(raw: RawInput) -> Wish:
    row = raw.row
    prompt = row.get("prompt")
    text = prompt if isinstance(prompt, str) else ""
    elements = row.get("target_elements") or (m[1] if (m := _ELEMENTS.search(text)) else None)
    if isinstance(elements, str):
        elements = re.findall(r"[A-Z][a-z]?", elements)
    space_group = row.get("target_space_group") or (m[1] if (m := _SPACE_GROUP.search(text)) else 0)
    height = row.get("target_e_above_hull", m[1] if (m := _E_HULL.search(text)) else None)
    return Wish(
        formula=raw.target_formula,
        elements=tuple(elements) if elements else (),
        space_group=_whole(space_group) or None,
        e_above_hull_ev_per_atom=_number(height),
    )


def _whole(value: object) -> int:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else 0


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
