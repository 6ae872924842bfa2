"""What all references in files share: phases in memory, the sidecar, the rule of coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hullward.models.errors import InputError, first_problem
from hullward.models.formulas import reduced_spelling
from hullward.tools.hull import MP2020, Coverage, Phase
from hullward.tools.records import Record
from hullward.tools.store import unsealed

SHARES_WITHIN = 1e-3
Stored = TypeVar("Stored", bound=Record)


class Sidecar(Record):
    """What the owner of a file states about it."""

    energy_scheme: str = MP2020
    corrected: bool = False  # the energies are final though no entry shows a correction
    complete: bool | None = None  # every phase known today is in it; None: not stated
    citation: str = ""
    energy_property: str | None = None  # column or OPTIMADE property, where several would do


class PhasesBySystem:
    """Phases in memory, grouped by their elements."""

    _by_system: Mapping[frozenset[str], list[Phase]]

    @cached_property
    def elements(self) -> frozenset[str]:
        """Elements with a phase of their own."""
        return frozenset(next(iter(s)) for s in self._by_system if len(s) == 1)

    def within(self, elements: frozenset[str]) -> list[Phase]:
        """Every phase made of these elements alone."""
        return [p for s, phases in self._by_system.items() if s <= elements for p in phases]


class FilePhases(PhasesBySystem):
    """The phases of a file: by system as a reference, or row by row as entries to be judged."""

    statement: str

    def __init__(self, name: str, stated: bool | None) -> None:
        self.name, self._stated = name, stated
        self._rows: Sequence[Phase] = ()
        self._by_system = {}
        self._covered: dict[frozenset[str], Coverage] = {}
        self.zeros: Mapping[str, float] = {}  # eV/atom, that formation energies were relative to
        self.caution = ""  # what a reader of heights should know

    def rows(self) -> Sequence[Phase]:
        """The phases that the file itself holds, in its order."""
        return self._rows

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """As the sidecar states; without that, covered where each element occurs in a compound."""
        elements = frozenset(el for el, amount in composition.items() if amount > 0)
        if elements not in self._covered:
            self._covered[elements] = self._cover(elements, phases)
        return self._covered[elements]

    def _cover(self, elements: frozenset[str], phases: Sequence[Phase]) -> Coverage:
        stated, name = self._stated, self.name
        if stated is not None:
            return Coverage(stated, f"{name} is stated to be {'' if stated else 'in'}complete")
        if len(elements) == 1:
            return Coverage(True, f"element present in {name}, which makes no statement")
        in_compounds = {el for p in phases if len(p.elements) > 1 for el in p.elements}
        if alone := sorted(elements - in_compounds):
            return Coverage(False, f"{name} has no compound of {', '.join(alone)} in this system")
        return Coverage(True, f"{name} makes no statement and is taken as complete")


def phases_by_system(phases: Sequence[Phase], name: str) -> dict[frozenset[str], list[Phase]]:
    """Phases by their elements, without repeats.

    Raises InputError for no phases at all, and for an id with two energies.
    """
    if not phases:
        raise InputError(f"{name} holds no entries")
    seen: dict[str, Phase] = {}
    systems: dict[frozenset[str], list[Phase]] = defaultdict(list)
    for phase in phases:
        first = seen.setdefault(phase.phase_id, phase)
        if first.energy_ev_per_atom != phase.energy_ev_per_atom or first.formula != phase.formula:
            raise InputError(
                f"{phase.source}: id {phase.phase_id!r} occurs with two energies; give each its "
                "own id, or keep one"
            )
        if first is phase:
            systems[phase.elements].append(phase)
    return systems


def check_composition(stated: Mapping[str, float], found: Mapping[str, float], holder: str) -> None:
    """Raise InputError where two compositions differ in their atomic fractions."""
    one, two = sum(stated.values()), sum(found.values())
    elements = stated.keys() | found.keys()
    if not two or any(
        abs(stated.get(el, 0.0) / one - found.get(el, 0.0) / two) > SHARES_WITHIN for el in elements
    ):
        other = reduced_spelling(found) if found else "no atoms"
        raise InputError(
            f"composition {reduced_spelling(stated)} but {holder} holds {other}; correct one of "
            "the two, or leave the structure out"
        )


def sidecar_path(path: Path) -> Path:
    """The path of a reference file's sidecar, whether there is one or not."""
    return path.with_name(path.name.split(".")[0] + ".reference.json")


def read_sidecar(path: Path) -> Sidecar:
    if not path.is_file():
        return Sidecar()
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except ValidationError as error:
        known = ", ".join(Sidecar.model_fields)
        raise InputError(f"{path.name}: {first_problem(error)}; it may state: {known}") from None


def reason_of(error: Exception) -> str:
    """An error in one line; of pydantic's many problems the first."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    return f"{type(error).__name__}: {error}"


def read_records(folder: Path, kind: type[Stored], remedy: str) -> list[Stored]:
    """The records in the JSON files of a folder; raises InputError for a damaged one."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            text = unsealed(path.read_bytes(), required=False)
            found.append(kind.model_validate_json(text))
        except ValueError as error:
            raise InputError(
                f"{path} is damaged ({reason_of(error)}); delete it and {remedy}"
            ) from None
    return found
