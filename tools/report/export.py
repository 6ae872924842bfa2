"""Relaxed structures as files that other programs read, each with its provenance.

Every text is read back before it is written, and compared with the stored crystal.
"""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.crystal.files import difference, write_cif
from hullward.tools.store import (
    SHORT_LIST,
    SHORT_LIST_ORDER,
    fetch_rows,
    open_snapshot,
    write_whole,
)

Format = Literal["cif", "poscar", "extxyz"]
Where = Literal["shortlist", "judged", "relaxed"]

SYMPREC_A = 0.01  # of the symmetrised CIF, Å
SAFE_NAME = re.compile(r"^[a-zA-Z0-9-]+$")

_CONDITIONS: dict[Where, str] = {
    "shortlist": SHORT_LIST,
    "judged": "state = 'judged'",
    "relaxed": "converged",
}


@dataclass(frozen=True)
class ExportedStructure:
    """One relaxed candidate and its provenance."""

    candidate_id: str
    crystal: Crystal
    provenance: Mapping[str, str | int | float | None]  # None: not known


def export_structures(
    directory: Path,
    out: Path,
    *,
    format: Format = "cif",
    ids: list[str] | None = None,
    where: Where = "shortlist",
    symmetrise: bool = True,
) -> list[Path]:
    """Write the relaxed structures of chosen candidates into the folder `out`.

    ids: these candidates, instead of all that `where` describes.
    symmetrise: CIFs in the symmetry found within 0.01 Å; otherwise every atom as relaxed, in P1.
    One file a candidate for 'cif' and 'poscar', one file of all for 'extxyz'. Existing files of
    the same name are replaced; others stay.
    Raises InputError for an unknown format, rule or id, an id that has no relaxed structure, a
    text that does not read back as the stored crystal, or an `out` that is not a folder.
    """
    writers: dict[Format, Callable[[ExportedStructure], str]] = {
        "cif": lambda r: cif_text(r, symmetrise=symmetrise),
        "poscar": poscar_text,
        "extxyz": extxyz_text,
    }
    if format not in writers:
        raise InputError(f"unknown format {format!r}; known: {', '.join(writers)}")
    with open_snapshot(directory) as connection:
        chosen = relaxed(connection, ids=ids, where=where)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to export into")
    suffix = {"cif": "cif", "poscar": "vasp", "extxyz": "extxyz"}[format]
    texts = {f"{safe_name(r.candidate_id)}.{suffix}": writers[format](r) for r in chosen}
    if format == "extxyz" and texts:
        texts = {"candidates.extxyz": "".join(texts.values())}
    out.mkdir(parents=True, exist_ok=True)
    return [write_whole(out / name, text) for name, text in texts.items()]


def relaxed(
    connection: duckdb.DuckDBPyConnection, *, ids: list[str] | None = None, where: Where
) -> list[ExportedStructure]:
    """The chosen candidates with their relaxed structures, in the order of the short list."""
    if where not in _CONDITIONS:
        raise InputError(f"unknown choice {where!r}; known: {', '.join(_CONDITIONS)}")
    if ids is not None:
        _check_known(connection, ids)
    rows = fetch_rows(
        connection,
        f"""SELECT r.*, x.crystal, x.potential, x.potential_sha256, x.energy_scheme, x.protocol,
            x.residual_force_ev_per_a, b.reference_id, b.reference_version
            FROM (SELECT * FROM results WHERE candidate_id IS NOT NULL
                  AND ({"list_contains($ids, candidate_id)" if ids is not None
                  else _CONDITIONS[where]})) r
            JOIN relaxations x USING (relaxation_id)
            LEFT JOIN bases b ON true
            WHERE x.crystal IS NOT NULL ORDER BY {SHORT_LIST_ORDER}""",
        {"ids": ids} if ids is not None else {},
    )  # fmt: skip
    found = [_from_row(row) for row in rows]
    without = sorted(set(ids or ()) - {r.candidate_id for r in found})
    if without:
        raise InputError(
            f"no relaxed structure yet of {', '.join(without)}; `hullward resume` relaxes them"
        )
    return found


