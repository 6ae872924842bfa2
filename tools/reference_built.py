"""References relaxed by this project: phases in a Parquet file, what was tried in a JSON beside it.

`hullward.tools.build_reference` writes the pair; the embedded reference is one such pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import combinations
from typing import Literal

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.chemistry import charge_balance
from hullward.tools.hull import Phase
from hullward.tools.records import Protocol, Record
from hullward.tools.reference import Coverage, Reference

# Share of a subsystem's expected formulas that must have had a prototype tried.
LEAST_SHARE_TRIED = 0.8


class SystemTried(Record):
    """What was tried in one system of exactly these elements."""

    expected: int  # formulas that common oxidation states suggest
    tried: int  # of these, how many had at least one prototype evaluated


class Manifest(Record):
    """How a built reference was made."""

    recipe: str
    statement: str
    potential: str
    potential_sha256: str
    energy_scheme: str
    protocol: Protocol
    systems: dict[str, SystemTried]  # every system of two or more elements, 'A-B-…'
    tried: dict[str, int]  # formula: prototypes evaluated
    force_calls: int
    cpu_s: float


class BuiltPhases:
    """Phases read from the Parquet file of a built reference."""

    def __init__(self, phases: Sequence[Phase], manifest: Manifest) -> None:
        self._all, self.manifest = tuple(phases), manifest
        self.elements = frozenset(next(iter(p.elements)) for p in phases if len(p.elements) == 1)

    def within(self, elements: frozenset[str]) -> list[Phase]:
        return [p for p in self._all if p.elements <= elements]

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """Covered: every subsystem was tried well enough and the class is one prototypes serve."""
        elements = sorted(el for el, amount in composition.items() if amount > 0)
        if len(elements) == 1:
            return Coverage(True, "element")
        for size in range(2, len(elements) + 1):
            for part in combinations(elements, size):
                system = "-".join(part)
                facts = self.manifest.systems.get(system)
                if facts is None:
                    return Coverage(False, f"subsystem {system} was not built")
                if facts.tried < LEAST_SHARE_TRIED * facts.expected:
                    return Coverage(
                        False, f"only {facts.tried} of {facts.expected} formulas of {system} tried"
                    )
        return served_class(composition)


def served_class(composition: Mapping[str, float]) -> Coverage:
    """Whether prototypes serve this kind of compound: charges balance with common states alone.

    Mixed valence is served; alloys, metal-rich compounds, peroxides and superoxides are not.
    """
    claim = charge_balance(composition, common_states_of(composition))
    if claim.balanced is None:
        return Coverage(False, f"{claim.note}: a class the recipe does not serve")
    if not claim.balanced:
        return Coverage(False, "common states do not balance (metal-rich, peroxide or high-valent)")
    return Coverage(True, f"{claim.note}; all subsystems tried")


def common_states_of(elements: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The states the recipe tries, element by element: pymatgen's common ones, nothing rarer."""
    from pymatgen.core import Element

    return {el: tuple(Element(el).common_oxidation_states) for el in elements}


def read_embedded() -> Reference:
    """The reference shipped with the package."""
    return read_built(files("hullward.data"), "reference_embedded", "embedded")


def read_built(
    folder: Traversable, stem: str, kind: Literal["embedded", "built"] = "built"
) -> Reference:
    """A built reference from STEM.parquet and STEM.json; raises InputError when one is absent."""
    table, manifest_file = folder / f"{stem}.parquet", folder / f"{stem}.json"
    if not (table.is_file() and manifest_file.is_file()):
        raise InputError(
            f"no built reference {stem!r} in {folder}; make one with "
            f"`python -m hullward.tools.build_reference SYSTEM… --out {folder}`"
        )
    manifest = Manifest.model_validate_json(manifest_file.read_text(encoding="utf-8"))
    raw = table.read_bytes()
    return Reference(
        reference_id=kind if kind == "embedded" else f"built:{stem}",
        version=hashlib.sha256(raw + manifest_file.read_bytes()).hexdigest()[:16],
        kind=kind,
        energy_scheme=manifest.energy_scheme,
        statement=manifest.statement,
        source=BuiltPhases(_read_phases(raw), manifest),
        potential_sha256=manifest.potential_sha256,
        protocol=manifest.protocol,
    )


def _read_phases(raw: bytes) -> list[Phase]:
    import io

    import pyarrow.parquet as pq

    phases = []
    for row in pq.read_table(io.BytesIO(raw)).to_pylist():
        crystal = Crystal.from_arrays(
            row["lattice"], row["species"].split(), np.array(row["frac_coords"])
        )
        phases.append(
            Phase(
                phase_id=row["phase_id"],
                formula=row["formula"],
                composition={
                    str(el): float(n) for el, n in crystal.composition.get_el_amt_dict().items()
                },
                energy_ev_per_atom=row["energy_ev_per_atom"],
                crystal=crystal,
                source=row["prototype"],
            )
        )
    return phases
