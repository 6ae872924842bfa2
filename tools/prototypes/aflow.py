"""AFLOW's list of structure types as pymatgen ships it (10.1016/j.commatsci.2017.01.017)."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class AflowType:
    """One type; polytypes may share a label."""

    label: str  # 'AB_cF8_225_a_b'
    mineral: str  # its usual name, perhaps with others after a comma; 'None' if it has none
    structure: Structure  # of its first compound


@cache
def aflow_types() -> tuple[AflowType, ...]:
    """All 288, in pymatgen's order.

    Read from the file behind `pymatgen.analysis.prototypes`: importing that takes nine CPU seconds,
    most of them for the literature references of each entry.
    """
    from pymatgen.core import Structure

    path = files("pymatgen.analysis") / "prototypes" / "aflow_prototypes.json.gz"
    return tuple(
        AflowType(
            entry["tags"]["aflow"],
            str(entry["tags"]["mineral"]),
            Structure.from_dict(entry["snl"]),
        )
        for entry in json.loads(gzip.decompress(path.read_bytes()))
    )
