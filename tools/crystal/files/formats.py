"""Crystals from the files of other programs: extxyz, POSCAR, ASE's databases and trajectories.

ASE and pymatgen do the reading. Sizes are checked before, because both believe a count of atoms.
Nothing is unpickled: of ASE's files only numbers, positions and cells are read.
"""

from __future__ import annotations

import json
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.files.json_values import malformed, parse_crystal_json
from hullward.tools.crystal.files.unpacking import OVERSIZE
from hullward.tools.crystal.input_checks import MAX_SITES, checked_crystal, shorten
from hullward.tools.records import Flaw, Reason

# Results that ASE's reader checks, and that a structure does not need.
_RESULTS = re.compile(
    r"""(?<!\S)(?:stress|virials?|dipole|polarizability|energy|free_energy|magmom)="""
    r"""(?:"[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""",
    re.IGNORECASE,
)
MAX_REASON = 200
MAX_BLOB = 24 * 10 * MAX_SITES  # bytes of positions; more are not taken out of a database
_SYSTEMS = (
    "SELECT length(positions), CASE WHEN length(positions) <= ? THEN numbers END, "
    "CASE WHEN length(positions) <= ? THEN positions END, cell, pbc FROM systems ORDER BY id"
)


def parse_extxyz(frame: str) -> Crystal | Flaw:
    """The crystal of one frame, or ASE's reason why there is none."""
    from ase.io import read

    count, _, rest = frame.partition("\n")
    if count.strip().isdigit() and int(count) > MAX_SITES:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{count.strip()} sites, limit {MAX_SITES}")
    comment, _, atoms_lines = rest.partition("\n")
    try:
        atoms = read(
            StringIO(f"{count}\n{_RESULTS.sub('', comment)}\n{atoms_lines}"), format="extxyz"
        )
    except Exception as error:  # ase raises any exception
        return malformed(f"ase reads no frame: {_reason(error)}")
    if atoms.cell.rank < 3:
        return malformed('no lattice of three vectors; write Lattice="ax ay az bx … cz" in line 2')
    return parse_crystal_json(_of_atoms(atoms.numbers, atoms.positions, atoms.cell, atoms.pbc))


def parse_poscar(text: str) -> Crystal | Flaw:
    """The crystal of a POSCAR or CONTCAR that names its elements (VASP 5 and later)."""
    from pymatgen.io.vasp import Poscar
    from pymatgen.io.vasp.inputs import BadPoscarWarning

    lines = text.lstrip("\ufeff").splitlines()
    symbols = [word.split("/")[0].split("_")[0] for word in (lines[5:6] or [""])[0].split()]
    named = bool(symbols) and not symbols[0].isdigit()
    if unknown := [s for s in symbols if named and s not in ELEMENTS]:
        detail = f"line 6: {shorten(unknown[0])} is not an element"
        return Flaw(reason=Reason.UNKNOWN_ELEMENT, detail=detail)
    counts = next((words for line in lines[5:30] if (words := _whole_numbers(line))), [])
    if sum(counts) > MAX_SITES:
        return Flaw(reason=Reason.TOO_LARGE, detail=f"{sum(counts)} sites, limit {MAX_SITES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", BadPoscarWarning)
            found = Poscar.from_str("\n".join(lines), read_velocities=False).structure
    except BadPoscarWarning:
        return malformed("no element symbols (VASP 4); write them in line 6, above the counts")
    except Exception as error:  # pymatgen raises any exception
        return malformed(f"pymatgen reads no POSCAR: {_reason(error)}")
    if len(found) == 0:
        return Flaw(reason=Reason.NO_SITES, detail="no atoms")
    species = [site.specie.symbol for site in found]
    return checked_crystal(found.lattice.matrix, species, found.frac_coords, Reason.MALFORMED_ROW)


def ase_database(path: Path) -> Iterator[str]:
    """The structures of an ASE database (SQLite), as JSON of crystals, in the order of their ids.

    Raises InputError for another kind of database.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            for size, numbers, positions, cell, pbc in database.execute(_SYSTEMS, (MAX_BLOB,) * 2):
                if size > MAX_BLOB:
                    yield f"{OVERSIZE}{size // 24:,} sites, limit {MAX_SITES}"
                    continue
                atoms = _of_atoms(
                    np.frombuffer(numbers or b"", np.int32),
                    np.frombuffer(positions or b"", float).reshape(-1, 3),
                    np.frombuffer(cell or b"", float).reshape(-1, 3),
                    np.array([bool((pbc or 0) & bit) for bit in (1, 2, 4)]),
                )
                yield _compact(atoms)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise InputError(f"{path.name} is no ASE database: {_reason(error)}") from None


def ase_trajectory(path: Path) -> Iterator[str]:
    """The images of an ASE trajectory, as JSON of crystals, in order.

    Raises InputError for any other file, such as ASE's old trajectories, which are pickles.
    """
    from ase.io import ulm

    try:
        with ulm.open(str(path), "r") as images:
            if images.get_tag() != "ASE-Trajectory":
                raise ValueError(f"it holds {images.get_tag()!r}")
            for number in range(len(images)):
                image = images[number]
                holder = image if "numbers" in image else images[0]
                yield _compact(
                    _of_atoms(
                        np.asarray(holder.numbers),
                        np.asarray(image.positions),
                        np.asarray(image.cell),
                        np.asarray(holder.pbc),
                    )
                )
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        MemoryError,
        ulm.InvalidULMFileError,
    ) as error:
        raise InputError(
            f"{path.name} is no trajectory of ASE 3.10 or later: {_reason(error)}; older ones are "
            "pickles, which are not read: convert them with `ase convert`"
        ) from None


def _of_atoms(numbers: np.ndarray, positions: np.ndarray, cell: Any, pbc: Any) -> dict[str, Any]:
    """The JSON of our crystals for atoms in Å; without coordinates where the cell is flat."""
    from ase.data import chemical_symbols

    matrix = np.asarray(cell, dtype=float)
    solid = matrix.shape == (3, 3) and abs(np.linalg.det(matrix)) > 0
    fractions = np.zeros((0, 3))
    if solid:
        fractions = np.linalg.solve(matrix.T, np.asarray(positions, float).T).T
    return {
        "lattice": matrix.tolist(),
        "species": [
            chemical_symbols[n] if 0 <= n < len(chemical_symbols) else f"Z={n}" for n in numbers
        ],
        "frac_coords": fractions.tolist(),
        "pbc": [bool(p) for p in np.broadcast_to(pbc, 3)],
    }


def _whole_numbers(line: str) -> list[int]:
    """The numbers of a line of nothing but whole numbers; else none."""
    words = line.split("!")[0].split()
    return (
        [int(w) for w in words] if words and all(w.isdigit() and len(w) < 15 for w in words) else []
    )


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {shorten(str(error), MAX_REASON)[1:-1]}"
