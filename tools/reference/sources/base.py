"""What every reference in a file shares: its phases in memory, its sidecar, its coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from hullward.models.errors import InputError, first_problem
from hullward.tools.hull import MP2020, Coverage, Phase
from hullward.tools.records import Record


class Sidecar(Record):
    """What the owner of a file states about it."""

    energy_scheme: str = MP2020
    corrected: bool = False  # the energies are final though no entry shows a correction
    complete: bool | None = None  # every phase known today is in it; None: not stated
    citation: str = ""
    energy_property: str | None = None  # column or OPTIMADE property, where several would do


class FilePhases:
    """The phases of a file, and the same as plain rows to be judged."""

    elements: frozenset[str]
    statement: str

    def __init__(self, name: str, stated: bool | None) -> None:
        self.name, self._stated = name, stated
        self._rows: Sequence[Phase] = ()
        self._by_system: dict[frozenset[str], list[Phase]] = {}
        self._covered: dict[frozenset[str], Coverage] = {}

    def rows(self) -> Sequence[Phase]:
        """What the file itself holds, in its order."""
        return self._rows

    def within(self, elements: frozenset[str]) -> list[Phase]:
        return [
            p for system, phases in self._by_system.items() if system <= elements for p in phases
        ]

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """A file's word counts; without one, each element must at least occur in some compound."""
        elements = frozenset(el for el, amount in composition.items() if amount > 0)
        if elements not in self._covered:
            self._covered[elements] = _file_coverage(elements, phases, self._stated, self.name)
        return self._covered[elements]


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of a reference file is, if it has one."""
    return path.with_name(path.name.split(".")[0] + ".reference.json")


def _read_sidecar(path: Path) -> Sidecar:
    if not path.is_file():
        return Sidecar()
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except ValidationError as error:
        known = ", ".join(Sidecar.model_fields)
        raise InputError(f"{path.name}: {first_problem(error)}; it may state: {known}") from None


def _file_coverage(
    elements: frozenset[str], phases: Sequence[Phase], stated: bool | None, name: str
) -> Coverage:
    if stated is not None:
        return Coverage(stated, f"{name} is stated to be {'' if stated else 'in'}complete")
    if len(elements) == 1:
        return Coverage(True, f"element present in {name}, which makes no statement")
    in_compounds = {el for p in phases if len(p.elements) > 1 for el in p.elements}
    if alone := sorted(elements - in_compounds):
        return Coverage(False, f"{name} has no compound of {', '.join(alone)} in this system")
    return Coverage(True, f"{name} makes no statement and is taken as complete")


def one_line(error: Exception) -> str:
    """What a reader of rows caught, without pydantic's page around it."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    return f"{type(error).__name__}: {error}"
