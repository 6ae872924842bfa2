"""The rule by which a built reference covers a composition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from hullward.tools.crystal import METALLOIDS, charge_balance, has_bonded_carbon, is_alloy
from hullward.tools.hull import Coverage
from hullward.tools.records import Protocol, Record

# Share of a system's expected formulas that must have been tried, each with so many structures.
LEAST_SHARE_TRIED, LEAST_STRUCTURES = 0.8, 3


# Anion atoms for each atom of a centre; with fewer, units share corners (a condensed anion).
COMPLEX_UNITS = {"P": 4, "Si": 4, "B": 3}


class SystemTried(Record):
    """What was tried in one system of exactly these elements."""

    expected_formulas: tuple[str, ...]  # that oxidation states and common types suggest
    tried_formulas: dict[str, int]  # formula: structures evaluated, of expected formulas and others
    force_calls: int
    cpu_s: float

    @property
    def enough(self) -> int:
        """Expected formulas that had structures enough."""
        return sum(
            self.tried_formulas.get(f, 0) >= LEAST_STRUCTURES for f in self.expected_formulas
        )


def enough_tried(facts: SystemTried) -> bool:
    """Whether enough formulas of a system were tried for a low height to mean stability."""
    return facts.enough >= LEAST_SHARE_TRIED * len(facts.expected_formulas)


class Manifest(Record):
    """How a built reference was made."""

    recipe: str
    types: str  # the package that lent structure types, and its version
    statement: str
    potential: str
    potential_sha256: str
    energy_scheme: str
    protocol: Protocol
    systems: dict[str, SystemTried]  # every system that was built, elements included
    deep: dict[str, float]  # unexpected formula: eV/atom below all other phases; to be checked
    force_calls: int
    cpu_s: float
    table_sha256: str = ""  # of NAME.parquet; empty: earlier versions did not note it


def untried_subsystems(manifest: Manifest, systems: Sequence[frozenset[str]]) -> dict[str, str]:
    """The subsystems in which too little was tried, each with the reason."""
    found = {}
    for elements in systems:
        for size in range(2, len(elements) + 1):
            for part in combinations(sorted(elements), size):
                if is_alloy(part) and not is_alloy(elements):
                    continue
                if reason := _too_little(manifest, part):
                    found["-".join(part)] = reason
    return found


def unserved_systems(manifest: Manifest, systems: Sequence[frozenset[str]]) -> list[str]:
    """Built systems within these for which the recipe expects no formula at all."""
    return [
        name
        for name, facts in manifest.systems.items()
        if not facts.expected_formulas and any(set(name.split("-")) <= els for els in systems)
    ]


def _too_little(manifest: Manifest, part: Sequence[str]) -> str:
    """Why too little was tried in a system; '' where enough was."""
    system = "-".join(part)
    facts = manifest.systems.get(system)
    if facts is None:
        return f"subsystem {system} was not built"
    if not enough_tried(facts):
        return (
            f"only {facts.enough} of {len(facts.expected_formulas)} formulas of {system} had "
            f"{LEAST_STRUCTURES} structures tried"
        )
    return ""


def served_class(composition: Mapping[str, float]) -> Coverage:
    """Whether structure types serve this kind of compound, by a rule fixed before any comparison.

    Served: metals and metalloids; salts whose charges balance with common states, mixed valence
    included, of one anion; orthophosphates. Not served, until shown: peroxides, superoxides,
    carbides with C2 or C3 units, metal-rich and high-valent compounds (common states do not
    balance), molecules, and the complex anions other than PO4 (condensed phosphates and silicates,
    carbonates, nitrates, sulphates, …).
    """
    claim = charge_balance(composition, common_states_of(composition))
    usual = charge_balance(composition)
    if is_alloy(composition):
        return Coverage(True, usual.note)
    if claim.balanced is None:
        return Coverage(False, f"{claim.note}: a class the recipe does not serve")
    if not claim.balanced and usual.balanced:
        return Coverage(False, f"{usual.note}: oxidation states that the recipe did not try")
    if not claim.balanced:
        return Coverage(False, "common states do not balance (metal-rich, peroxide or high-valent)")
    if reason := _badly_served(composition, claim.states):
        return Coverage(False, f"{reason}: a class the recipe does not serve")
    return Coverage(True, f"{usual.note}; all subsystems tried")


def _badly_served(composition: Mapping[str, float], states: Mapping[str, float]) -> str:
    """Which badly served class a balanced compound belongs to; '' for none."""
    from pymatgen.core import Element

    anions = [el for el in states if states[el] < 0]
    if len(anions) != 1:
        return f"several anions ({', '.join(sorted(anions))})"
    if has_bonded_carbon(states):
        return "carbide with carbon bonded to carbon"
    centres = {el for el in states if states[el] > 0 and not Element(el).is_metal}
    if centres - METALLOIDS - COMPLEX_UNITS.keys():
        return f"complex anion or molecule with {', '.join(sorted(centres - METALLOIDS))}"
    if len(composition) == 2:
        return "molecule" if centres - METALLOIDS else ""
    for centre in centres & COMPLEX_UNITS.keys():
        if composition[anions[0]] < COMPLEX_UNITS[centre] * composition[centre]:
            return f"condensed anion of {centre}"
    return ""


def common_states_of(elements: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The oxidation states that the recipe tries, by element: pymatgen's common ones.

    They decide what built references expect and cover, so they stay as they were when those were
    built; every reason in words uses the project's own table, which has more (Mn3+, Ni3+).
    """
    from pymatgen.core import Element

    return {el: tuple(Element(el).common_oxidation_states) for el in elements}
