"""Structure types in words, and where a reference's element is not the one of experiment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from hullward.models.crystal import Crystal
from hullward.tools.crystal import space_group, space_group_symbol
from hullward.tools.hull import Phase
from hullward.tools.prototypes import aflow_types

if TYPE_CHECKING:
    from pymatgen.core import Structure

ELEMENTS_FILE = "element_structures.yaml"
SYMPREC_A = 0.05  # of the space groups that are shown
MOST_ATOMS = 24  # of a structure that is compared with types

# Types whose usual name is neither their compound nor a mineral.
_USUAL = {
    "A_cF4_225_a": "fcc",
    "A_cI2_229_a": "bcc",
    "A_hP2_194_c": "hcp",
    "A_hP4_194_ac": "dhcp",
    "A_cF8_227_a": "diamond",
    "A_cP1_221_a": "simple cubic",
    "AB_cF8_225_a_b": "rock salt",
    "AB_cF8_216_c_a": "zinc blende",
    "AB_hP4_186_b_b": "wurtzite",
    "AB2_cF12_225_a_c": "fluorite or antifluorite",
    "A_tI2_139_a": "body-centred tetragonal",
    "A_hP1_191_a": "simple hexagonal",
}
_LATTICES = {225: "fcc", 229: "bcc", 221: "simple cubic", 227: "diamond"}  # of elements
_TELLS_NOTHING = re.compile(r"(alpha|beta|gamma|delta)?|None")


class StructureWords(NamedTuple):
    """What a person wants to know of a phase's structure."""

    space_group: str  # of the relaxed structure; '' without one
    type: str  # '' where it is no named type
    note: str  # of an element that is not as experiment finds it


def structure_words(phase: Phase) -> StructureWords:
    """The space group, the structure type and, for an element, whether experiment finds it."""
    if phase.crystal is None:
        return StructureWords("", "", "")
    number = space_group(phase.crystal, SYMPREC_A)
    elements = set(phase.crystal.species)
    note = _against_experiment(next(iter(elements)), number) if len(elements) == 1 else ""
    return StructureWords(space_group_symbol(number), _type_of(phase, phase.crystal, number), note)


def _against_experiment(element: str, number: int | None) -> str:
    found = element_structures().get(element, {})
    if not found or number in found:
        return ""
    known = " or ".join(f"{name}, {space_group_symbol(n)}" for n, name in found.items())
    return f"experiment: {known}"


@cache
def element_structures() -> Mapping[str, Mapping[int, str]]:
    """Structures of the elements by experiment: space-group numbers and names."""
    import yaml

    text = (files("hullward.data") / ELEMENTS_FILE).read_text(encoding="utf-8")
    found: dict[str, dict[int, str]] = yaml.safe_load(text)
    return found


def _type_of(phase: Phase, crystal: Crystal, number: int | None) -> str:
    """The type that its own label names, else the nearest named one."""
    label = re.sub(r"^encyclopedia:|#\d+$|\.[A-Za-z0-9]+$", "", phase.source)
    stated = re.match(r"[A-Z0-9]+_[a-z][A-Z][0-9]+_(\d+)_", label)
    if (name := _names().get(label)) and stated and int(stated[1]) == number:
        return name
    if len(set(crystal.species)) == 1:
        return _LATTICES.get(number or 0, "")
    if phase.source.startswith("own:"):
        return f"{phase.source.removeprefix('own:')} type"
    return _nearest(crystal, number)


@cache
def _names() -> Mapping[str, str]:
    """Names of AFLOW's types by label: the usual one, a textbook's compound, or a mineral."""
    import yaml

    found: dict[str, str] = {}
    for entry in aflow_types():
        mineral = entry.mineral.split(",")[0].strip()
        if not _TELLS_NOTHING.fullmatch(mineral):
            found.setdefault(entry.label, f"{mineral} type")
    text = (files("hullward.data") / "textbook_phases.yaml").read_text(encoding="utf-8")
    for entry in yaml.safe_load(text):
        found[str(entry["type"]).split("#")[0]] = f"{entry['as']} type"
    return found | _USUAL


def _nearest(crystal: Crystal, number: int | None) -> str:
    """The named type that a structure matches with any exchange of elements; '' for none."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    structure: Structure = crystal.to_structure()
    if len(structure) > MOST_ATOMS:
        return ""
    matcher = StructureMatcher(attempt_supercell=False)
    best: tuple[float, str] | None = None
    for other, name in _named_types().get(structure.composition.anonymized_formula, ()):
        rms, _ = matcher.get_rms_anonymous(structure, other) or (None, None)
        if rms is not None and (best is None or rms < best[0]):
            same = space_group(Crystal.from_structure(other), SYMPREC_A) == number
            best = (rms, name if same else f"distorted {name}")
    return best[1] if best else ""


@cache
def _named_types() -> Mapping[str, list[tuple[Structure, str]]]:
    """AFLOW's types with a name, by anonymous formula."""
    found: dict[str, list[tuple[Structure, str]]] = {}
    for entry in aflow_types():
        name, structure = _names().get(entry.label), entry.structure
        if name and len(structure) <= MOST_ATOMS:
            formula = structure.composition.anonymized_formula
            found.setdefault(formula, []).append((structure, name))
    return found
