"""Which column of a table, or property of a record, is the energy, and of which kind.

Found by its name, units included. Two that would do are refused, never chosen between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from hullward.models.errors import InputError

# The height a composition gives the hull in our own whole-database tables: always the one meant.
HULL_ENTRY = "hull_entry_energy_per_atom"
EXAMPLES = "'formation_energy_per_atom' or 'energy_ev_per_atom'"

_ENERGY_WORDS = {"energy", "energies", "e"}
# Words of columns that are about an energy without being the one meant.
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


class EnergyColumn(NamedTuple):
    """A column of energies per atom, eV."""

    name: str
    kind: Literal["formation", "total"]


def energy_column(names: Sequence[str], where: str, chosen: str | None = None) -> EnergyColumn:
    """The column of formation energy, or of total energy, in eV/atom.

    names: all there are.  where: for messages.  chosen: the owner's word.
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
    found = [n for n in energies if _per_atom(n) and not _OTHER_UNITS.intersection(_words(n))]
    if len(found) > 1:
        raise InputError(
            f"{where}: {' and '.join(map(repr, found))} are both energies per atom; say which is "
            "meant with 'energy_property' in NAME.reference.json (or --energy)"
        )
    if not found:
        near = f" ({', '.join(map(repr, energies))}: not in eV per atom)" if energies else ""
        raise InputError(
            f"{where}: needs energies in eV/atom, named like {EXAMPLES}{near}; has {list(names)}"
        )
    return EnergyColumn(found[0], _kind(found[0]))


def _words(name: str) -> list[str]:
    plain = _PROVIDER.sub("", name.lower())
    return [w for w in re.split(r"[^a-z0-9]+", plain.replace("peratom", "per_atom")) if w]


def _is_energy(name: str) -> bool:
    words = set(_words(name))
    return bool(words & _ENERGY_WORDS) and not words & _OTHER_WORDS


def _per_atom(name: str) -> bool:
    return "atom" in _words(name)


def _kind(name: str) -> Literal["formation", "total"]:
    words = _words(name)
    formation = _FORMATION_WORDS.intersection(words) or any(w.startswith("form") for w in words)
    return "formation" if formation else "total"
