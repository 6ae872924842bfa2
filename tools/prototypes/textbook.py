"""Phases that textbooks name, built from their structure type and their elements.

`data/textbook_phases.yaml` lists them by type. Cells are scaled to usual bond lengths, so volumes
are estimates, and free parameters are those of the type's own compound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal import bond_scale
from hullward.tools.prototypes.library import build_type, make_prototype, prototype_library

FILE = "textbook_phases.yaml"
_TERM = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True)
class TextbookPhase:
    """A phase, the name of its structure type, and an estimate of its cell."""

    type_name: str
    crystal: Crystal

    @property
    def name(self) -> str:
        return f"{self.crystal.formula}, {self.type_name} type"


def textbook_phases() -> Iterator[TextbookPhase]:
    """Every phase of the list, in its order. Raises InputError for an entry that does not fit."""
    import yaml

    library = {p.prototype_id: p for p in prototype_library()}
    text = (files("hullward.data") / FILE).read_text(encoding="utf-8")
    for entry in yaml.safe_load(text):
        name = entry["type"]
        if "cell" in entry and name not in library:
            library[name] = make_prototype(name, build_type(entry))
        if name not in library:
            raise InputError(f"data/{FILE}: no structure type {name!r}; give its cell and sites")
        prototype = library[name]
        for phase in entry["phases"].split():
            elements = _replacements(entry, phase)
            species = [elements[symbol] for symbol in prototype.species]
            symbols = tuple(dict.fromkeys(species))
            placed = np.array([symbols.index(symbol) for symbol in species])
            factor = bond_scale(symbols, placed, prototype.distances)
            crystal = Crystal.from_arrays(
                prototype.lattice * factor, species, prototype.frac_coords
            )
            yield TextbookPhase(entry["as"], crystal)


def _replacements(entry: dict[str, Any], phase: str) -> dict[str, str]:
    """The element of a phase for each of the type's compound, by their places in the spelling."""
    theirs, ours = _TERM.findall(entry["as"]), _TERM.findall(phase)
    if [n for _, n in theirs] != [n for _, n in ours]:
        raise InputError(f"data/{FILE}: {phase} is not spelt as {entry['as']} of {entry['type']}")
    return {old: new for (old, _), (new, _) in zip(theirs, ours, strict=True)}
