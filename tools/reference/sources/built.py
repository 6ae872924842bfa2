"""References built by the recipe: NAME.parquet holds the phases, NAME.json what was tried.

`hullward.tools.reference.recipe.build` writes the pair; the embedded reference is one such pair.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal import is_alloy
from hullward.tools.hull import Coverage, Phase, Reference, split_chemsys
from hullward.tools.reference.sources.base import PhasesBySystem, reason_of
from hullward.tools.reference.sources.coverage import (
    LEAST_STRUCTURES,
    Manifest,
    served_class,
    untried_subsystems,
)
from hullward.tools.store import unsealed

EMBEDDED_VERSION = "e86a3819a3fe6fcd"  # hash of the files in `data`; changes with them


class BuiltPhases(PhasesBySystem):
    """Phases read from the Parquet file of a built reference."""

    def __init__(
        self, phases: Sequence[Phase], manifest: Manifest, rows: Sequence[dict[str, Any]] = ()
    ) -> None:
        by_system: dict[frozenset[str], list[Phase]] = defaultdict(list)
        for phase in phases:
            by_system[phase.elements].append(phase)
        self._by_system = by_system
        self.manifest = manifest
        self.rows = rows  # as in the file, in the order of the phases

    def coverage(self, composition: Mapping[str, float], phases: Sequence[Phase]) -> Coverage:
        """Covered: a class that the recipe serves, with enough structures tried in all subsystems.

        For a compound with an anion, subsystems of metals alone do not count: an untried alloy
        lowers its hull only where it decomposes into bare metals.
        """
        elements = sorted(el for el, amount in composition.items() if amount > 0)
        if len(elements) == 1:
            return Coverage(True, "element")
        served = served_class(composition)
        if not served.covered:
            return served
        holes = untried_subsystems(self.manifest, [frozenset(elements)])
        if holes:
            return Coverage(False, next(iter(holes.values())))
        if is_alloy(elements) and not self._tried_itself(composition):
            return Coverage(False, "alloys form at many compositions, and this one was not tried")
        return served

    def _tried_itself(self, composition: Mapping[str, float]) -> bool:
        from pymatgen.core import Composition

        facts = self.manifest.systems["-".join(sorted(composition))]
        formula = str(Composition(dict(composition)).reduced_formula)
        return facts.tried_formulas.get(formula, 0) >= LEAST_STRUCTURES


def read_embedded() -> Reference:
    """The reference shipped with the package."""
    return read_built(files("hullward.data"), "reference_embedded", "embedded")


def embedded_stem() -> Path:
    """The embedded reference's files, without their endings, for a build to extend."""
    return Path(str(files("hullward.data") / "reference_embedded"))


def read_manifest(file: Traversable) -> Manifest:
    """The manifest in NAME.json; raises InputError where it is none."""
    try:
        return Manifest.model_validate_json(unsealed(file.read_bytes(), required=False))
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{file.name} is no manifest of a built reference ({reason})") from None


def read_built(
    folder: Traversable, stem: str, kind: Literal["embedded", "built"] = "built"
) -> Reference:
    """A built reference from STEM.parquet and STEM.json; raises InputError when one is absent."""
    table, manifest_file = folder / f"{stem}.parquet", folder / f"{stem}.json"
    if not (table.is_file() and manifest_file.is_file()):
        raise InputError(
            f"no built reference {stem!r} in {folder}; make one with "
            f"`python -m hullward.tools.reference.recipe SYSTEM… --out {folder}`"
        )
    manifest = read_manifest(manifest_file)
    raw = table.read_bytes()
    version = hashlib.sha256(raw + manifest_file.read_bytes()).hexdigest()[:16]
    if kind == "embedded" and version != EMBEDDED_VERSION:
        raise InputError(f"{table} or {manifest_file} was changed; install Hullward again")
    if manifest.table_sha256 and hashlib.sha256(raw).hexdigest() != manifest.table_sha256:
        raise InputError(
            f"{table} is damaged: {manifest_file.name} describes another table. Put it back, or "
            "build it again"
        )
    return Reference(
        reference_id=kind if kind == "embedded" else f"built:{stem}",
        version=version,
        kind=kind,
        energy_scheme=manifest.energy_scheme,
        statement=manifest.statement,
        source=_read_phases(raw, manifest),
        potential_sha256=manifest.potential_sha256,
        protocol=manifest.protocol,
    )


def _read_phases(raw: bytes, manifest: Manifest) -> BuiltPhases:
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(raw)).to_pylist()
    phases = []
    for row in rows:
        crystal = Crystal.from_arrays(
            row["lattice"], row["species"].split(), np.array(row["frac_coords"])
        )
        phases.append(
            Phase(
                phase_id=row["phase_id"],
                formula=row["formula"],
                composition=crystal.amounts,
                energy_ev_per_atom=row["energy_ev_per_atom"],
                crystal=crystal,
                source=row["prototype"],
            )
        )
    return BuiltPhases(phases, manifest, rows)


def unbuilt_subsystems(reference: Reference, systems: Iterable[str]) -> list[str]:
    """What a built reference lacks of these systems, itself or within them; [] of other kinds."""
    source = reference.source
    if not isinstance(source, BuiltPhases):
        return []
    return sorted(untried_subsystems(source.manifest, [split_chemsys(s) for s in systems]))
