"""Energies of tables and OPTIMADE files: which column they are in, of which kind, from which zero.

A column is found by its name, units included. Where two would do the file is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

from hullward.models.errors import InputError
from hullward.tools.hull import MP2020
from hullward.tools.reference.sources.base import Sidecar

# The hull's own energies in our whole-database tables: always the column meant.
HULL_ENTRY = "hull_entry_energy_per_atom"
EXAMPLES = "'formation_energy_per_atom' or 'energy_ev_per_atom'"

_ENERGY_WORDS = {"energy", "energies", "e"}
# Words in names of columns that describe an energy or compare with one.
_OTHER_WORDS = {
    "above",
    "hull",
    "uncorrected",
    "uncertainty",
    "error",
    "std",
    "spread",
    "correction",
}
_FORMATION_WORDS = {"delta", "ef", "eform", "hf"}
_OTHER_UNITS = {"mev", "kj", "kcal", "hartree", "ha", "ry", "rydberg", "joule", "j"}
_PROVIDER = re.compile(r"^_[a-z0-9]+_")  # OPTIMADE properties outside the standard


_FUNCTIONAL = re.compile(r"[-_ ]((?:r2?)?scan|pbesol|hse(?:06)?|scan\+u|gga_gga\+u_r2scan)$", re.I)


class EnergyColumn(NamedTuple):
    """A column of energies per atom, eV."""

    name: str
    kind: Literal["formation", "total"]


def energy_column(names: Sequence[str], where: str, chosen: str | None = None) -> EnergyColumn:
    """The column of formation energy, or of total energy, in eV/atom.

    names: of all columns.  where: the file, for messages.  chosen: the one that the owner names.
    Raises InputError where none fits, several do, or the chosen one is absent or in another unit.
    """
    if chosen is not None:
        if chosen not in names:
            raise InputError(f"{where}: has no energy {chosen!r}; has {list(names)}")
        if unit := _OTHER_UNITS.intersection(_words(chosen)):
            raise InputError(f"{where}: {chosen!r} is in {unit.pop()}; give eV/atom")
        return EnergyColumn(chosen, _kind(chosen))
    if HULL_ENTRY in names:
        return EnergyColumn(HULL_ENTRY, "formation")
    energies = [n for n in names if _is_energy(n)]
    found = [n for n in energies if "atom" in (w := _words(n)) and not _OTHER_UNITS.intersection(w)]
    if len(found) > 1:
        raise InputError(
            f"{where}: {' and '.join(map(repr, found))} are both energies per atom; name one with "
            "'energy_property' in NAME.reference.json (or --energy)"
        )
    if not found:
        near = f" ({', '.join(map(repr, energies))}: not in eV per atom)" if energies else ""
        raise InputError(
            f"{where}: needs energies in eV/atom, named like {EXAMPLES}{near}; has {list(names)}"
        )
    return EnergyColumn(found[0], _kind(found[0]))


def mp2020_elements() -> dict[str, float]:
    """Energy per atom, eV, of 89 elements on the MP2020 scale: the zero of formation energy."""
    text = (files("hullward.data") / "mp2020_elements.json").read_text(encoding="utf-8")
    energies: dict[str, float] = json.loads(text)["energies"]
    return energies


def element_zeros(
    systems: Iterable[frozenset[str]], energy_scheme: str, where: str
) -> dict[str, float]:
    """The energies of the elements that a formation energy is relative to, eV/atom.

    Raises InputError on a scheme without known element energies, and for elements without one.
    """
    if energy_scheme != MP2020:
        raise InputError(
            f"{where}: formation energies on {energy_scheme!r} need that scheme's element "
            f"energies, known only for {MP2020!r}; give total energies per atom"
        )
    zero = mp2020_elements()
    if absent := sorted({el for s in systems for el in s} - set(zero)):
        raise InputError(f"{where}: no energy of the elements {', '.join(absent)} on {MP2020!r}")
    return zero


def other_functional(phase_id: str) -> str:
    """The functional that ends an id, as in 'mp-127-r2SCAN', if it is not MP2020's; else ''."""
    match = _FUNCTIONAL.search(phase_id)
    return match[1] if match else ""


def check_functional(phase_ids: Iterable[str], energy_scheme: str, where: str) -> None:
    """Raise InputError where ids on the MP2020 scale name another functional."""
    if energy_scheme != MP2020:
        return
    for phase_id in phase_ids:
        if other := other_functional(phase_id):
            raise InputError(
                f"{where}: {phase_id!r} is named as {other}, which is not on the {MP2020!r} scale; "
                "leave such rows out, or state another 'energy_scheme' in NAME.reference.json"
            )


def energies_statement(
    count: int, column: EnergyColumn, where: str, energy_scheme: str, zeros: int
) -> str:
    """How the energies of a table are read, in words."""
    if column.kind == "total":
        return (
            f"{count} energies per atom ({column.name}) from {where}, taken as final; scheme "
            f"{energy_scheme!r} is assumed. Rows that are no phases support the hull only."
        )
    return (
        f"{count} formation energies ({column.name}) from {where}, turned into energies with "
        f"the MP2020 energies of {zeros} elements (added at zero); scheme {MP2020!r} "
        "is assumed for tables. Rows that are no phases support the hull only."
    )


def total_energies_caution(column: EnergyColumn, sidecar: Sidecar) -> str:
    """A warning about total energies whose scheme nobody stated; '' for others."""
    stated = sidecar.corrected or "energy_scheme" in sidecar.model_fields_set
    if column.kind == "formation" or stated:
        return ""
    return (
        f"{column.name} is taken to hold total energies on {sidecar.energy_scheme!r}, with its "
        "corrections; raw totals of VASP lie up to 1 eV/atom off. Correct them with pymatgen's "
        "MaterialsProject2020Compatibility, or give formation energies"
    )


def _words(name: str) -> list[str]:
    plain = _PROVIDER.sub("", name.lower())
    return [w for w in re.split(r"[^a-z0-9]+", plain.replace("peratom", "per_atom")) if w]


def _is_energy(name: str) -> bool:
    words = set(_words(name))
    return bool(words & _ENERGY_WORDS) and not words & _OTHER_WORDS


def _kind(name: str) -> Literal["formation", "total"]:
    words = _words(name)
    formation = _FORMATION_WORDS.intersection(words) or any(w.startswith("form") for w in words)
    return "formation" if formation else "total"