def _check_known(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> None:
    known = [i for (i,) in connection.execute("SELECT candidate_id FROM candidates").fetchall()]
    for unknown in sorted(set(ids) - set(known)):
        near = difflib.get_close_matches(unknown, known, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"{len(known)} candidates are known"
        raise InputError(f"no candidate {unknown!r}; {hint}")


def _from_row(row: Mapping[str, Any]) -> ExportedStructure:
    protocol = json.loads(row["protocol"])
    return ExportedStructure(
        candidate_id=row["candidate_id"],
        crystal=Crystal.model_validate_json(row["crystal"]),
        provenance={
            "candidate_id": row["candidate_id"],
            "formula": row["formula"],
            "energy_ev_per_atom": row["energy_ev_per_atom"],
            "e_above_reference_ev_per_atom": row["e_above_reference_ev_per_atom"],
            "e_above_union_ev_per_atom": row["e_above_union_ev_per_atom"],
            "reference": row["reference_id"],
            "reference_version": row["reference_version"],
            "energy_scheme": row["energy_scheme"],
            "potential": row["potential"],
            "potential_sha256": row["potential_sha256"],
            "protocol": " ".join(f"{key}={value}" for key, value in protocol.items()),
            "residual_force_ev_per_a": row["residual_force_ev_per_a"],
            "converged": str(row["converged"]).lower(),
            "state": row["state"],
            "operator": row["operator"],
            "parents": " ".join(row["parents"] or ()),
            "method": "machine-learned potential, not DFT",
        },
    )


def cif_text(candidate: ExportedStructure, *, symmetrise: bool = True) -> str:
    """A CIF with provenance comments at the top; in P1 where the symmetry changes the crystal."""
    try:
        body, setting = write_cif(candidate.crystal, SYMPREC_A if symmetrise else None)
    except ValueError as error:
        raise InputError(f"{candidate.candidate_id} cannot be written: {error}") from error
    notes = [f"# {key}: {_one_line(_word(value))}" for key, value in candidate.provenance.items()]
    return "\n".join(["# Hullward", *notes, f"# setting: {_one_line(setting)}", body])


def poscar_text(candidate: ExportedStructure) -> str:
    """A VASP 5 POSCAR, species grouped, provenance in its first line."""
    from pymatgen.io.vasp import Poscar

    shown = ("candidate_id", "formula", "e_above_union_ev_per_atom", "reference", "potential")
    comment = " ".join(f"{key}={_word(candidate.provenance.get(key))}" for key in shown)
    structure = candidate.crystal.to_structure()
    text = Poscar(structure, comment=_one_line(comment), sort_structure=True).get_str()
    read = Poscar.from_str(text).structure
    return _checked(candidate, text, Crystal.from_structure(read), "POSCAR")


def extxyz_text(candidate: ExportedStructure) -> str:
    """One extxyz frame: provenance in its info keys; no energy or forces, which are not DFT's."""
    from ase import Atoms
    from ase.io import read, write

    crystal = candidate.crystal
    atoms = Atoms(
        crystal.species, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True
    )
    atoms.info = {key: _one_line(_word(v)) if isinstance(v, str) or v is None else v
                  for key, v in candidate.provenance.items()}  # fmt: skip
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    frame = read(io.StringIO(text.getvalue()), format="extxyz")
    return _checked(candidate, text.getvalue(), Crystal.from_ase(frame), "extxyz")


def _checked(candidate: ExportedStructure, text: str, read: Crystal, format: str) -> str:
    """The text; raises InputError if it does not read back as the stored crystal."""
    if fault := difference(candidate.crystal, read):
        raise InputError(f"{candidate.candidate_id} cannot be written as {format}: {fault}")
    return text


def safe_name(identifier: str) -> str:
    """The id, if it can be a file name on any system; raises InputError otherwise."""
    if not SAFE_NAME.fullmatch(identifier):
        raise InputError(f"{identifier!r} cannot name a file: only letters, digits and hyphens can")
    return identifier


def _word(value: str | int | float | None) -> str:
    if value is None or value == "":
        return "unknown" if value is None else "none"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _one_line(words: str) -> str:
    return " ".join(words.split())
