"""The child process that parses CIF: JSON lines in on stdin, JSON lines out on stdout.

    python -m hullward.tools.crystal.files.cif_worker MEMORY_BYTES

`hullward.tools.crystal.files.cif` starts it. It lowers its own limits, forbids itself network,
processes and writing, and ends with its stdin. Before pymatgen builds a structure, this module
rejects what pymatgen would silently accept: signs, `nan`, dropped sites, guessed elements,
unreadable operators.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
import warnings
from typing import Any

from hullward.models.crystal import lattice_matrix
from hullward.tools.crystal.input_checks import ELEMENTS, MAX_FRACTION, shorten
from hullward.tools.records import Reason

GRACE_S = 2.0  # beyond the time limit of the parent, in case the parent is gone
CELL_KEYS = [f"_cell_length_{x}" for x in ("a", "b", "c")]
CELL_KEYS += [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
OPERATOR_KEYS = [
    f"{key}{end}"
    for key in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
    for end in ("", "_")
]
P1_NAMES = {"P1", "1", ""}
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?(?:\([0-9]+\))?")
TYPE_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:[0-9.]*[+-]?|[+-][0-9.]+)")
LABEL = re.compile(r"([A-Z][a-z]?)(?:[^A-Za-z].*)?")
_TERM = r"(?:[0-9]+/[0-9]+|[0-9]*\.?[0-9]+|[xyz])"
OPERATOR = re.compile(rf"[+-]?{_TERM}(?:[+-]{_TERM})*")
SAMPLE = """data_warm_up
_symmetry_space_group_name_H-M 'F m -3 m'
_cell_length_a 3.6
_cell_length_b 3.6
_cell_length_c 3.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 Cu1 0 0 0
"""
FORBIDDEN = (
    "socket.", "subprocess.", "ctypes.", "pty.", "shutil.", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link",
    "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.kill",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class RefusedError(Exception):
    """A CIF is rejected, with its reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # output of libraries is no answer
    try:
        _lower_limits(int(sys.argv[1]))
        warnings.simplefilter("ignore")
        read_block(SAMPLE, 500, 192)  # imports and tables are loaded before the first request
        sys.addaudithook(_forbid)
    except Exception as error:  # sent to the parent, which raises it
        answers.write(json.dumps({"error": _words(error)}) + "\n")
        return
    answers.write('{"ready": true}\n')
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line)), allow_nan=False) + "\n")
        answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Crystals of a request's blocks as plain numbers, or a reason and detail."""
    # SIGALRM's default action ends this process even inside a C loop
    signal.setitimer(signal.ITIMER_REAL, request["wall_s"] + GRACE_S)
    try:
        limits = (request["max_sites"], request["max_operators"])
        crystals = [read_block(block, *limits) for block in request["blocks"]]
        return {"crystals": crystals}
    except RefusedError as refusal:
        return {"reason": refusal.reason, "detail": str(refusal)}
    except MemoryError:
        return {"reason": Reason.TOO_LARGE, "detail": "needs more memory than the limit"}
    except Exception as error:  # the parser's exceptions are of any type; each becomes data
        return {"reason": Reason.BAD_CIF, "detail": _words(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def read_block(text: str, max_sites: int, max_operators: int) -> dict[str, Any]:
    """One data block as {lattice, species, coords}. Raises RefusedError or pymatgen's errors."""
    from pymatgen.io.cif import CifParser

    # pymatgen deletes other characters, which could join digits into another number
    parser = CifParser.from_str(text.encode("ascii", "replace").decode())
    blocks = list(parser._cif.data.values())  # type: ignore[attr-defined]
    if len(blocks) != 1:
        raise RefusedError(Reason.BAD_CIF, f"{len(blocks)} data blocks where one was expected")
    data = blocks[0].data
    _check_cell(data)
    _check_operators(data, max_operators)
    elements = _check_sites(data, max_sites)
    (structure,) = parser.parse_structures(primitive=False, on_error="raise")
    _check_guesses(data, parser.warnings)  # type: ignore[attr-defined]
    if len(structure) > max_sites:
        raise RefusedError(Reason.TOO_LARGE, f"{len(structure)} sites, limit {max_sites}")
    if not structure.is_ordered:
        raise RefusedError(Reason.DISORDERED, "sites are partially occupied")
    species = [site.specie.symbol for site in structure]
    if set(species) != elements:
        found, stated = sorted(set(species)), sorted(elements)
        raise RefusedError(Reason.BAD_CIF, f"elements {stated} were read as {found}")
    if not all(map(math.isfinite, [*structure.lattice.matrix.flat, *structure.frac_coords.flat])):
        raise RefusedError(Reason.BAD_CIF, "not finite")
    lattice, coords = structure.lattice.matrix.tolist(), structure.frac_coords.tolist()
    return {"lattice": lattice, "species": species, "coords": coords}


def _check_cell(data: dict[str, Any]) -> None:
    """Require six plain numbers of a possible cell: pymatgen drops signs and changes angles."""
    if missing := [key for key in CELL_KEYS if key not in data]:
        raise RefusedError(Reason.BAD_CIF, f"{', '.join(missing)} not given")
    cell = [_number(key, data[key]) for key in CELL_KEYS]
    try:
        lattice_matrix(cell[:3], cell[3:])
    except ValueError as error:
        raise RefusedError(Reason.IMPOSSIBLE_CELL, str(error)) from error


def _check_operators(data: dict[str, Any], max_operators: int) -> None:
    """Every operator must be readable and keep volume: pymatgen falls back to P1 otherwise."""
    from pymatgen.core.operations import SymmOp

    if any("magn" in key for key in data):
        raise RefusedError(Reason.BAD_CIF, "magnetic CIF: give the nuclear structure")
    for key in OPERATOR_KEYS:
        listed = data.get(key, [])
        operators = [listed] if isinstance(listed, str) else listed
        if len(operators) > max_operators:
            detail = f"{len(operators)} symmetry operators, limit {max_operators}"
            raise RefusedError(Reason.TOO_LARGE, detail)
        for operator in operators:
            parts = "".join(operator.lower().split()).split(",")
            if len(operator) > 100 or len(parts) != 3 or not all(map(OPERATOR.fullmatch, parts)):
                raise RefusedError(
                    Reason.BAD_CIF, f"{shorten(operator)} is not a symmetry operator"
                )
            rotation = SymmOp.from_xyz_str(operator).rotation_matrix
            (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
            determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
            if abs(abs(determinant) - 1) > 1e-6:
                raise RefusedError(Reason.BAD_CIF, f"{shorten(operator)} does not preserve volume")


def _check_sites(data: dict[str, Any], max_sites: int) -> set[str]:
    """The elements of the listed sites; raises RefusedError for an incomplete site."""
    labels = data.get("_atom_site_label")
    if not isinstance(labels, list) or not labels:
        raise RefusedError(Reason.NO_SITES, "no loop of atom sites with _atom_site_label")
    if len(labels) > max_sites:
        raise RefusedError(Reason.TOO_LARGE, f"{len(labels)} listed sites, limit {max_sites}")
    for axis in "xyz":
        key = f"_atom_site_fract_{axis}"
        values = data.get(key)
        if not isinstance(values, list) or len(values) != len(labels):
            raise RefusedError(Reason.BAD_CIF, f"{key} is not given for each site")
        for value in values:
            if abs(_number(key, value)) > MAX_FRACTION:
                raise RefusedError(Reason.BAD_CIF, f"{key} is {value}")
    for value in data.get("_atom_site_occupancy", []):
        if value not in (".", "?") and _number("_atom_site_occupancy", value) != 1:
            raise RefusedError(Reason.DISORDERED, f"occupancy {shorten(value)}")
    names = data.get("_atom_site_type_symbol", labels)
    form = LABEL if names is labels else TYPE_SYMBOL
    elements = set()
    for name in names:
        match = form.fullmatch(name)
        if match is None or match[1] not in ELEMENTS:
            raise RefusedError(Reason.UNKNOWN_ELEMENT, f"{shorten(name)} is no element")
        elements.add(match[1])
    return elements


def _check_guesses(data: dict[str, Any], notes: list[str]) -> None:
    """Reject what pymatgen filled in by guessing."""
    groups = [v for k, v in data.items() if re.search("(?i)space_group_(name|it)|int_tables", k)]
    names = {"".join(str(g).split()).upper() for g in groups} - {"?", "."}
    if names - P1_NAMES and any("Defaulting to P1" in note for note in notes):
        raise RefusedError(
            Reason.BAD_CIF, f"unknown space group {shorten(', '.join(sorted(names)))}"
        )
    if any("implicit hydrogens" in note for note in notes):
        raise RefusedError(Reason.BAD_CIF, "hydrogen atoms without positions")


def _number(key: str, value: object) -> float:
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        raise RefusedError(Reason.BAD_CIF, f"{key} is {shorten(str(value))}, not a number")
    number = float(value.partition("(")[0])
    if not math.isfinite(number):
        raise RefusedError(Reason.BAD_CIF, f"{key} is {shorten(value)}, not finite")
    return number


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 160)}"


def _lower_limits(memory_bytes: int) -> None:
    """Limit memory, file size and core dumps of this process."""
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: parsing needs no network, no process and no file except to read."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if writes or event.startswith(FORBIDDEN):
        raise PermissionError(f"reading a CIF tried {event}")


if __name__ == "__main__":
    main()
