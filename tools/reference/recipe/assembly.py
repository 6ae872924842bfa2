"""The reference put together from the results of its systems, and written."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from hullward.models.potential import PotentialCard
from hullward.tools.hull import Hull, Phase
from hullward.tools.reference.recipe.low_phases import FINAL_PROTOCOL, RECIPE
from hullward.tools.reference.recipe.system_results import FoundPhase, SystemResult
from hullward.tools.reference.sources import Manifest, SystemTried, enough_tried
from hullward.tools.store import sealed, write_whole

KEPT_ABOVE_HULL_EV_PER_ATOM = 0.1  # higher phases would match candidates that are discarded anyway
DEEP_EV_PER_ATOM = 0.05  # an unexpected phase this far below all others is listed for review

Results = Mapping[tuple[str, ...], SystemResult]


def assemble(
    results: Results,
    out: Path,
    card: PotentialCard,
    types: str,
    named: Collection[str] = (),
) -> Manifest:
    """Write OUT.parquet and OUT.json from the phases found in each system.

    named: reduced formulas that the caller has reason to expect; deep phases of others are listed
    for review.
    """
    results = dict(sorted(results.items(), key=lambda pair: (len(pair[0]), pair[0])))
    hulls = _Hulls(results)
    kept = [
        found
        for elements, result in results.items()
        for found in result.phases
        if hulls.height(elements, found.phase) <= KEPT_ABOVE_HULL_EV_PER_ATOM
    ]
    systems = {
        result.system: SystemTried(
            expected_formulas=result.expected,
            tried_formulas=result.tried,
            force_calls=result.force_calls,
            cpu_s=result.cpu_s,
        )
        for result in results.values()
    }
    table = _table_of(kept)
    manifest = Manifest(
        recipe=RECIPE,
        types=types,
        statement=_statement(systems, len(kept), card.name),
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=FINAL_PROTOCOL,
        systems=systems,
        deep=_deep_phases(results, hulls, named),
        force_calls=sum(result.force_calls for result in results.values()),
        cpu_s=round(sum(result.cpu_s for result in results.values()), 1),
        table_sha256=hashlib.sha256(table).hexdigest(),
    )
    write_whole(out.with_suffix(".parquet"), table)
    text = json.dumps(manifest.model_dump(mode="json"), indent=None, sort_keys=True)
    write_whole(out.with_suffix(".json"), sealed(text) + "\n")
    return manifest


def _statement(systems: Mapping[str, SystemTried], n_phases: int, potential: str) -> str:
    """What the reference is and covers. It is part of the file, and so of the version."""
    n_elements = sum("-" not in name for name in systems)
    n_full = sum(enough_tried(facts) for name, facts in systems.items() if "-" in name)
    return (
        f"{n_phases} phases of {n_elements} elements and {n_full} systems of them, known "
        f"structure types relaxed with {potential} by recipe {RECIPE}. Covers charge-balanced "
        "salts of one anion, orthophosphates and the alloys that were tried; not peroxides, "
        "molecules, other complex anions, metal-rich or high-valent compounds."
    )


def _deep_phases(results: Results, hulls: _Hulls, named: Collection[str]) -> dict[str, float]:
    """Unexpected formulas with a phase far below all others, and how far, eV/atom."""
    return {
        found.phase.formula: round(depth, 4)
        for elements, result in results.items()
        if len(elements) > 1
        for found in result.phases
        if found.phase.formula not in named
        if (depth := hulls.depth(elements, found.phase)) > DEEP_EV_PER_ATOM
    }


class _Hulls:
    """Heights and depths of phases among all that the build found."""

    def __init__(self, results: Results) -> None:
        self._phases = {part: [f.phase for f in r.phases] for part, r in results.items()}
        self._hulls: dict[tuple[str, ...], Hull] = {}

    def _within(self, elements: tuple[str, ...]) -> list[Phase]:
        inside = set(elements)
        return [p for part, found in self._phases.items() if inside >= set(part) for p in found]

    def height(self, elements: tuple[str, ...], phase: Phase) -> float:
        """Above the hull of everything found in the system, eV/atom."""
        if elements not in self._hulls:
            self._hulls[elements] = Hull(self._within(elements))
        return self._hulls[elements].height(phase.composition, phase.energy_ev_per_atom)

    def depth(self, elements: tuple[str, ...], phase: Phase) -> float:
        """Below the hull of all phases of other formulas, eV/atom.

        0 above that hull, and where it holds bare elements alone: every salt is deep below these.
        """
        if self.height(elements, phase) > 1e-9:
            return 0.0
        rest = [p for p in self._within(elements) if p.formula != phase.formula]
        distance = Hull(rest).distance(phase.composition, phase.energy_ev_per_atom)
        compounds = {p.phase_id for p in rest if len(p.elements) > 1}
        if compounds.isdisjoint(part.phase_id for part in distance.decomposition):
            return 0.0
        return -distance.e_above_hull_ev_per_atom


def _table_of(found: Sequence[FoundPhase]) -> bytes:
    """The Parquet file of these phases."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number: Counter[str] = Counter()
    rows = []
    for one in sorted(found, key=lambda f: (f.phase.formula, f.phase.energy_ev_per_atom)):
        phase, crystal = one.phase, one.phase.crystal
        assert crystal is not None
        number[phase.formula] += 1  # 1 is the lowest
        rows.append(
            {
                "phase_id": f"{phase.formula}#{number[phase.formula]}",
                "formula": phase.formula,
                "chemsys": crystal.chemsys,
                "energy_ev_per_atom": phase.energy_ev_per_atom,
                "prototype": phase.source,
                "rattle_a": one.rattle_a,
                "residual_force_ev_per_a": one.residual_force_ev_per_a,
                "residual_stress_gpa": one.residual_stress_gpa,
                "steps": one.steps,
                "force_calls": one.force_calls,
                "space_group": one.space_group,
                "lattice": np.round(np.ravel(crystal.lattice), 5).tolist(),
                "species": " ".join(crystal.species),
                "frac_coords": np.round(np.ravel(crystal.frac_coords), 5).tolist(),
            }
        )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    return buffer.getvalue()
