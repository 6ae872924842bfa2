"""Relax the structures of a file or folder, without a campaign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files import CifReader, parse_raw, read_inputs
from hullward.tools.records import Flaw, Protocol
from hullward.tools.relax.executor import Executor

FIELDS = {  # of a relaxation record
    "converged",
    "failure",
    "detail",
    "energy_scheme",
    "energy_ev_per_atom",
    "initial_energy_ev_per_atom",
    "residual_force_ev_per_a",
    "residual_stress_gpa",
    "steps",
    "force_calls",
    "cpu_s",
    "volume_per_atom_a3",
    "space_group_loose",
    "crystal",
}


def relax_inputs(
    path: Path,
    potential: str,
    protocol: Protocol,
    executor: Executor,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[dict[str, Any]]:
    """Relax every structure of a file or folder; one row an input, in the order of the file.

    A row without a valid crystal gets a reason instead of numbers. Raises InputError for a path or
    a potential that cannot be used.
    """
    rows: list[dict[str, Any]] = []
    jobs: dict[str, Crystal] = {}
    with CifReader() as reader:
        for item in read_inputs(path):
            crystal = parse_raw(item.raw, item.format, reader)
            row: dict[str, Any] = {"source": item.source}
            if isinstance(crystal, Flaw):
                row |= {"converged": False, "failure": crystal.reason, "detail": crystal.detail}
            else:
                jobs[str(len(rows))] = crystal
                row |= {"formula": crystal.formula, "n_atoms": crystal.n_atoms}
            rows.append(row)
    if not rows:
        raise InputError(f"{path} contains no structures")
    results = replace(executor, home=None).relax(jobs.items(), potential, protocol)
    for done, relaxation in enumerate(results, start=1):
        rows[int(relaxation.candidate_id)] |= relaxation.model_dump(mode="json", include=FIELDS)
        progress("relax", done, len(jobs))
    return rows
