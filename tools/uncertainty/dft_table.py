"""Read a table of DFT results; relax and judge its structures as a campaign would.

One row a structure, in any of the formats of `hullward screen`, with the DFT height above the
hull in eV/atom and the generator that made it, since generators are left out one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import potential_card
from hullward.tools.crystal.files import CifReader, parse_raw, read_inputs
from hullward.tools.hull import Reference
from hullward.tools.records import Flaw, Protocol, Relaxation, SecondEnergy
from hullward.tools.relax import Executor
from hullward.tools.uncertainty.calibrator import case_of
from hullward.tools.uncertainty.fitting import ELEMENTS, Outcome
from hullward.tools.uncertainty.second_energies import check_scales, second_energies_of

# The first of these that a table has is read.
DFT_COLUMNS = (
    "dft_e_above_hull_ev_per_atom",
    "decomposition_energy_per_atom",
    "e_above_hull_dft",
    "dft_decomposition_energy_per_atom",
)
GENERATOR_COLUMNS = ("generator", "method", "operator")
LARGEST_HEIGHT_EV_PER_ATOM = 2.0  # a larger one is more likely a value in meV


@dataclass(frozen=True)
class DftRow:
    """One row of a table."""

    crystal: Crystal | None
    generator: str
    dft_ev_per_atom: float
    problem: str = ""  # why it cannot be used


@dataclass(frozen=True)
class DftHeight:
    """One row of a table of results for candidates."""

    candidate_id: str
    dft_ev_per_atom: float  # NaN where the row has none
    source: str  # the file and the row


def read_dft_heights(path: Path) -> list[DftHeight]:
    """DFT heights by candidate. Raises InputError for a table that cannot be learnt from.

    That is one without these columns, with a height that must be in another unit, or with two
    heights for one candidate.
    """
    table = read_table(path)
    if "candidate_id" not in table:
        raise InputError(f"{path.name} needs a column candidate_id; has {list(table)[:12]}")
    energies = pick(table, DFT_COLUMNS, path, "the DFT height above the hull, eV/atom")
    word, first = ("line", 2) if path.suffix == ".csv" else ("row", 1)
    rows = [
        DftHeight(str(candidate_id), float(value), f"{path.name}, {word} {first + number}")
        for number, (candidate_id, value) in enumerate(
            zip(table["candidate_id"], energies, strict=True)
        )
    ]
    for row in rows:
        if abs(row.dft_ev_per_atom) > LARGEST_HEIGHT_EV_PER_ATOM:
            raise InputError(
                f"{row.source}: {energies.name} {row.dft_ev_per_atom:g} of {row.candidate_id} is "
                f"more than {LARGEST_HEIGHT_EV_PER_ATOM:g} eV/atom from the hull: meV? Heights are "
                "in eV/atom; no row was used"
            )
    at: dict[str, DftHeight] = {}
    for row in rows:
        other = at.setdefault(row.candidate_id, row)
        if other.dft_ev_per_atom != row.dft_ev_per_atom:
            raise InputError(
                f"{row.source}: {row.dft_ev_per_atom:g} eV/atom for {row.candidate_id}, which has "
                f"{other.dft_ev_per_atom:g} in {other.source}; keep one of them"
            )
    return list(at.values())


def read_dft_table(path: Path, *, need_generator: bool = True) -> list[DftRow]:
    """Rows with structures and DFT heights. Raises InputError for a table that lacks a column."""
    table = read_table(path)
    energy = pick(table, DFT_COLUMNS, path, "the DFT height above the hull, eV/atom")
    generators = next((table[c] for c in GENERATOR_COLUMNS if c in table), None)
    if generators is None and need_generator:
        raise InputError(
            f"{path.name} needs a column with the generator of each row: "
            + ", ".join(GENERATOR_COLUMNS)
        )
    items = list(read_inputs(path))
    if len(items) != len(table):
        raise InputError(f"{path.name}: {len(items)} structures for {len(table)} rows")
    found = []
    with CifReader() as reader:
        for row, item in enumerate(items):
            crystal = parse_raw(item.raw, item.format, reader)
            value = float(energy.iloc[row])
            generator = "" if generators is None else str(generators.iloc[row])
            if isinstance(crystal, Flaw):
                found.append(DftRow(None, generator, value, crystal.reason.value))
            else:
                problem = "" if np.isfinite(value) else "no DFT energy"
                found.append(DftRow(crystal, generator, value, problem))
    return found


def read_table(path: Path) -> Any:
    """A Parquet or CSV table; raises InputError."""
    import pandas as pd

    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path.name} is no table: give a .parquet or .csv file")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from None


def pick(table: Any, names: tuple[str, ...], path: Path, what: str) -> Any:
    """The first of these columns; raises InputError where there is none, or no numbers in it."""
    import pandas as pd

    name = next((n for n in names if n in table), None)
    if name is None:
        raise InputError(
            f"{path.name} needs a column with {what}: {', '.join(names)}; has {list(table)[:12]}"
        )
    try:
        return pd.to_numeric(table[name])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path.name}: {name}: {error}") from None


def outcomes(
    rows: list[DftRow],
    potential: str,
    protocol: Protocol,
    reference: Reference,
    executor: Executor,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    reading: str = "",
) -> tuple[list[Outcome], dict[str, int]]:
    """Every row that came to a covered verdict, in order; the others counted by reason.

    reading: the second potential, which gives each relaxed structure a second energy; '' for none.
    """
    if reading:  # refuse now, not when everything is relaxed
        check_scales(potential_card(potential).energy_scheme, potential_card(reading))
    lost: Counter[str] = Counter(r.problem for r in rows if r.problem)
    jobs = [(str(i), r.crystal) for i, r in enumerate(rows) if not r.problem and r.crystal]
    relaxed: dict[int, Relaxation] = {}
    results = executor.relax(jobs, potential, protocol)
    for done, relaxation in enumerate(results, start=1):
        relaxed[int(relaxation.candidate_id)] = relaxation
        progress("relax", done, len(jobs))
    second: dict[int, SecondEnergy] = {}
    if reading:
        converged = {r.relaxation_id: i for i, r in relaxed.items() if r.converged}
        of = [relaxed[i] for i in converged.values()]
        for done, one in enumerate(second_energies_of(of, reading, executor), start=1):
            second[converged[one.relaxation_id]] = one
            progress("second energy", done, len(converged))
    found = list(_judged(rows, relaxed, second, reference, lost))
    return found, dict(sorted(lost.items()))


def _judged(
    rows: list[DftRow],
    relaxed: dict[int, Relaxation],
    second: dict[int, SecondEnergy],
    reference: Reference,
    lost: Counter[str],
) -> Iterator[Outcome]:
    for i, relaxation in sorted(relaxed.items()):
        crystal = relaxation.crystal
        if not relaxation.converged or crystal is None:
            lost["not converged"] += 1
            continue
        elements = frozenset(crystal.species)
        if reference.lacking(elements):
            lost["no hull"] += 1
        elif not reference.coverage(crystal.amounts).covered:
            lost["not covered by the reference"] += 1
        elif elements - set(ELEMENTS):
            lost["elements without parameters"] += 1
        elif (second_energy := second.get(i)) is not None and second_energy.failure:
            lost["no second energy"] += 1
        else:
            yield Outcome(
                case=case_of(relaxation, reference, second_energy),
                generator=rows[i].generator,
                formula=crystal.formula,
                dft_ev_per_atom=rows[i].dft_ev_per_atom,
            )
